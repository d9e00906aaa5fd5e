// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// testPEM is the public key of a seed of one repeated byte.
func testPEM(seed byte) string {
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+by)
}

// goodYAML has every field of the schema; the faults below are each one edit of it.
var goodYAML = `version: 1
policies:
- name: production
  scopes:
  - registry.example.com/models/**
  - registry.example.com/tools/loader
  keys:
  - name: release
    key: hashivault://transit/release
    publicKeyFile: release.pub
  - name: second
    publicKey: |
` + indent(testPEM('a'), "      ") + `
- name: rest
  scopes: ["*"]
  keys: [{name: only, key: "openbao://team/transit/rest?version=2"}]
`

// goodJSON says the same as goodYAML.
var goodJSON = `{
	"version": 1,
	"policies": [
		{
			"name": "production",
			"scopes": ["registry.example.com/models/**", "registry.example.com/tools/loader"],
			"keys": [
				{"name": "release", "key": "hashivault://transit/release", "publicKeyFile": "release.pub"},
				{"name": "second", "publicKey": ` + quoted(testPEM('a')) + `}
			]
		},
		{"name": "rest", "scopes": ["*"], "keys": [{"name": "only", "key": "openbao://team/transit/rest?version=2"}]}
	]
}
`

func namesOf(p Policy) []string {
	var names []string
	for _, s := range p.Statements() {
		names = append(names, s.Name)
	}
	return names
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestParseReadsYAMLAndJSONAlike(t *testing.T) {
	want := map[string]Statement{
		"registry.example.com/models/llama": {Name: "production", Scopes: []string{"registry.example.com/models/**", "registry.example.com/tools/loader"}, Require: 1, Keys: []Key{
			{Name: "release", Transit: "hashivault://transit/release", PublicKeyFile: "release.pub"},
			{Name: "second", PublicKey: []byte(testPEM('a'))},
		}},
		"other.example.com/x": {Name: "rest", Scopes: []string{"*"}, Require: 1, Keys: []Key{
			{Name: "only", Transit: "openbao://team/transit/rest?version=2"},
		}},
	}
	crlf := strings.ReplaceAll(goodYAML, "\n", "\r\n")
	for format, doc := range map[string]string{"yaml": goodYAML, "crlf": crlf, "json": goodJSON, "marked yaml": "# comment\n---\n" + goodYAML + "...\n"} {
		p, err := Parse([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if got := namesOf(p); !reflect.DeepEqual(got, []string{"production", "rest"}) {
			t.Errorf("%s: statements %q", format, got)
		}
		for repository, statement := range want {
			got, err := p.Match(repository)
			if err != nil || !reflect.DeepEqual(got, statement) {
				t.Errorf("%s: Match(%s) = %+v, %v, want %+v", format, repository, got, err, statement)
			}
		}
	}
}

// A key may be rotated: all its versions stand in one publicKey, far longer than
// the 1,024 characters that YAML allows for a key of a mapping on one line.
func TestParseReadsLongPublicKeyOnOneLine(t *testing.T) {
	many := strings.Repeat(testPEM('a'), 40)
	doc := `{"version": 1, "policies": [{"name": "a", "scopes": ["r.io/x"], "keys": [{"name": "k", "publicKey": ` + quoted(many) + `}]}]}`
	p, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Match("r.io/x")
	if err != nil || string(s.Keys[0].PublicKey) != many {
		t.Errorf("public key changed: %v", err)
	}
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// Each row is one edit of a good document. line is where the fault is after it.
var parseFaults = []edit{
	{"no version", "version: 1\n", "", 1, `field "version" is missing`, false},
	{"later version", "version: 1", "version: 2", 1, "version: 2 is not known", false},
	{"version and its fields", "version: 1", "version: 2\nlevel: strict", 1, "version: 2 is not known", false},
	{"version as text", "version: 1", `version: "1"`, 1, "version: expected the number 1, found text", false},
	{"version as float", "version: 1", "version: 1.0", 1, "version: expected the number 1", true},
	{"version in hexadecimal", "version: 1", "version: 0x1", 1, "version: 0x1 is not known", true},
	{"field of the document", "version: 1", "version: 1\nmode: audit", 2, `field "mode" is not known`, false},
	{"case of a field", "version: 1", "Version: 1", 1, `field "version" is missing`, false},
	{"second case of a field", "version: 1", "version: 1\nVERSION: 1", 2, `duplicate field "VERSION", first on line 1`, false},
	{"unknown field", "- name: production", "- name: production\n  level: strict", 4, `policies[0]: field "level" is not known`, false},
	{"case of a statement's field", "- name: production", "- name: production\n  Require: 1", 4, `field "Require" is not known`, false},
	{"unknown field of a key", "    publicKeyFile: release.pub", "    fingerprint: x", 10, `policies[0].keys[0]: field "fingerprint" is not known`, false},

	{"duplicate field at the top", "policies:\n", "policies: []\npolicies:\n", 3, `duplicate field "policies", first on line 2`, true},
	{"duplicate field of a statement", "- name: production", "- name: staging\n  name: production", 4, `duplicate field "name", first on line 3`, true},
	{"duplicate field of a key", "    publicKeyFile: release.pub", "    key: hashivault://other", 10, `duplicate field "key", first on line 9`, true},
	{"duplicate field in a flow mapping", "{name: only, ", "{name: only, name: other, ", 18, `duplicate field "name", first on line 18`, true},
	{"duplicate field spelt otherwise", "- name: production", "- name: production\n  \"n\\x61me\": x", 4, `duplicate field "name"`, true},
	{"duplicate field inside an unknown one", "version: 1", "version: 1\nx: {a: {b: 1, b: 2}}", 2, `duplicate field "b"`, true},
	{"alias", "- name: production", "- &a\n  name: production", 3, "anchors are not allowed", true},
	{"alias to nothing", "scopes: [\"*\"]", "scopes: *all", 17, "aliases are not allowed", true},
	{"anchor on a scalar", "name: production", "name: &n production", 3, "anchors are not allowed", true},
	{"anchor on a key", "version: 1", "&v version: 1", 1, "anchors are not allowed", true},
	{"merge key", "- name: production", "- name: production\n  <<: {scopes: [r.io/x]}", 4, "merge keys are not allowed", true},
	{"quoted merge key", "- name: production", "- name: production\n  \"<<\": {scopes: [r.io/x]}", 4, `field "<<" is not known`, false},
	{"custom tag", "name: production", "name: !mine production", 3, "tags are not allowed", true},
	{"standard tag", "name: production", "name: !!str production", 3, "tags are not allowed", true},
	{"binary tag", "name: production", "name: !!binary cHJvZA==", 3, "tags are not allowed", true},
	{"non-specific tag", "name: production", "name: ! production", 3, "tags are not allowed", true},
	{"non-specific tag on a number", "version: 1", "version: ! 1", 1, "tags are not allowed", true},
	{"tag on a mapping", "- name: production", "- !policy\n  name: production", 3, "tags are not allowed", true},
	{"YAML directive", "version: 1", "# c\n%YAML 1.1\n---\nversion: 1", 2, "directives are not allowed", true},
	{"TAG directive", "version: 1", "%TAG ! tag:example.com,2000:\n---\nversion: 1", 1, "directives are not allowed", true},
	{"second document", "- name: rest", "---\n- name: rest", 16, "a second document is not allowed", true},
	{"text after the end", "- name: rest", "...\n- name: rest", 16, "", true},
	{"number as a field's name", "version: 1", "version: 1\n7: x", 2, "a field's name must be text", true},
	{"mapping as a field's name", "version: 1", "version: 1\n? {a: b}\n: x", 2, "a field's name must be text", true},

	{"policies missing", "policies:", "policy:", 2, `field "policy" is not known`, false},
	{"name missing", "- name: production\n  scopes:", "- scopes:", 3, `policies[0]: field "name" is missing`, false},
	{"name empty", "name: production", `name: ""`, 3, "policies[0].name: it is empty", false},
	{"name is nothing", "name: production", "name:", 3, "policies[0].name: expected text, found nothing", false},
	{"name is a boolean", "name: production", "name: true", 3, "expected text, found a boolean", false},
	{"name is a number", "name: production", "name: 2026", 3, "expected text, found a number", false},
	{"name is a date", "name: production", "name: 2026-11-01", 3, "expected text, found a date", true},
	{"name is a list", "name: production", "name: [production]", 3, "expected text, found a list", false},
	{"name with a line break", "name: production", `name: "a\nb"`, 3, "cannot be printed", false},
	{"name that turns the text round", "name: production", `name: "a\u202eb"`, 3, "cannot be printed", false},
	{"name with a space", "name: production", `name: "production "`, 3, "begins or ends with a space", false},
	{"name too long", "name: production", "name: " + strings.Repeat("n", maxName+1), 3, "longer than 128 bytes", false},
	{"name taken", "- name: rest", "- name: production", 16, `duplicate name "production", first on line 3`, true},
	{"key's name missing", "- name: release\n    key:", "- key:", 8, `policies[0].keys[0]: field "name" is missing`, false},
	{"key's name taken", "- name: second", "- name: release", 11, `policies[0].keys[1].name: duplicate name "release", first on line 8`, true},
	{"scopes missing", "  scopes: [\"*\"]\n", "", 16, `policies[1]: field "scopes" is missing`, false},
	{"scopes empty", `["*"]`, "[]", 17, "policies[1].scopes: the list is empty", false},
	{"scopes not a list", `["*"]`, `"*"`, 17, "policies[1].scopes: expected a list, found text", false},
	{"scope not text", `["*"]`, "[true]", 17, "policies[1].scopes[0]: expected text, found a boolean", false},
	{"scope empty", `["*"]`, `[""]`, 17, "policies[1].scopes[0]: it is empty", false},
	{"scope no scope", `["*"]`, `["models/**"]`, 17, "policies[1].scopes[0]: \"models/**\" is not a scope", false},
	{"scope taken", `["*"]`, `["*", "*"]`, 17, `policies[1].scopes[1]: duplicate scope "*", first on line 17`, false},
	{"scope taken by another statement", `["*"]`, `["Registry.Example.COM/models/**"]`, 17, "duplicate scope \"Registry.Example.COM/models/**\", first on line 5", true},
	{"keys missing", `  keys: [{name: only, key: "openbao://team/transit/rest?version=2"}]` + "\n", "", 16, `policies[1]: field "keys" is missing`, false},
	{"keys empty", `[{name: only, key: "openbao://team/transit/rest?version=2"}]`, "[]", 18, "policies[1].keys: the list is empty", false},
	{"keys nothing", `[{name: only, key: "openbao://team/transit/rest?version=2"}]`, "", 18, "policies[1].keys: expected a list, found nothing", false},
	{"keys not mappings", `[{name: only, key: "openbao://team/transit/rest?version=2"}]`, "[only]", 18, "policies[1].keys[0]: expected a mapping, found text", false},
	{"key of nothing", `, key: "openbao://team/transit/rest?version=2"`, "", 18, "policies[1].keys[0]: it needs key, publicKey, publicKeyFile or certificatesFile", false},
	{"Transit key not text", "key: hashivault://transit/release", "key: 7", 9, "policies[0].keys[0].key: expected text", false},
	{"Transit key is nothing", "key: hashivault://transit/release", "key: ~", 9, "expected text, found nothing", false},
	{"Transit key without a name", "key: hashivault://transit/release", `key: "hashivault://"`, 9, "does not name a Transit key", false},
	{"Transit key with a space", "key: hashivault://transit/release", `key: "hashivault://a b"`, 9, "does not name a Transit key", false},
	{"path for a Transit key", "key: hashivault://transit/release", "key: release.pub", 9, "a file belongs in publicKeyFile", false},
	{"other scheme", "key: hashivault://transit/release", "key: awskms://alias/x", 9, "must begin with hashivault://", false},
	{"public key and file", "    publicKeyFile: release.pub", "    publicKeyFile: release.pub\n    publicKey: " + quoted(testPEM('a')), 10, "exclude each other", false},
	{"public key empty", "publicKeyFile: release.pub", `publicKey: ""`, 10, "policies[0].keys[0].publicKey: it is empty", false},
	{"public key no PEM", "publicKeyFile: release.pub", "publicKey: release.pub", 10, "not PEM", false},
	{"public key folded", "publicKey: |", "publicKey: >", 12, "PEM block is cut short", true},
	{"private key", "publicKeyFile: release.pub", "publicKey: " + quoted(strings.ReplaceAll(testPEM('a'), "PUBLIC", "PRIVATE")), 10, "it holds a private key", false},
	{"URI for a file", "publicKeyFile: release.pub", "publicKeyFile: hashivault://x", 10, "it must be a path", false},
	{"file empty", "publicKeyFile: release.pub", `publicKeyFile: ""`, 10, "publicKeyFile: it is empty", false},
	{"file with a NUL", "publicKeyFile: release.pub", `publicKeyFile: "a\0b"`, 10, "control character", false},

	{"statement not a mapping", "- name: rest", "- rest\n- name: rest", 16, "policies[1]: expected a mapping, found text", false},
	{"control character", "name: production", "name: prod\x1b[31m", 3, "control character", true},
	{"NUL", "name: production", "name: prod\x00", 3, "control character", true},
	{"not UTF-8", "name: production", "name: prod\xff", 3, "not UTF-8", true},
	{"byte order mark", "version: 1", "\ufeffversion: 1", 1, "byte order mark", true},
	{"line separator", "name: production", "name: a\u2028b", 3, "line break other than", true},
	{"next line", "name: production", "name: a\u0085b", 3, "line break other than", true},
	{"lone carriage return", "name: production", "name: a\rb", 3, "line break other than", true},
	{"bad indentation", "  scopes: [\"*\"]", "\tscopes: [\"*\"]", 16, "not YAML: found a tab", true},
	{"unclosed quote", "name: rest", "name: \"rest", 17, "not YAML", true},
	{"deepest", "version: 1", "version: 1\nx: " + deep(maxDepth-1), 2, `field "x" is not known`, false},
	{"too deep", "version: 1", "version: 1\nx: " + deep(maxDepth), 2, "nested deeper than 16", false},
	{"far too deep", "version: 1", "version: 1\nx: " + deep(20000), 2, "exceeded max depth", true},
	{"too long", "version: 1", "#" + strings.Repeat("x", maxDocument) + "\nversion: 1", 1, "longer than 1048576 bytes", true},
}

func TestParseRefuses(t *testing.T) {
	for _, row := range parseFaults {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(goodYAML, row.old) {
				t.Fatalf("the good document has no %q", row.old)
			}
			refused(t, strings.Replace(goodYAML, row.old, row.new, 1), row.line, row.reason)
		})
	}
}

func TestParseRefusesJSON(t *testing.T) {
	rows := []struct {
		name, old, new string
		line           int
		reason         string
	}{
		{"duplicate key", `"version": 1,`, `"version": 1, "version": 1,`, 2, `duplicate field "version"`},
		{"nested duplicate key", `{"name": "release", `, `{"name": "release", "name": "x", `, 8, `duplicate field "name"`},
		{"escaped duplicate key", `{"name": "release", `, `{"name": "release", "n\u0061me": "x", `, 8, `duplicate field "name"`},
		{"duplicate key but for its case", `{"name": "release", `, `{"name": "release", "Name": "x", `, 8, `duplicate field "Name"`},
		{"unknown field", `"version": 1,`, `"version": 1, "require": 2,`, 2, `field "require" is not known`},
		{"comment", `"version": 1,`, `"version": 1, # one`, 2, "not JSON"},
		{"trailing comma", `"version": 1,`, `"version": 1,,`, 2, "not JSON"},
		{"field without quotes", `"version": 1,`, `version: 1,`, 2, "not JSON"},
		{"anchor", `"version": 1,`, `"version": &a 1,`, 2, "not JSON"},
		{"alias", `"version": 1,`, `"version": *a,`, 2, "not JSON"},
		{"second value", "\n}\n", "\n}\n{}", 15, "not JSON"},
		{"null", `"name": "rest"`, `"name": null`, 12, "expected text, found nothing"},
		{"boolean", `"name": "rest"`, `"name": false`, 12, "expected text, found a boolean"},
		{"version 1.0", `"version": 1,`, `"version": 1.0,`, 2, "expected the number 1"},
		{"version 1e0", `"version": 1,`, `"version": 1e0,`, 2, "expected the number 1"},
		{"line break in a string", `"rest"`, "\"re\nst\"", 12, "not JSON"},
		{"escaped slash", `"rest"`, `"re\/st"`, 12, "unknown escape"},
		{"surrogate pair", `"rest"`, `"\ud83d\ude00"`, 12, "escape"},
		{"cut short", "\n}\n", "", 13, "not JSON"},
		{"too deep", `"version": 1,`, `"x": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + ",", 2, "nested deeper"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(goodJSON, row.old) {
				t.Fatalf("the good document has no %q", row.old)
			}
			refused(t, strings.Replace(goodJSON, row.old, row.new, 1), row.line, row.reason)
		})
	}
}

func TestParseRefusesWholeDocuments(t *testing.T) {
	for doc, reason := range map[string]string{
		"":                         "it is empty",
		"\n# nothing\n":            "it is empty",
		"---\n":                    "",
		"null":                     "expected a mapping, found nothing",
		"policy":                   "expected a mapping, found text",
		"[]":                       "expected a mapping, found a list",
		"{}":                       `field "version" is missing`,
		"version: 1":               `field "policies" is missing`,
		"version: 1\npolicies: []": "policies: the list is empty",
		"\xff\xfev\x00":            "not UTF-8",
	} {
		p, err := Parse([]byte(doc))
		var bad *ParseError
		if !errors.As(err, &bad) || bad.Line < 1 || !strings.Contains(bad.Reason, reason) || bad.Reason == "" {
			t.Errorf("Parse(%q) = %v, want a ParseError with %q", doc, err, reason)
		}
		if len(p.Statements()) != 0 {
			t.Errorf("Parse(%q) left statements %q", doc, namesOf(p))
		}
	}
}

// refused asserts the error and that no part of the document came through.
func refused(t *testing.T, doc string, line int, reason string) {
	t.Helper()
	p, err := Parse([]byte(doc))
	var bad *ParseError
	if !errors.As(err, &bad) {
		t.Fatalf("Parse = %v, want a ParseError", err)
	}
	if bad.Line != line || !strings.Contains(bad.Reason, reason) || bad.Reason == "" {
		t.Errorf("line %d: %s\nwant line %d: %s", bad.Line, bad.Reason, line, reason)
	}
	if want := fmt.Sprintf("trust policy: line %d: %s", bad.Line, bad.Reason); bad.Error() != want {
		t.Errorf("message %q, want %q", bad.Error(), want)
	}
	if len(p.statements) != 0 {
		t.Errorf("a refused document left statements %q", namesOf(p))
	}
}
