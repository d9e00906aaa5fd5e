// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const someDigest = "sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// fullYAML has every constraint of the schema; the faults below are each one edit
// of it.
var fullYAML = `version: 1
policies:
- name: production
  scopes: ["Registry.example.com/models/**"]
  require: 2
  formats: [sigstore, notary]
  maxAge: {of: claim, is: 2160h}
  notBefore: 2026-11-01T00:00:00Z
  requireRepository: true
  annotations: {env: prod}
  builder: {repository: acme/models, ref: refs/heads/main}
  timestamps: {certificatesFile: tsa.pem, required: true, revocation: log}
  revoked: {subjects: ["` + someDigest + `"], keys: ["release@1", "` + someDigest + `"]}
  keys:
  - {name: release, key: "hashivault://transit/release", minVersion: 2, publicKeyFile: release.pub, vault: {address: "https://vault.example.com", caFile: ca.pem, namespace: ml}}
  - {name: second, publicKey: ` + quoted(testPEM('a')) + `}
  - {name: pki, certificatesFile: ca.pem, identities: ["x509.subject: C=US, ST=WA, O=Acme"], revocation: enforce}
`

// fullJSON is fullYAML, translated by a reader that knows no schema.
var fullJSON = func() string {
	var v any
	if err := yaml.Unmarshal([]byte(fullYAML), &v); err != nil {
		panic(err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return b.String()
}()

func TestParseReadsEveryConstraint(t *testing.T) {
	want := Statement{
		Name: "production", Scopes: []string{"registry.example.com/models/**"}, Require: 2,
		Formats: []signature.Format{"sigstore", "notary"}, MaxAge: MaxAge{Of: OfClaim, Is: 2160 * time.Hour},
		NotBefore: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), RequireRepository: true,
		Annotations: map[string]string{"env": "prod"},
		Builder:     map[string]string{"repository": "acme/models", "ref": "refs/heads/main"},
		Timestamps:  Timestamps{CertificatesFile: "tsa.pem", Required: true, Revocation: Log},
		Revoked: Revoked{
			Subjects: []digest.Digest{someDigest}, Keys: []digest.Digest{someDigest},
			Versions: []KeyVersion{{Name: "release", Version: 1}},
		},
		Keys: []Key{
			{Name: "release", Transit: "hashivault://transit/release", MinVersion: 2, PublicKeyFile: "release.pub",
				Vault: Vault{Address: "https://vault.example.com", CAFile: "ca.pem", Namespace: "ml"}},
			{Name: "second", PublicKey: []byte(testPEM('a'))},
			{Name: "pki", CertificatesFile: "ca.pem", Identities: []string{"x509.subject: C=US, ST=WA, O=Acme"}, Revocation: Enforce},
		},
	}
	for format, doc := range map[string]string{"yaml": fullYAML, "json": fullJSON} {
		p, err := Parse([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		got, err := p.Match("registry.example.com/models/vad")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", format, got, err, want)
		}
	}
}

func TestMatchHandsOutCopiesOfConstraints(t *testing.T) {
	p, err := Parse([]byte(fullYAML))
	if err != nil {
		t.Fatal(err)
	}
	s := p.Statements()[0]
	s.Scopes[0], s.Formats[0], s.Annotations["env"], s.Builder["ref"] = "*", "oms", "dev", "x"
	s.Revoked.Subjects[0], s.Revoked.Versions[0].Name, s.Revoked.Keys[0] = "", "x", ""
	s.Keys[2].Identities[0] = "*"
	fresh, err := Parse([]byte(fullYAML))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, fresh) {
		t.Errorf("the policy changed with what it handed out: %+v", p)
	}
}

// edit is one fault: one edit of a good document. beyond marks what no schema can
// say, because it is about the text, about two places at once or about PEM.
type edit struct {
	name, old, new string
	line           int
	reason         string
	beyond         bool
}

var constraintFaults = []edit{
	{"timestamps a path", "timestamps: {certificatesFile: tsa.pem, required: true, revocation: log}", "timestamps: tsa.pem", 12, "policies[0].timestamps: expected a mapping", false},
	{"timestamps of nobody", "certificatesFile: tsa.pem, required", "required", 12, `policies[0].timestamps: field "certificatesFile" is missing`, false},
	{"timestamps at a URL", "tsa.pem", `"https://tsa.example.com"`, 12, "policies[0].timestamps.certificatesFile: it must be a path", false},
	{"timestamps required perhaps", "required: true", "required: sometimes", 12, "policies[0].timestamps.required: expected true or false", false},
	{"timestamps with another field", "required: true", "required: true, roots: system", 12, `policies[0].timestamps: field "roots" is not known`, false},
	{"timestamps of revoked authorities", "revocation: log", "revocation: skip", 12, `policies[0].timestamps.revocation: "skip" is neither enforce nor log`, false},
	{"revocation switched off", "revocation: enforce", "revocation: off", 17, `policies[0].keys[2].revocation: "off" is neither enforce nor log`, false},
	{"revocation of no certificates", `certificatesFile: ca.pem, identities: ["x509.subject: C=US, ST=WA, O=Acme"]`, "publicKeyFile: a.pub", 17, "revocation needs certificatesFile beside it", false},
	{"require nothing", "require: 2", "require: 0", 5, "policies[0].require: 0 is not a number from 1", false},
	{"require less than nothing", "require: 2", "require: -1", 5, "-1 is not a number from 1", false},
	{"require as text", "require: 2", `require: "2"`, 5, "expected a number, found text", false},
	{"require a fraction", "require: 2", "require: 1.5", 5, "expected a number", false},
	{"require in hexadecimal", "require: 2", "require: 0x2", 5, "0x2 is not a number", true},
	{"require more than there are keys", "require: 2", "require: 4", 5, "4 signers cannot be had from 3 keys", true},
	{"require nothing at all", "require: 2", "require:", 5, "expected a number, found nothing", false},
	{"formats empty", "formats: [sigstore, notary]", "formats: []", 6, "policies[0].formats: the list is empty", false},
	{"format unknown", "formats: [sigstore, notary]", "formats: [sigstor]", 6, `policies[0].formats[0]: "sigstor" is not a signature format`, false},
	{"format by its alias", "formats: [sigstore, notary]", "formats: [jws]", 6, `"jws" is not a signature format`, false},
	{"format twice", "formats: [sigstore, notary]", "formats: [notary, notary]", 6, `policies[0].formats[1]: duplicate "notary"`, false},
	{"formats no list", "formats: [sigstore, notary]", "formats: sigstore", 6, "expected a list, found text", false},
	{"maxAge a text", "maxAge: {of: claim, is: 2160h}", "maxAge: 2160h", 7, "policies[0].maxAge: expected a mapping", false},
	{"maxAge without of", "maxAge: {of: claim, is: 2160h}", "maxAge: {is: 2160h}", 7, `policies[0].maxAge: field "of" is missing`, false},
	{"maxAge without is", "maxAge: {of: claim, is: 2160h}", "maxAge: {of: claim}", 7, `field "is" is missing`, false},
	{"maxAge of something else", "of: claim", "of: tag", 7, `policies[0].maxAge.of: "tag" is neither claim nor timestamp`, false},
	{"maxAge of nothing", "is: 2160h", "is: 0h", 7, `"0h" is not a time`, false},
	{"maxAge negative", "is: 2160h", "is: -1h", 7, `"-1h" is not a time`, false},
	{"maxAge in days", "is: 2160h", "is: 90d", 7, `"90d" is not a time`, false},
	{"maxAge a number", "is: 2160h", "is: 90", 7, "expected text, found a number", false},
	{"maxAge too long to be counted", "is: 2160h", "is: 999999999h", 7, `"999999999h" is not a time`, true},
	{"maxAge with another field", "is: 2160h}", "is: 2160h, unit: h}", 7, `policies[0].maxAge: field "unit" is not known`, false},
	{"notBefore a date", "notBefore: 2026-11-01T00:00:00Z", "notBefore: 2026-11-01", 8, "not an RFC 3339 time", false},
	{"notBefore without a zone", "notBefore: 2026-11-01T00:00:00Z", "notBefore: \"2026-11-01T00:00:00\"", 8, "not an RFC 3339 time", false},
	{"notBefore no time", "notBefore: 2026-11-01T00:00:00Z", "notBefore: yesterday", 8, "not an RFC 3339 time", false},
	{"notBefore a number", "notBefore: 2026-11-01T00:00:00Z", "notBefore: 1793491200", 8, "expected a time, found a number", false},
	{"requireRepository a text", "requireRepository: true", "requireRepository: \"true\"", 9, "expected true or false", false},
	{"requireRepository yes", "requireRepository: true", "requireRepository: yes", 9, "expected true or false", false},
	{"requireRepository in capitals", "requireRepository: true", "requireRepository: TRUE", 9, "expected true or false", true},
	{"annotations empty", "annotations: {env: prod}", "annotations: {}", 10, "policies[0].annotations: it is empty", false},
	{"annotation no text", "annotations: {env: prod}", "annotations: {env: 1}", 10, "policies[0].annotations.env: expected text, found a number", false},
	{"annotation without a value", "annotations: {env: prod}", "annotations: {env: \"\"}", 10, "policies[0].annotations.env: it is empty", false},
	{"annotation without a name", "annotations: {env: prod}", "annotations: {\"\": prod}", 10, "a name is empty", false},
	{"annotations a list", "annotations: {env: prod}", "annotations: [env]", 10, "expected a mapping, found a list", false},
	{"annotation twice", "annotations: {env: prod}", "annotations: {env: prod, ENV: dev}", 10, `duplicate field "ENV"`, true},
	{"builder empty", "builder: {repository: acme/models, ref: refs/heads/main}", "builder: {}", 11, "policies[0].builder: it is empty", false},
	{"builder nested", "ref: refs/heads/main", "ref: {a: b}", 11, "policies[0].builder.ref: expected text, found a mapping", false},
	{"revoked empty", `revoked: {subjects: ["` + someDigest + `"], keys: ["release@1", "` + someDigest + `"]}`, "revoked: {}", 13, "policies[0].revoked: it is empty", false},
	{"revoked subjects empty", `subjects: ["` + someDigest + `"]`, "subjects: []", 13, "policies[0].revoked.subjects: the list is empty", false},
	{"revoked keys empty", `keys: ["release@1", "` + someDigest + `"]`, "keys: []", 13, "policies[0].revoked.keys: the list is empty", false},
	{"revoked subject cut short", `subjects: ["` + someDigest + `"]`, `subjects: ["sha256:00"]`, 13, "is not sha256: and 64 hexadecimal digits", false},
	{"revoked subject in capitals", `subjects: ["` + someDigest + `"]`, `subjects: ["` + strings.ToUpper(someDigest) + `"]`, 13, "is not sha256:", false},
	{"revoked subject twice", `subjects: ["` + someDigest + `"]`, `subjects: ["` + someDigest + `", "` + someDigest + `"]`, 13, "duplicate", false},
	{"revoked key without a version", `"release@1"`, `"release"`, 13, "neither NAME@VERSION nor sha256:", false},
	{"revoked version zero", `"release@1"`, `"release@0"`, 13, "neither NAME@VERSION nor sha256:", false},
	{"revoked version of a stranger", `"release@1"`, `"releas@1"`, 13, `no key here is named "releas"`, true},
	{"revoked version of a public key", `"release@1"`, `"second@1"`, 13, "its versions have no numbers", true},
	{"revoked with another field", "revoked: {", "revoked: {signers: [a], ", 13, `policies[0].revoked: field "signers" is not known`, false},
	{"minVersion zero", "minVersion: 2", "minVersion: 0", 15, "policies[0].keys[0].minVersion: 0 is not a number from 1", false},
	{"minVersion without a Transit key", `key: "hashivault://transit/release", `, "", 15, "minVersion needs key beside it", false},
	{"minVersion of a pinned key", "transit/release\"", "transit/release?version=1\"", 15, "the key pins version 1 already", true},
	{"vault without a Transit key", `key: "hashivault://transit/release", minVersion: 2, `, "", 15, "vault needs key beside it", false},
	{"vault empty", `vault: {address: "https://vault.example.com", caFile: ca.pem, namespace: ml}`, "vault: {}", 15, "policies[0].keys[0].vault: it is empty", false},
	{"vault with a token", "namespace: ml}", "namespace: ml, token: x}", 15, `policies[0].keys[0].vault: field "token" is not known`, false},
	{"vault address no URL", "https://vault.example.com", "vault.example.com", 15, "policies[0].keys[0].vault.address: it must be the URL of a Vault", false},
	{"vault address with a password", "https://vault.example.com", "https://u:p@vault.example.com", 15, "it must hold no credentials", false},
	{"vault namespace with a space", "namespace: ml", "namespace: m l", 15, "not printable ASCII", false},
	{"vault caFile a URI", "caFile: ca.pem", "caFile: env://CA", 15, "it must be a path", false},
	{"certificates beside a public key", "publicKey: " + quoted(testPEM('a')), "certificatesFile: ca.pem, publicKeyFile: a.pub", 16, "publicKeyFile and certificatesFile exclude each other", false},
	{"certificates beside a Transit key", "certificatesFile: ca.pem", `certificatesFile: ca.pem, key: "hashivault://k"`, 17, "key and certificatesFile exclude each other", false},
	{"certificates of anybody", `, identities: ["x509.subject: C=US, ST=WA, O=Acme"]`, "", 17, "certificatesFile needs identities beside it", false},
	{"identities without certificates", "certificatesFile: ca.pem, ", "publicKeyFile: a.pub, ", 17, "identities needs certificatesFile beside it", false},
	{"identities empty", `["x509.subject: C=US, ST=WA, O=Acme"]`, "[]", 17, "policies[0].keys[2].identities: the list is empty", false},
	{"identity of another kind", "x509.subject: C=US", "x509.san: C=US", 17, `it must be "*" or begin with x509.subject:`, false},
	{"identity without an organisation", ", O=Acme", "", 17, "an identity needs C, ST and O", true},
	{"identity without a form", "C=US, ST=WA, O=Acme", "Acme", 17, "is not of the form C=US", true},
	{"identity of all and of one", `["x509.subject`, `["*", "x509.subject`, 17, `"*" stands alone`, true},
}

func TestParseRefusesConstraints(t *testing.T) {
	for _, row := range constraintFaults {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(fullYAML, row.old) {
				t.Fatalf("the good document has no %q", row.old)
			}
			refused(t, strings.Replace(fullYAML, row.old, row.new, 1), row.line, row.reason)
		})
	}
}

func TestParseRevoked(t *testing.T) {
	doc := `{"subjects": ["` + someDigest + `"], "keys": ["hashivault://release@3", "` + someDigest + `"]}`
	got, err := ParseRevoked([]byte(doc), "other.pub", "hashivault://release")
	want := Revoked{
		Subjects: []digest.Digest{someDigest}, Keys: []digest.Digest{someDigest},
		Versions: []KeyVersion{{Name: "hashivault://release", Version: 3}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, doc := range []string{"", "{}", "keys: []", "keys: [\"hashivault://other@1\"]", "keys: [\"other.pub@1\"]", "subject: [a]", "subjects: [sha256:00]", "keys: [hashivault://release]"} {
		if got, err := ParseRevoked([]byte(doc), "other.pub", "hashivault://release"); err == nil {
			t.Errorf("ParseRevoked(%q) = %+v", doc, got)
		}
	}
}
