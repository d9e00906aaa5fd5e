// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const notationJSON = `{
  "version": "1.0",
  "trustPolicies": [
    {
      "name": "production",
      "registryScopes": ["registry.example.com/models/vad", "registry.example.com/models/asr"],
      "signatureVerification": {"level": "strict"},
      "trustStores": ["ca:acme", "ca:acme-old"],
      "trustedIdentities": ["x509.subject: C=US, ST=WA, O=Acme"]
    },
    {
      "name": "rest",
      "registryScopes": ["*"],
      "signatureVerification": {"level": "permissive", "verifyTimestamp": "always"},
      "trustStores": ["ca:other"],
      "trustedIdentities": ["*"]
    }
  ]
}
`

func TestParseNotationYieldsTheSamePolicy(t *testing.T) {
	p, err := ParseNotation([]byte(notationJSON))
	if err != nil {
		t.Fatal(err)
	}
	formats := []signature.Format{"notary", "notary-cose"}
	for repository, want := range map[string]Statement{
		"Registry.example.com/models/asr": {
			Name: "production", Scopes: []string{"registry.example.com/models/vad", "registry.example.com/models/asr"}, Require: 1, Formats: formats,
			Keys: []Key{{Name: "production", TrustStores: []string{"ca:acme", "ca:acme-old"}, Identities: []string{"x509.subject: C=US, ST=WA, O=Acme"}, Revocation: Enforce}},
		},
		"registry.example.com/models/vad/x": {
			Name: "rest", Scopes: []string{"*"}, Require: 1, Formats: formats,
			Keys: []Key{{Name: "rest", TrustStores: []string{"ca:other"}, Identities: []string{"*"}, Revocation: Log}},
		},
	} {
		if got, err := p.Match(repository); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", repository, got, err, want)
		}
	}
}

// Stores of type tsa say whose stamps count, and verifyTimestamp when one is needed:
// always where nothing is said.
func TestNotationTimestamps(t *testing.T) {
	for name, row := range map[string]struct {
		old, new string
		want     Timestamps
	}{
		"by default": {`["ca:acme", "ca:acme-old"]`, `["ca:acme", "tsa:t1", "tsa:t2"]`,
			Timestamps{TrustStores: []string{"tsa:t1", "tsa:t2"}, Required: true, Revocation: Enforce}},
		"after expiry": {`{"level": "strict"},
      "trustStores": ["ca:acme", "ca:acme-old"]`, `{"level": "strict", "verifyTimestamp": "afterCertExpiry"},
      "trustStores": ["tsa:t1", "ca:acme"]`,
			Timestamps{TrustStores: []string{"tsa:t1"}, AfterExpiry: true, Revocation: Enforce}},
		"without an authority": {`"level": "strict"`, `"level": "strict", "verifyTimestamp": "always"`, Timestamps{}},
	} {
		p, err := ParseNotation([]byte(strings.Replace(notationJSON, row.old, row.new, 1)))
		if err != nil || !strings.Contains(notationJSON, row.old) {
			t.Fatalf("%s: %v", name, err)
		}
		s := p.Statements()[0]
		if !reflect.DeepEqual(s.Timestamps, row.want) || s.Keys[0].TrustStores[0] != "ca:acme" {
			t.Errorf("%s: %+v %+v, want %+v", name, s.Timestamps, s.Keys[0].TrustStores, row.want)
		}
	}
}

func TestParseNotationRefuses(t *testing.T) {
	for _, row := range []edit{
		{"another version", `"version": "1.0"`, `"version": "1.1"`, 2, `"1.1" is not known`, false},
		{"version missing", `"version": "1.0",`, "", 1, `field "version" is missing`, false},
		{"version a number", `"version": "1.0"`, `"version": 1.0`, 2, "expected text", false},
		{"unknown field", `"version": "1.0",`, `"version": "1.0", "mode": "x",`, 2, `field "mode" is not known`, false},
		{"unknown field of a policy", `"name": "rest",`, `"name": "rest", "globalPolicy": true,`, 12, `field "globalPolicy" is not known`, false},
		{"skip", `"level": "strict"`, `"level": "skip"`, 7, `level "skip" lets pass what does not verify`, false},
		{"audit", `"level": "strict"`, `"level": "audit"`, 7, `level "audit" lets pass what does not verify`, false},
		{"a level of its own", `"level": "strict"`, `"level": "lax"`, 7, `level "lax" is not known`, false},
		{"no level", `{"level": "strict"}`, `{}`, 7, `field "level" is missing`, false},
		{"override", `"level": "strict"`, `"level": "strict", "override": {"revocation": "skip"}`, 7, "overrides are not read", false},
		{"timestamps now and then", `"always"`, `"sometimes"`, 14, `"sometimes" is neither always nor afterCertExpiry`, false},
		{"nobody but authorities of timestamps", `"ca:other"`, `"tsa:other"`, 15, "it names no store of type ca", false},
		{"a prefix", `["registry.example.com/models/vad", `, `["registry.example.com/models/**", `, 6, `a scope of notation is a repository or "*"`, false},
		{"a scope twice", `["*"]`, `["registry.example.com/models/asr"]`, 13, "duplicate scope", false},
		{"no scope", `["*"]`, `[]`, 13, "the list is empty", false},
		{"signing authority", `"ca:acme"`, `"signingAuthority:acme"`, 8, `trust stores of type "signingAuthority" are not read`, false},
		{"a store outside", `"ca:acme"`, `"ca:.."`, 8, "does not name a trust store", false},
		{"a store with a path", `"ca:acme"`, `"ca:../../x"`, 8, "is not of the form ca:NAME", false},
		{"no store", `["ca:other"]`, `[]`, 15, "the list is empty", false},
		{"identity of another kind", `"x509.subject: C=US`, `"did:C=US`, 9, "it must be", false},
		{"all and one", `["*"]` + "\n    }", `["*", "x509.subject: C=US, ST=WA, O=Acme"]` + "\n    }", 16, `"*" stands alone`, false},
		{"duplicate key", `"name": "rest",`, `"name": "rest", "name": "x",`, 12, `duplicate field "name"`, false},
		{"YAML", "{\n  \"version\"", "# a comment\n{\n  \"version\"", 1, "is JSON", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(notationJSON, row.old) {
				t.Fatalf("the good document has no %q", row.old)
			}
			p, err := ParseNotation([]byte(strings.Replace(notationJSON, row.old, row.new, 1)))
			var bad *ParseError
			if !errors.As(err, &bad) || bad.Line != row.line || !strings.Contains(bad.Reason, row.reason) {
				t.Errorf("%v, want line %d: %s", err, row.line, row.reason)
			}
			if len(p.Statements()) != 0 {
				t.Errorf("a refused document left %+v", p.Statements())
			}
		})
	}
}
