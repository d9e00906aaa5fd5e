// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// mirror is the schema for encoding/json, which reads what Parse reads another way.
type mirror struct {
	Version  int `json:"version"`
	Policies []struct {
		Name   string   `json:"name"`
		Scopes []string `json:"scopes"`
		Keys   []struct {
			Name          string `json:"name"`
			Key           string `json:"key"`
			PublicKey     string `json:"publicKey"`
			PublicKeyFile string `json:"publicKeyFile"`
		} `json:"keys"`
	} `json:"policies"`
}

func FuzzParsePolicy(f *testing.F) {
	for _, doc := range []string{
		goodYAML, goodJSON, "", "version: 1", "version: ! 1\npolicies: []", "{}", "a: &a [*a]", "%YAML 1.1\n---\na: b", "---\n---\n",
		"version: 1\npolicies:\n- &s {name: a, scopes: [r.io/x], keys: [{name: k, key: 'hashivault://k'}]}\n- *s\n",
		"version: 1\npolicies:\n- {name: a, scopes: ['*', 'r.io/**', 'r.io/*', r.io/a], keys: [{name: k, publicKeyFile: k.pub}]}\n",
		`{"version": 1, "policies": [{"name": "a\/b", "scopes": ["*"], "keys": [{"name": "\ud83d\ude00", "key": "hashivault://k"}]}]}`,
	} {
		f.Add([]byte(doc), "registry.example.com/models/a")
	}
	f.Fuzz(func(t *testing.T, data []byte, repository string) {
		p, err := Parse(data)
		if err != nil {
			var bad *ParseError
			if !errors.As(err, &bad) || bad.Line < 1 || bad.Reason == "" || len(p.statements) != 0 {
				t.Fatalf("refused with %#v and %d statements", err, len(p.statements))
			}
			return
		}
		again, err := Parse(bytes.Clone(data))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("parsed again: %v", err)
		}
		noReferences(t, data)
		if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
			agreesWithJSON(t, p, data)
		}
		matchesAlike(t, p, again, repository)
		for _, s := range p.statements {
			for _, sc := range s.scopes {
				if sc.breadth == exact {
					got := matchesAlike(t, p, again, sc.literal)
					if got.Name != s.name {
						t.Fatalf("%s is in %q, exactly, and matched %q", sc.literal, s.name, got.Name)
					}
				}
			}
		}
	})
}

func matchesAlike(t *testing.T, a, b Policy, repository string) Statement {
	t.Helper()
	first, err1 := a.Match(repository)
	second, err2 := b.Match(repository)
	if !reflect.DeepEqual(first, second) || !reflect.DeepEqual(err1, err2) {
		t.Fatalf("%q matched %+v, %v and %+v, %v", repository, first, err1, second, err2)
	}
	if (err1 == nil) != (len(first.Keys) > 0) || (err1 == nil) != slices.Contains(a.Statements(), first.Name) {
		t.Fatalf("%q matched %+v, %v", repository, first, err1)
	}
	return first
}

// noReferences reads an accepted document as YAML does that knows no schema, and
// writes it again: nothing in it may refer to anything else in it.
func noReferences(t *testing.T, data []byte) {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		t.Fatalf("accepted, but not YAML: %v", err)
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Kind == yaml.AliasNode || n.Alias != nil || n.Anchor != "" || n.Tag == "!!merge" {
			t.Fatalf("accepted with a reference: %+v", n)
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(&n)
}

func agreesWithJSON(t *testing.T, p Policy, data []byte) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var m mirror
	if err := dec.Decode(&m); err != nil {
		t.Fatalf("accepted, but not JSON: %v", err)
	}
	var want []statement
	for _, s := range m.Policies {
		st := statement{name: s.Name}
		for _, text := range s.Scopes {
			sc, reason := parseScope(text)
			if reason != "" {
				t.Fatalf("JSON has the scope %q", text)
			}
			st.scopes = append(st.scopes, sc)
		}
		for _, k := range s.Keys {
			key := Key{Name: k.Name, Transit: k.Key, PublicKeyFile: k.PublicKeyFile}
			if k.PublicKey != "" {
				key.PublicKey = []byte(k.PublicKey)
			}
			st.keys = append(st.keys, key)
		}
		want = append(want, st)
	}
	if m.Version != 1 || !reflect.DeepEqual(p.statements, want) {
		t.Fatalf("JSON says %+v, Parse says %+v", want, p.statements)
	}
}
