// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// artifact is a manifest under construction and the blobs it names.
type artifact struct {
	manifest ocispec.Manifest
	blobs    map[digest.Digest][]byte
}

func newArtifact() *artifact {
	a := &artifact{blobs: make(map[digest.Digest][]byte)}
	a.manifest = ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: modelspec.ArtifactTypeModelManifest,
		Config:       a.blob(modelspec.MediaTypeModelConfig, []byte("{}")),
	}
	return a
}

func (a *artifact) blob(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	a.blobs[d] = content
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// file adds a raw layer as our own Pack writes it.
func (a *artifact) file(path string, content []byte) *artifact {
	return a.layer(modelspec.MediaTypeModelWeightRaw, content, map[string]string{
		modelspec.AnnotationFilepath: path, ocispec.AnnotationTitle: path,
	})
}

func (a *artifact) layer(mediaType string, content []byte, annotations map[string]string) *artifact {
	d := a.blob(mediaType, content)
	d.Annotations = annotations
	a.manifest.Layers = append(a.manifest.Layers, d)
	return a
}

func (a *artifact) raw(t testing.TB) ([]byte, signature.Subject) {
	t.Helper()
	raw, err := json.Marshal(a.manifest)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	return raw, s
}

// decode is Decode after a real verification.
func (a *artifact) decode(t testing.TB) (verify.Verified, Manifest) {
	t.Helper()
	return a.decodeSignedAt(t, testNow)
}

func (a *artifact) decodeSignedAt(t testing.TB, at time.Time) (verify.Verified, Manifest) {
	t.Helper()
	raw, s := a.raw(t)
	v := verified(t, s, at)
	m, err := Decode(v, raw)
	if err != nil {
		t.Fatal(err)
	}
	return v, m
}

// decodeError is the error of decoding what cannot be decoded.
func (a *artifact) decodeError(t testing.TB) error {
	t.Helper()
	raw, s := a.raw(t)
	_, err := DecodeUnverified(s, raw)
	return err
}

var testNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// signed is a verify.Source with one real signature.
type signed struct{ manifest, envelope []byte }

func (s signed) Referrers(context.Context, signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		yield(ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: sigstore.MediaType,
			Digest: digest.FromBytes(s.manifest), Size: int64(len(s.manifest)),
		}, nil)
	}
}

func (s signed) FetchManifest(context.Context, ocispec.Descriptor) ([]byte, error) {
	return s.manifest, nil
}

func (s signed) FetchBlob(context.Context, ocispec.Descriptor, int64) ([]byte, error) {
	return s.envelope, nil
}

// verified signs s with a key made for this and verifies it again: there is no
// other way to a verify.Verified.
func verified(t testing.TB, s signature.Subject, at time.Time) verify.Verified {
	t.Helper()
	key := testkey.New(t, signature.Ed25519)
	draft, err := sigstore.Prepare(s, signature.Claims{SignedAt: at})
	if err != nil {
		t.Fatal(err)
	}
	atts, err := signature.Sign(t.Context(), key, draft)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := atts[0].Manifest(s)
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.New(verify.Options{Now: func() time.Time { return testNow.Add(time.Hour) }}).Verify(t.Context(), s,
		signed{manifest, atts[0].Envelope}, verify.Requirement{Name: "test", Keys: []signature.Key{key.Public(t)}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fetcher serves blobs from memory, with faults.
type fetcher struct {
	blobs map[digest.Digest][]byte
	// serve, when set, makes the reader of a blob from offset on.
	serve func(desc ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error)

	mu    sync.Mutex
	calls []fetchCall
	bytes int64
}

type fetchCall struct {
	digest digest.Digest
	offset int64
}

func (a *artifact) fetcher() *fetcher { return &fetcher{blobs: a.blobs} }

func (f *fetcher) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	f.mu.Lock()
	f.calls = append(f.calls, fetchCall{desc.Digest, offset})
	f.mu.Unlock()
	content, ok := f.blobs[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("no blob %s", desc.Digest)
	}
	if f.serve != nil {
		return f.serve(desc, content, offset)
	}
	return f.count(io.NopCloser(bytes.NewReader(content[offset:]))), nil
}

func (f *fetcher) count(rc io.ReadCloser) io.ReadCloser { return &counter{rc, f} }

type counter struct {
	io.ReadCloser
	f *fetcher
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.f.mu.Lock()
	c.f.bytes += int64(n)
	c.f.mu.Unlock()
	return n, err
}

var errCut = errors.New("connection reset by peer")

// cutAfter serves blobs whose connection breaks at the given offset.
func cutAfter(at int64) func(ocispec.Descriptor, []byte, int64) (io.ReadCloser, error) {
	return func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		end := min(max(at, offset), int64(len(content)))
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[offset:end]), errReader{errCut})), nil
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// serveAs serves other bytes in the place of every blob.
func serveAs(change func([]byte) []byte) func(ocispec.Descriptor, []byte, int64) (io.ReadCloser, error) {
	return func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		b := change(bytes.Clone(content))
		return io.NopCloser(bytes.NewReader(b[min(offset, int64(len(b))):])), nil
	}
}

// snapshot lists everything under dir with its content, for comparing.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			all[rel+"/"] = "dir"
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			all[rel] = "-> " + to
			return err
		default:
			b, err := os.ReadFile(p)
			all[rel] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// names lists what is in dir, the evidence left out.
func names(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := snapshot(t, dir)
	for name := range all {
		if name == "./" || strings.HasPrefix(name, evidenceDir+"/") {
			delete(all, name)
		}
	}
	return all
}

// wantOnly fails unless dir holds exactly the given entries.
func wantOnly(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

// random returns n bytes that are the same in every process.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b) //nolint:errcheck // never fails
	return b
}
