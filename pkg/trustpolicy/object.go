// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// object is a mapping of the document, path where it stands.
type object struct {
	path   string
	node   *yaml.Node
	fields map[string]*yaml.Node
}

// objectOf reads a mapping of a tree that readDocument has checked.
func objectOf(n *yaml.Node, path string) (object, error) {
	if n.Kind != yaml.MappingNode {
		return object{}, fault(n, path, "expected a mapping, found %s", kindOf(n))
	}
	o := object{path: path, node: n, fields: make(map[string]*yaml.Node, len(n.Content)/2)}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			return object{}, fault(key, path, "a field's name must be text, found %s", kindOf(key))
		}
		o.fields[key.Value] = n.Content[i+1]
	}
	return o, nil
}

// at names a field of o.
func (o object) at(field string) string {
	if o.path == "" {
		return field
	}
	return o.path + "." + field
}

// knowsOnly refuses every other field: nothing that somebody demands may go
// unenforced.
func (o object) knowsOnly(fields ...string) error {
	for i := 0; i < len(o.node.Content); i += 2 {
		if key := o.node.Content[i]; !slices.Contains(fields, key.Value) {
			return fault(key, o.path, "field %q is not known to this version, which would not enforce it; known are %s",
				clip(key.Value), strings.Join(fields, ", "))
		}
	}
	return nil
}

// list returns the entries of a field that must be a list with entries.
func (o object) list(field string) ([]*yaml.Node, error) {
	n, found := o.fields[field]
	switch {
	case !found:
		return nil, fault(o.node, o.path, "field %q is missing", field)
	case n.Kind != yaml.SequenceNode:
		return nil, fault(n, o.at(field), "expected a list, found %s", kindOf(n))
	case len(n.Content) == 0:
		return nil, fault(n, o.at(field), "the list is empty")
	}
	return n.Content, nil
}

// optional returns the text of a field, "" when there is no such field. check
// returns why the text is not right, "" when it is.
func (o object) optional(field string, check func(string) string) (string, error) {
	n, found := o.fields[field]
	if !found {
		return "", nil
	}
	text, err := textOf(n, o.at(field))
	if err != nil {
		return "", err
	}
	if reason := check(text); reason != "" {
		return "", fault(n, o.at(field), "%s", reason)
	}
	return text, nil
}

// name returns the field "name", which must be there and not yet in taken.
func (o object) name(taken map[string]int) (string, error) {
	text, err := o.optional("name", checkName)
	if err != nil {
		return "", err
	}
	if text == "" {
		return "", fault(o.node, o.path, "field \"name\" is missing")
	}
	n := o.fields["name"]
	if line, found := taken[text]; found {
		return "", fault(n, o.at("name"), "duplicate name %q, first on line %d", text, line)
	}
	taken[text] = n.Line
	return text, nil
}

// textOf returns a string that is not empty. What YAML takes for a number, a
// boolean or a date is no string until it is quoted.
func textOf(n *yaml.Node, path string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return "", fault(n, path, "expected text, found %s", kindOf(n))
	}
	if n.Value == "" {
		return "", fault(n, path, "it is empty")
	}
	return n.Value, nil
}

// kindOf says what a node is, in the words of somebody who wrote it.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!str":
		return "text"
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean; quote it"
	case "!!int", "!!float":
		return "a number; quote it"
	case "!!timestamp":
		return "a date; quote it"
	}
	return "something else"
}
