// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package oms writes and reads OpenSSF Model Signing v1.0: an in-toto statement
// over the SHA-256 of every file of a model, in a Sigstore bundle, as model_signing
// makes and verifies it (method "files"). Only digests are signed, never a file's
// bytes, so that no file can pass for another protocol's message.
//
// As a referrer it says for which manifest the files were signed, in a field that
// other verifiers ignore; without that field it is no signature of a manifest.
package oms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
)

const (
	// PredicateType of the statement.
	PredicateType = "https://model_signing/signature/v1.0"

	statementType = "https://in-toto.io/Statement/v1"
	methodFiles   = "files"
	hashSHA256    = "sha256"
	// maxFiles bounds one statement that is read.
	maxFiles = 20000
	// maxPayload bounds one that is made, in bytes: in base64 it must fit into an
	// envelope, beside the signature and the rest. Vault's bound on what it signs
	// is hardly above it. 5,000 files fit with names of 45 bytes each.
	maxPayload = (signature.MaxEnvelopeSize - 4<<10) / 4 * 3
)

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// predicate has two fields of ours, which model_signing passes over.
type predicate struct {
	Serialization serialization       `json:"serialization"`
	Resources     []resource          `json:"resources"`
	Claims        map[string]string   `json:"dev.aegis-oci.claims,omitempty"`
	Manifest      *ocispec.Descriptor `json:"dev.aegis-oci.manifest,omitempty"`
}

type serialization struct {
	Method        string   `json:"method"`
	HashType      string   `json:"hash_type"`
	AllowSymlinks bool     `json:"allow_symlinks"`
	IgnorePaths   []string `json:"ignore_paths"`
}

type resource struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

// Model is what is signed.
type Model struct {
	// Name is the model's, such as its directory's.
	Name string
	// Files in any order. A model that is one file has one, of path ".".
	Files []signature.File
	// Ignored are the paths that were left out, relative to the model.
	Ignored []string
	// Manifest, when it is not zero, is the manifest that names these files.
	Manifest signature.Subject
}

// Draft is a statement that waits for its signature.
type Draft struct {
	payload []byte
	created time.Time
}

var _ signature.Draft = (*Draft)(nil)

// Prepare makes the statement. Errors are *ModelError and *signature.ClaimError.
func Prepare(m Model, c signature.Claims) (*Draft, error) {
	flat, err := c.Flat(signature.OMS, true)
	if err != nil {
		return nil, err
	}
	files := slices.Clone(m.Files)
	slices.SortFunc(files, func(a, b signature.File) int { return compareParts(a.Path, b.Path) })
	resources := make([]resource, len(files))
	for i, f := range files {
		resources[i] = resource{Name: f.Path, Algorithm: hashSHA256, Digest: f.Digest.Encoded()}
	}
	ignored := slices.Clone(m.Ignored)
	slices.Sort(ignored)
	st := statement{
		Type:          statementType,
		PredicateType: PredicateType,
		Predicate: predicate{
			Serialization: serialization{Method: methodFiles, HashType: hashSHA256, IgnorePaths: append([]string{}, ignored...)},
			Resources:     resources,
			Claims:        flat,
		},
	}
	if !m.Manifest.IsZero() {
		desc := m.Manifest.Descriptor()
		st.Predicate.Manifest = &desc
	}
	root, err := rootOf(resources)
	if err != nil {
		return nil, &ModelError{err.Error()}
	}
	st.Subject = []subject{{Name: m.Name, Digest: map[string]string{hashSHA256: root}}}
	payload, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("model signing: encode statement: %w", err)
	}
	if len(payload) > maxPayload {
		return nil, &ModelError{fmt.Sprintf("the list of %d files has %d bytes, and at most %d fit into a signature", len(files), len(payload), maxPayload)}
	}
	return &Draft{payload: payload, created: c.SignedAt}, nil
}

// ModelError says why files cannot be signed.
type ModelError struct{ Reason string }

func (e *ModelError) Error() string { return "model signing: " + e.Reason }

