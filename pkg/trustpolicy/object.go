// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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

// optionalTexts returns the texts of a list that may be missing, but not empty,
// and that has none twice.
func (o object) optionalTexts(field string, check func(string) string) ([]string, error) {
	if _, found := o.fields[field]; !found {
		return nil, nil
	}
	list, err := o.list(field)
	if err != nil {
		return nil, err
	}
	var texts []string
	for i, n := range list {
		path := fmt.Sprintf("%s[%d]", o.at(field), i)
		text, err := textOf(n, path)
		if err != nil {
			return nil, err
		}
		if slices.Contains(texts, text) {
			return nil, fault(n, path, "duplicate %q", clip(text))
		}
		if reason := check(text); reason != "" {
			return nil, fault(n, path, "%s", reason)
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// texts returns a mapping of texts that may be missing, but not empty.
func (o object) texts(field string) (map[string]string, error) {
	n, found := o.fields[field]
	if !found {
		return nil, nil
	}
	in, err := objectOf(n, o.at(field))
	if err != nil {
		return nil, err
	}
	if len(in.fields) == 0 {
		return nil, fault(n, in.path, "it is empty")
	}
	out := make(map[string]string, len(in.fields))
	for i := 0; i < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if name == "" {
			return nil, fault(n.Content[i], in.path, "a name is empty")
		}
		if out[name], err = textOf(n.Content[i+1], in.at(name)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// integer returns a number from 1 to max, and 0 where there is no such field.
func (o object) integer(field string, max int) (int, error) {
	n, found := o.fields[field]
	if !found {
		return 0, nil
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
		return 0, fault(n, o.at(field), "expected a number, found %s", kindOf(n))
	}
	// One spelling: YAML also reads 0x2, 0o2 and 1_000.
	v, err := strconv.Atoi(n.Value)
	if err != nil || strconv.Itoa(v) != n.Value || v < 1 || v > max {
		return 0, fault(n, o.at(field), "%s is not a number from 1 to %d", clip(n.Value), max)
	}
	return v, nil
}

// boolean returns true or false, and false where there is no such field.
func (o object) boolean(field string) (bool, error) {
	n, found := o.fields[field]
	if !found {
		return false, nil
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || (n.Value != "true" && n.Value != "false") {
		return false, fault(n, o.at(field), "expected true or false")
	}
	return n.Value == "true", nil
}

// time returns an RFC 3339 time, quoted or not, and zero where there is no such
// field.
func (o object) time(field string) (time.Time, error) {
	n, found := o.fields[field]
	if !found {
		return time.Time{}, nil
	}
	if n.Kind != yaml.ScalarNode || (n.Tag != "!!timestamp" && n.Tag != "!!str") {
		return time.Time{}, fault(n, o.at(field), "expected a time, found %s", kindOf(n))
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil || t.IsZero() {
		return time.Time{}, fault(n, o.at(field), "%q is not an RFC 3339 time such as 2026-11-01T00:00:00Z", clip(n.Value))
	}
	return t.UTC(), nil
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
