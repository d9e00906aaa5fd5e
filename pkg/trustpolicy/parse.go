// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// maxName bounds the names of statements and keys, which go into messages.
const maxName = 128

// Parse reads a policy document, YAML or, where it begins with "{", JSON. Errors
// are *ParseError.
func Parse(data []byte) (Policy, error) {
	root, err := readDocument(data)
	if err != nil {
		return Policy{}, err
	}
	doc, err := objectOf(root, "")
	if err != nil {
		return Policy{}, err
	}
	// The version first: a later version's fields are not this one's typos.
	if err := checkVersion(doc); err != nil {
		return Policy{}, err
	}
	if err := doc.knowsOnly("version", "policies"); err != nil {
		return Policy{}, err
	}
	return statementsOf(doc, "policies", reader.statement)
}

// statementsOf reads the statements that are listed in a field of doc.
func statementsOf(doc object, field string, read func(r reader, n *yaml.Node, path string) (statement, error)) (Policy, error) {
	list, err := doc.list(field)
	if err != nil {
		return Policy{}, err
	}
	r := reader{names: make(map[string]int), scopes: make(map[scope]int)}
	var p Policy
	for i, n := range list {
		s, err := read(r, n, fmt.Sprintf("%s[%d]", field, i))
		if err != nil {
			return Policy{}, err
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func checkVersion(doc object) error {
	n, found := doc.fields["version"]
	if !found {
		return fault(doc.node, "", "field \"version\" is missing; write version: 1")
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
		return fault(n, "version", "expected the number 1, found %s", kindOf(n))
	}
	if n.Value != "1" {
		return fault(n, "version", "%s is not known; this program reads version 1", clip(n.Value))
	}
	return nil
}

// reader holds what must be unique in the whole document, with its first line.
type reader struct {
	names  map[string]int
	scopes map[scope]int
}

func (r reader) statement(n *yaml.Node, path string) (statement, error) {
	o, err := objectOf(n, path)
	if err != nil {
		return statement{}, err
	}
	if err := o.knowsOnly("name", "scopes", "require", "formats", "timestamps", "maxAge", "notBefore", "requireRepository",
		"annotations", "builder", "revoked", "keys"); err != nil {
		return statement{}, err
	}
	var s statement
	if s.Name, err = o.name(r.names); err != nil {
		return statement{}, err
	}
	if s.scopes, err = r.readScopes(o, "scopes"); err != nil {
		return statement{}, err
	}
	s.Scopes = scopeTexts(s.scopes)
	if s.Keys, err = readKeys(o); err != nil {
		return statement{}, err
	}
	if err := readConstraints(o, &s.Statement); err != nil {
		return statement{}, err
	}
	return s, nil
}

func (r reader) readScopes(o object, field string) ([]scope, error) {
	list, err := o.list(field)
	if err != nil {
		return nil, err
	}
	var scopes []scope
	for i, n := range list {
		path := fmt.Sprintf("%s[%d]", o.at(field), i)
		text, err := textOf(n, path)
		if err != nil {
			return nil, err
		}
		s, reason := parseScope(text)
		if reason != "" {
			return nil, fault(n, path, "%q is not a scope: %s", clip(text), reason)
		}
		if line, found := r.scopes[s]; found {
			return nil, fault(n, path, "duplicate scope %q, first on line %d", clip(text), line)
		}
		r.scopes[s] = n.Line
		scopes = append(scopes, s)
	}
	return scopes, nil
}

func scopeTexts(scopes []scope) []string {
	texts := make([]string, len(scopes))
	for i, sc := range scopes {
		texts[i] = sc.String()
	}
	return texts
}

func checkName(s string) string {
	switch {
	case len(s) > maxName:
		return fmt.Sprintf("it is longer than %d bytes", maxName)
	case strings.TrimSpace(s) != s:
		return "it begins or ends with a space"
	case slices.ContainsFunc([]rune(s), func(r rune) bool { return !unicode.IsPrint(r) }):
		return "it has a character that cannot be printed"
	}
	return ""
}
