// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// wrap stands between the client and a registry.
type wrap func(next http.Handler) http.Handler

// memRegistry serves an in-process registry, behind wraps, and returns its host.
func memRegistry(t testing.TB, o *ociserver.Options, wraps ...wrap) string {
	t.Helper()
	return serve(t, ociserver.New(ocimem.New(), o), wraps...)
}

func serve(t testing.TB, h http.Handler, wraps ...wrap) string {
	t.Helper()
	for _, w := range wraps {
		h = w(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// waits records what a client would have slept.
type waits struct {
	mu  sync.Mutex
	all []time.Duration
}

func (w *waits) sleep(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, d)
	return ctx.Err()
}

func (w *waits) total() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum time.Duration
	for _, d := range w.all {
		sum += d
	}
	return sum
}

// newRepo returns a repository of a client that does not really wait.
func newRepo(t testing.TB, ref string, o registry.Options) *registry.Repository {
	t.Helper()
	return openRepo(t, ref, o, (*registry.Client).Repository)
}

func openRepo(t testing.TB, ref string, o registry.Options, open func(*registry.Client, registry.Reference) (*registry.Repository, error)) *registry.Repository {
	t.Helper()
	if o.Sleep == nil {
		o.Sleep = new(waits).sleep
	}
	c, err := registry.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := registry.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	r, err := open(c, parsed)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func descOf(content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func opener(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}

func pushBlob(t testing.TB, r *registry.Repository, content []byte) ocispec.Descriptor {
	t.Helper()
	desc := descOf(content)
	if _, err := r.PushBlob(t.Context(), desc, opener(content)); err != nil {
		t.Fatal(err)
	}
	return desc
}

func image(config, layer ocispec.Descriptor, subject *ocispec.Descriptor, annotations map[string]string) []byte {
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.test",
		Config:       config,
		Layers:       []ocispec.Descriptor{layer},
		Subject:      subject,
		Annotations:  annotations,
	})
	if err != nil {
		panic(err)
	}
	return raw
}

// pushImage pushes a small artifact, tagged when tag is not "".
func pushImage(t testing.TB, r *registry.Repository, tag, layer string) registry.Pinned {
	t.Helper()
	manifest := image(pushBlob(t, r, []byte("{}")), pushBlob(t, r, []byte(layer)), nil, nil)
	p, err := r.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		t.Fatal(err)
	}
	if tag != "" {
		if err := r.TagManifest(t.Context(), p, tag); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// referrer makes a manifest about subject whose blobs pushImage has pushed.
func referrer(subject signature.Subject, layer, name string) []byte {
	d := subject.Descriptor()
	return image(descOf([]byte("{}")), descOf([]byte(layer)), &d, map[string]string{"name": name})
}

func listed(t testing.TB, r *registry.Repository, s signature.Subject) []ocispec.Descriptor {
	t.Helper()
	var all []ocispec.Descriptor
	for desc, err := range r.Referrers(t.Context(), s) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, desc)
	}
	return all
}

// wantKind asserts the typed error.
func wantKind(t testing.TB, err error, kind registry.Kind) *registry.Error {
	t.Helper()
	var e *registry.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v (%T), want a *registry.Error of kind %q", err, err, kind)
	}
	if e.Kind != kind {
		t.Fatalf("got kind %q (%v), want %q", e.Kind, err, kind)
	}
	return e
}

// answer replaces the answers for which match is true.
func answer(match func(*http.Request) bool, with http.HandlerFunc) wrap {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if match(req) {
				with(w, req)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

func get(part string) func(*http.Request) bool {
	return func(req *http.Request) bool {
		return req.Method == http.MethodGet && strings.Contains(req.URL.Path, part)
	}
}

// alter changes recorded answers on their way out.
func alter(match func(*http.Request) bool, change func(rec *httptest.ResponseRecorder) []byte) wrap {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if !match(req) {
				next.ServeHTTP(w, req)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, req)
			body := change(rec)
			rec.Header().Del("Content-Length")
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			w.Write(body)
		})
	}
}