// compareParts orders paths as model_signing does, by their components: "a/x"
// comes before "a-b/x", which as text comes first.
func compareParts(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// rootOf is the digest of the files' digests, one after the other in the order
// of the list, and checks the list on the way.
func rootOf(resources []resource) (string, error) {
	if len(resources) == 0 || len(resources) > maxFiles {
		return "", fmt.Errorf("%d files, not between 1 and %d", len(resources), maxFiles)
	}
	sum := sha256.New()
	seen := make(map[string]bool, len(resources))
	for _, r := range resources {
		raw, err := hex.DecodeString(r.Digest)
		switch {
		case r.Algorithm != hashSHA256:
			return "", fmt.Errorf("%q is hashed with %q", r.Name, r.Algorithm)
		case err != nil || len(raw) != sha256.Size || strings.ToLower(r.Digest) != r.Digest:
			return "", fmt.Errorf("%q has no SHA-256 digest", r.Name)
		case !local(r.Name) && (r.Name != "." || len(resources) != 1):
			return "", fmt.Errorf("%q is no path inside a model", r.Name)
		case seen[r.Name]:
			return "", fmt.Errorf("%q is there twice", r.Name)
		}
		seen[r.Name] = true
		sum.Write(raw)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// local reports a clean relative path with slashes that stays inside.
func local(p string) bool {
	return p != "" && p != "." && p[0] != '/' && path.Clean(p) == p && p != ".." && !strings.HasPrefix(p, "../") && !strings.Contains(p, "\x00")
}

// Message returns the DSSE pre-authentication encoding of the statement.
func (d *Draft) Message() signature.Message {
	return signature.Message{Format: signature.OMS, Bytes: sigstore.PAE(d.payload)}
}

// Finish makes the bundle. The hint is the SHA-256 of the key's PEM, which
// model_signing compares.
func (d *Draft) Finish(_ context.Context, p signature.Primitive, id signature.KeyID) (signature.Attachment, error) {
	hint := ""
	if id.SPKI != nil {
		sum := sha256.Sum256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: id.SPKI}))
		hint = hex.EncodeToString(sum[:])
	}
	bundle, err := sigstore.Bundle(d.payload, p.Signature, hint)
	if err != nil {
		return signature.Attachment{}, err
	}
	a := signature.Attachment{
		Format:       signature.OMS,
		ArtifactType: sigstore.MediaType,
		MediaType:    sigstore.MediaType,
		Envelope:     bundle,
		Annotations: map[string]string{
			sigstore.AnnotationContent:       "dsse-envelope",
			sigstore.AnnotationPredicateType: PredicateType,
		},
		Primitive: p,
	}
	if !d.created.IsZero() {
		a.Annotations[ocispec.AnnotationCreated] = d.created.UTC().Format(time.RFC3339)
	}
	p.Hint(a.Annotations)
	return a, nil
}

// Parse reads a bundle as a signature of a manifest.
func Parse(data []byte) (*signature.Envelope, error) { return parse(data, true) }

// ParseFiles reads a bundle as a signature of files; a manifest need not be named.
func ParseFiles(data []byte) (*signature.Envelope, error) { return parse(data, false) }

func parse(data []byte, manifest bool) (*signature.Envelope, error) {
	c, err := sigstore.Take(data)
	if err != nil {
		return nil, err
	}
	decode := func() (signature.Statement, error) {
		st, err := decodeStatement(c.Payload)
		if err == nil && manifest && st.Digest == "" {
			return signature.Statement{}, errors.New("it signs files and names no manifest")
		}
		return st, err
	}
	return c.Envelope(signature.OMS, decode), nil
}

// decodeStatement reads a payload that a key has signed.
func decodeStatement(payload []byte) (signature.Statement, error) {
	var st statement
	if err := strictjson.Unmarshal(payload, &st); err != nil {
		return signature.Statement{}, fmt.Errorf("statement: %v", err)
	}
	s := st.Predicate.Serialization
	switch {
	case st.Type != statementType:
		return signature.Statement{}, fmt.Errorf("statement type is %q, not %q", st.Type, statementType)
	case st.PredicateType != PredicateType:
		return signature.Statement{}, fmt.Errorf("predicate type is %q, not %q", st.PredicateType, PredicateType)
	case len(st.Subject) != 1:
		return signature.Statement{}, fmt.Errorf("it names %d subjects, not one", len(st.Subject))
	case s.Method != methodFiles || s.HashType != hashSHA256:
		return signature.Statement{}, fmt.Errorf("files are serialized by %q with %q, not by %q with %q", s.Method, s.HashType, methodFiles, hashSHA256)
	case s.AllowSymlinks:
		return signature.Statement{}, errors.New("it allows symbolic links")
	}
	root, err := rootOf(st.Predicate.Resources)
	if err != nil {
		return signature.Statement{}, err
	}
	if st.Subject[0].Digest[hashSHA256] != root {
		return signature.Statement{}, errors.New("its subject is not the digest of its files")
	}
	claims, err := signature.ClaimsOf(st.Predicate.Claims)
	if err != nil {
		return signature.Statement{}, err
	}
	out := signature.Statement{Claims: claims, Ignored: s.IgnorePaths}
	for _, r := range st.Predicate.Resources {
		out.Files = append(out.Files, signature.File{Path: r.Name, Digest: digest.NewDigestFromEncoded(digest.SHA256, r.Digest)})
	}
	if m := st.Predicate.Manifest; m != nil {
		if m.Digest.Validate() != nil || m.Digest.Algorithm() != digest.SHA256 || m.MediaType == "" || m.Size <= 0 {
			return signature.Statement{}, errors.New("the manifest that it names has no sha256 digest, media type or size")
		}
		out.Digest, out.MediaType, out.Size = m.Digest, m.MediaType, m.Size
	}
	return out, nil
}
