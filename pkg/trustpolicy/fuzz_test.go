// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// mirror is the schema for encoding/json, which reads what Parse reads another way.
type mirror struct {
	Version  int `json:"version"`
	Policies []struct {
		Name       string   `json:"name"`
		Scopes     []string `json:"scopes"`
		Require    int      `json:"require"`
		Formats    []string `json:"formats"`
		Timestamps struct {
			CertificatesFile string     `json:"certificatesFile"`
			Required         bool       `json:"required"`
			Revocation       Revocation `json:"revocation"`
		} `json:"timestamps"`
		MaxAge struct {
			Of string `json:"of"`
			Is string `json:"is"`
		} `json:"maxAge"`
		NotBefore         time.Time         `json:"notBefore"`
		RequireRepository bool              `json:"requireRepository"`
		Annotations       map[string]string `json:"annotations"`
		Builder           map[string]string `json:"builder"`
		Revoked           struct {
			Subjects []string `json:"subjects"`
			Keys     []string `json:"keys"`
		} `json:"revoked"`
		Keys []struct {
			Name             string     `json:"name"`
			Key              string     `json:"key"`
			MinVersion       int        `json:"minVersion"`
			PublicKey        string     `json:"publicKey"`
			PublicKeyFile    string     `json:"publicKeyFile"`
			CertificatesFile string     `json:"certificatesFile"`
			Identities       []string   `json:"identities"`
			Revocation       Revocation `json:"revocation"`
			Vault            struct {
				Address   string `json:"address"`
				CAFile    string `json:"caFile"`
				Namespace string `json:"namespace"`
			} `json:"vault"`
		} `json:"keys"`
	} `json:"policies"`
}

func FuzzParsePolicy(f *testing.F) {
	for _, doc := range []string{
		goodYAML, goodJSON, fullYAML, fullJSON, "", "version: 1", "version: ! 1\npolicies: []", "{}", "a: &a [*a]", "%YAML 1.1\n---\na: b", "---\n---\n",
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
					if got.Name != s.Name {
						t.Fatalf("%s is in %q, exactly, and matched %q", sc.literal, s.Name, got.Name)
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
	if (err1 == nil) != (len(first.Keys) > 0) || (err1 == nil) != slices.Contains(namesOf(a), first.Name) {
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
		st := statement{Statement: Statement{
			Name: s.Name, Require: max(s.Require, 1), NotBefore: s.NotBefore, RequireRepository: s.RequireRepository,
			Annotations: s.Annotations, Builder: s.Builder, MaxAge: MaxAge{Of: s.MaxAge.Of},
			Timestamps: Timestamps{CertificatesFile: s.Timestamps.CertificatesFile, Required: s.Timestamps.Required, Revocation: s.Timestamps.Revocation},
		}}
		st.MaxAge.Is, _ = time.ParseDuration(s.MaxAge.Is)
		if !s.NotBefore.IsZero() {
			st.NotBefore = s.NotBefore.UTC()
		}
		for _, text := range s.Scopes {
			sc, reason := parseScope(text)
			if reason != "" {
				t.Fatalf("JSON has the scope %q", text)
			}
			st.scopes = append(st.scopes, sc)
			st.Scopes = append(st.Scopes, sc.String())
		}
		for _, f := range s.Formats {
			st.Formats = append(st.Formats, signature.Format(f))
		}
		for _, d := range s.Revoked.Subjects {
			st.Revoked.Subjects = append(st.Revoked.Subjects, digest.Digest(d))
		}
		for _, k := range s.Revoked.Keys {
			if strings.HasPrefix(k, "sha256:") && !strings.Contains(k, "@") {
				st.Revoked.Keys = append(st.Revoked.Keys, digest.Digest(k))
				continue
			}
			at := strings.LastIndex(k, "@")
			version, err := strconv.Atoi(k[at+1:])
			if err != nil {
				t.Fatalf("JSON revokes %q", k)
			}
			st.Revoked.Versions = append(st.Revoked.Versions, KeyVersion{Name: k[:at], Version: version})
		}
		for _, k := range s.Keys {
			key := Key{
				Name: k.Name, Transit: k.Key, MinVersion: k.MinVersion, PublicKeyFile: k.PublicKeyFile, CertificatesFile: k.CertificatesFile,
				Identities: k.Identities, Revocation: k.Revocation, Vault: Vault{Address: k.Vault.Address, CAFile: k.Vault.CAFile, Namespace: k.Vault.Namespace},
			}
			if k.PublicKey != "" {
				key.PublicKey = []byte(k.PublicKey)
			}
			st.Keys = append(st.Keys, key)
		}
		want = append(want, st)
	}
	if m.Version != 1 || !reflect.DeepEqual(p.statements, want) {
		t.Fatalf("JSON says %+v, Parse says %+v", want, p.statements)
	}
}

func FuzzParseNotationPolicy(f *testing.F) {
	f.Add([]byte(notationJSON), "registry.example.com/models/a")
	f.Add([]byte(`{"version":"1.0","trustPolicies":[{"name":"a","registryScopes":["*"],"signatureVerification":{"level":"skip"}}]}`), "r.io/x")
	f.Fuzz(func(t *testing.T, data []byte, repository string) {
		p, err := ParseNotation(data)
		if err != nil {
			var bad *ParseError
			if !errors.As(err, &bad) || bad.Line < 1 || bad.Reason == "" || len(p.statements) != 0 {
				t.Fatalf("refused with %#v and %d statements", err, len(p.statements))
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("accepted, but not JSON")
		}
		for _, s := range p.Statements() {
			if len(s.Keys) != 1 || len(s.Keys[0].TrustStores) == 0 || len(s.Keys[0].Identities) == 0 || s.Require != 1 || len(s.Formats) != 2 {
				t.Fatalf("accepted %+v", s)
			}
		}
		matchesAlike(t, p, p, repository)
	})
}

func FuzzParseRevoked(f *testing.F) {
	f.Add([]byte("keys: [\"release@1\"]\nsubjects: [\"sha256:" + strings.Repeat("a", 64) + "\"]\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRevoked(data, "hashivault://release", "release.pub")
		var bad *ParseError
		if err != nil && (!errors.As(err, &bad) || bad.Line < 1) {
			t.Fatalf("refused with %#v", err)
		}
		if err == nil && len(r.Subjects)+len(r.Keys)+len(r.Versions) == 0 {
			t.Fatal("accepted, and revokes nothing")
		}
	})
}
