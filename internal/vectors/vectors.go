// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package vectors reads testdata/vectors for tests: each file is a signed model
// with one fault, and what a verifier must say about it. Its README has the form.
package vectors

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

// Vector is one file.
type Vector struct {
	// Name is the file's, without .json.
	Name    string `json:"-"`
	Comment string `json:"comment"`
	// Expect is the class of the outcome, Rule the rule of a policy that refuses,
	// and Reason words that aegis-oci's own message holds.
	Expect string `json:"expect"`
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Repository is the one that is asked for, with its registry.
	Repository string `json:"repository"`
	// Policy is an aegis-oci trust policy; its paths are relative to the vectors.
	Policy  json.RawMessage `json:"policy"`
	Subject Manifest        `json:"subject"`
	// Referrers are what a registry lists for the subject.
	Referrers []Manifest `json:"referrers"`
	// Classic is the manifest under cosign's tag, sha256-HEX.sig.
	Classic *Manifest `json:"classic,omitempty"`
}

// Manifest is the exact text of a manifest and the blobs that it names.
type Manifest struct {
	Text  string `json:"text"`
	Blobs []Blob `json:"blobs,omitempty"`
	// Listed, on a referrer, is its artifact type in the listing where that lies.
	Listed string `json:"listed,omitempty"`
}

// Blob is a concatenation.
type Blob []Part

// Part is text or base64 of bytes, repeated.
type Part struct {
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty"`
	Times  int    `json:"times,omitempty"` // once where it is missing
}

// Bytes is the blob's content.
func (b Blob) Bytes() ([]byte, error) {
	var out bytes.Buffer
	for _, p := range b {
		raw, err := base64.StdEncoding.DecodeString(p.Base64)
		if err != nil {
			return nil, err
		}
		out.Write(bytes.Repeat(append([]byte(p.Text), raw...), max(1, p.Times)))
	}
	return out.Bytes(), nil
}

// Dir is testdata/vectors of this module.
func Dir(t testing.TB) string {
	t.Helper()
	_, self, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(self) {
		t.Fatal("the sources of this test are not known; run it without -trimpath")
	}
	return filepath.Join(filepath.Dir(self), "..", "..", "testdata", "vectors")
}

// Load reads every vector of dir, in the order of their names.
func Load(t testing.TB, dir string) []Vector {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no vectors in %s: %v", dir, err)
	}
	sort.Strings(paths)
	all := make([]Vector, 0, len(paths))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v := Vector{Name: strings.TrimSuffix(filepath.Base(path), ".json")}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, v)
	}
	return all
}

// Envelopes are the content of every signature in v, for seeds.
func (v Vector) Envelopes(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, m := range v.manifests()[1:] {
		for _, b := range m.Blobs {
			raw, err := b.Bytes()
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			out = append(out, raw)
		}
	}
	return out
}

// manifests are all of v, the subject first.
func (v Vector) manifests() []Manifest {
	all := append([]Manifest{v.Subject}, v.Referrers...)
	if v.Classic != nil {
		all = append(all, *v.Classic)
	}
	return all
}

// Path is the repository without its registry.
func (v Vector) Path() string {
	_, path, _ := strings.Cut(v.Repository, "/")
	return path
}

// SubjectOf is what is verified.
func (v Vector) SubjectOf(t testing.TB) signature.Subject {
	t.Helper()
	s, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, []byte(v.Subject.Text))
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return s
}

// descriptor is how a registry lists m.
func (m Manifest) descriptor() ocispec.Descriptor {
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(m.Text), Size: int64(len(m.Text)),
	}
	var parsed ocispec.Manifest
	if err := json.Unmarshal([]byte(m.Text), &parsed); err == nil {
		d.ArtifactType, d.Annotations = parsed.ArtifactType, parsed.Annotations
	}
	if m.Listed != "" {
		d.ArtifactType, d.Annotations = m.Listed, nil
	}
	return d
}

// Source is a verify.Source that holds v alone, in memory.
type Source struct {
	listing []ocispec.Descriptor
	content map[digest.Digest][]byte
}

// Source holds what the registry of v holds.
func (v Vector) Source(t testing.TB) *Source {
	t.Helper()
	s := &Source{content: make(map[digest.Digest][]byte)}
	for _, m := range v.manifests() {
		s.content[digest.FromString(m.Text)] = []byte(m.Text)
		for _, b := range m.Blobs {
			raw, err := b.Bytes()
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			s.content[digest.FromBytes(raw)] = raw
		}
	}
	for _, m := range v.Referrers {
		s.listing = append(s.listing, m.descriptor())
	}
	if v.Classic != nil {
		d := v.Classic.descriptor()
		d.ArtifactType = simplesigning.MediaType
		s.listing = append(s.listing, d)
	}
	return s
}

// Content is every manifest and blob by its digest.
func (s *Source) Content() map[digest.Digest][]byte { return s.content }

// Referrers yields the listing.
func (s *Source) Referrers(context.Context, signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for _, d := range s.listing {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// FetchManifest returns content by its digest.
func (s *Source) FetchManifest(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return s.get(d, int64(signature.MaxManifestSize))
}

// FetchBlob returns content by its digest.
func (s *Source) FetchBlob(_ context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	return s.get(d, limit)
}

func (s *Source) get(d ocispec.Descriptor, limit int64) ([]byte, error) {
	raw, ok := s.content[d.Digest]
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", d.Digest, fs.ErrNotExist)
	case int64(len(raw)) != d.Size || d.Size > limit:
		return nil, fmt.Errorf("%s has %d bytes, the descriptor says %d, the limit is %d", d.Digest, len(raw), d.Size, limit)
	}
	return raw, nil
}
