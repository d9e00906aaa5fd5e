// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
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
	list, err := doc.list("policies")
	if err != nil {
		return Policy{}, err
	}
	r := reader{names: make(map[string]int), scopes: make(map[scope]int)}
	var p Policy
	for i, n := range list {
		s, err := r.statement(n, fmt.Sprintf("policies[%d]", i))
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
	if err := o.knowsOnly("name", "scopes", "keys"); err != nil {
		return statement{}, err
	}
	var s statement
	if s.name, err = o.name(r.names); err != nil {
		return statement{}, err
	}
	if s.scopes, err = r.readScopes(o); err != nil {
		return statement{}, err
	}
	if s.keys, err = readKeys(o); err != nil {
		return statement{}, err
	}
	return s, nil
}

func (r reader) readScopes(o object) ([]scope, error) {
	list, err := o.list("scopes")
	if err != nil {
		return nil, err
	}
	var scopes []scope
	for i, n := range list {
		path := fmt.Sprintf("%s[%d]", o.at("scopes"), i)
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

func readKeys(o object) ([]Key, error) {
	list, err := o.list("keys")
	if err != nil {
		return nil, err
	}
	names := make(map[string]int)
	var keys []Key
	for i, n := range list {
		k, err := readKey(n, fmt.Sprintf("%s[%d]", o.at("keys"), i), names)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func readKey(n *yaml.Node, path string, names map[string]int) (Key, error) {
	o, err := objectOf(n, path)
	if err != nil {
		return Key{}, err
	}
	if err := o.knowsOnly("name", "key", "publicKey", "publicKeyFile"); err != nil {
		return Key{}, err
	}
	var k Key
	if k.Name, err = o.name(names); err != nil {
		return Key{}, err
	}
	if k.Transit, err = o.optional("key", checkTransit); err != nil {
		return Key{}, err
	}
	pem, err := o.optional("publicKey", checkPublicKey)
	if err != nil {
		return Key{}, err
	}
	if pem != "" {
		k.PublicKey = []byte(pem)
	}
	if k.PublicKeyFile, err = o.optional("publicKeyFile", checkFile); err != nil {
		return Key{}, err
	}
	switch {
	case pem != "" && k.PublicKeyFile != "":
		return Key{}, fault(o.fields["publicKeyFile"], path, "publicKey and publicKeyFile exclude each other")
	case pem == "" && k.PublicKeyFile == "" && k.Transit == "":
		return Key{}, fault(n, path, "it needs key, publicKey or publicKeyFile")
	}
	return k, nil
}

// checkTransit knows the schemes only; the rest of the URI is for whoever holds
// the key. A path here must not pass for one.
func checkTransit(s string) string {
	for _, scheme := range []string{"hashivault://", "openbao://"} {
		if rest, found := strings.CutPrefix(s, scheme); found {
			if rest == "" || strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return fmt.Sprintf("%q does not name a Transit key", clip(s))
			}
			return ""
		}
	}
	return "it must begin with hashivault:// or openbao://; a file belongs in publicKeyFile"
}

func checkPublicKey(s string) string {
	_, err := signature.ParsePublicKeys("publicKey", []byte(s))
	var bad *signature.KeyFileError
	if errors.As(err, &bad) {
		return bad.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func checkFile(s string) string {
	if strings.Contains(s, "://") {
		return "it must be a path; a Transit key belongs in key"
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "it has a control character"
	}
	return ""
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
