// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Gen writes testdata/vectors, the same bytes each time: go run ./testdata/gen
//
// Vectors are added and never edited: a verifier that passed them once has to
// pass them always.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

func main() {
	dir := flag.String("o", filepath.Join("testdata", "vectors"), "directory to write into")
	flag.Parse()
	g := newGen(*dir)
	g.sigstore()
	g.sigstoreEncoding()
	g.sigstoreAttached()
	g.classic()
	g.policies()
	g.notary()
	g.notaryCertificates()
	g.notaryHeaders()
	g.stamps()
	g.oms()
}

// classes of outcomes.
const (
	success     = "success"
	unsigned    = "unsigned"
	format      = "format"
	sig         = "signature"
	statement   = "statement"
	subjectIs   = "subject"
	expired     = "expired"
	clock       = "clock"
	certificate = "certificate"
	policyRule  = "policy"
)

const repository = "registry.example.com/models/vad"

type gen struct {
	dir                                                string
	p256, other, p384, p521, ed25519, rsa2048, rsa3072 key
	ca, strangerCA, tsa                                key
	root, stranger                                     *x509.Certificate
	model, otherModel                                  vectors.Manifest
	modelSubject, otherSubject                         signature.Subject
}

func newGen(dir string) *gen {
	g := &gen{dir: dir}
	g.makeKeys()
	g.root, g.stranger = issue(g.ca, authority("root"), g.ca, nil), issue(g.strangerCA, authority("root"), g.strangerCA, nil)
	check(os.MkdirAll(filepath.Join(dir, "keys"), 0o755))
	for _, k := range []key{g.p256, g.other, g.p384, g.p521, g.ed25519, g.rsa2048, g.rsa3072} {
		g.write(filepath.Join("keys", k.name+".pem"), k.pem())
	}
	g.write(filepath.Join("keys", "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.root.Raw}))
	g.write(filepath.Join("keys", "tsa.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.tsaRoot().Raw}))
	g.model, g.modelSubject = model("vad\n")
	g.otherModel, g.otherSubject = model("another model\n")
	return g
}

func (g *gen) write(name string, content []byte) {
	check(os.WriteFile(filepath.Join(g.dir, name), content, 0o644))
}

// model is a model of one file.
func model(content string) (vectors.Manifest, signature.Subject) {
	layer := descriptor("application/vnd.cncf.model.weight.v1.raw", []byte(content))
	layer.Annotations = map[string]string{"org.cncf.model.filepath": "model.bin"}
	config := []byte(`{"descriptor":{},"config":{},"modelfs":{"type":"layers","diffIds":["` + layer.Digest.String() + `"]}}`)
	text := encode(map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest,
		"artifactType": "application/vnd.cncf.model.manifest.v1+json",
		"config":       descriptor("application/vnd.cncf.model.config.v1+json", config),
		"layers":       []any{layer},
	})
	s := must(signature.SubjectOf(ocispec.MediaTypeImageManifest, text))
	return vectors.Manifest{Text: string(text), Blobs: []vectors.Blob{bytesOf(config), {{Text: content}}}}, s
}

// bytesOf writes text as text, and everything else in base64.
func bytesOf(content []byte) vectors.Blob {
	for _, c := range content {
		if c >= 0x80 {
			return vectors.Blob{{Base64: base64.StdEncoding.EncodeToString(content)}}
		}
	}
	return vectors.Blob{{Text: string(content)}}
}

func encode(v any) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	check(e.Encode(v))
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// option changes a vector before it is written.
type option func(*vectors.Vector)

// add writes one vector.
func (g *gen) add(name, comment, expect, reason string, options ...option) {
	v := vectors.Vector{
		Comment: comment, Expect: expect, Reason: reason, Repository: repository, Subject: g.model,
		Policy: policy(fields{}, trusts(g.p256)), Referrers: []vectors.Manifest{},
	}
	for _, o := range options {
		o(&v)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	check(e.Encode(v))
	g.write(name+".json", out.Bytes())
}

type fields = map[string]any

// policy has one statement, for the vectors' repositories.
func policy(more fields, keys ...fields) json.RawMessage {
	st := fields{"name": "vectors", "scopes": []string{"registry.example.com/models/**"}, "keys": keys}
	for k, v := range more {
		st[k] = v
	}
	return encode(fields{"version": 1, "policies": []any{st}})
}

func trusts(k key) fields {
	return fields{"name": k.name, "publicKeyFile": "keys/" + k.name + ".pem"}
}

func trustsCA() fields {
	return fields{"name": "acme", "certificatesFile": "keys/ca.pem", "identities": []string{"x509.subject: C=US, ST=WA, O=Acme"}}
}

func withPolicy(more fields, keys ...fields) option {
	return func(v *vectors.Vector) { v.Policy = policy(more, keys...) }
}

func withRule(rule string) option { return func(v *vectors.Vector) { v.Rule = rule } }

func withReferrer(m vectors.Manifest) option {
	return func(v *vectors.Vector) { v.Referrers = append(v.Referrers, m) }
}

func withClassic(m vectors.Manifest) option {
	return func(v *vectors.Vector) { v.Classic = &m }
}
