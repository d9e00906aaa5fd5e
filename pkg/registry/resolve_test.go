// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

func TestResolvePinsWithOneGet(t *testing.T) {
	var requests []string
	host := memRegistry(t, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			requests = append(requests, req.Method+" "+req.URL.Path)
			next.ServeHTTP(w, req)
		})
	})
	pushed := pushImage(t, newRepo(t, host+"/team/m", registry.Options{}), "v1", "layer")
	requests = nil
	r := newRepo(t, host+"/team/m:v1", registry.Options{})
	p, err := r.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(requests) != 1 || requests[0] != "GET /v2/team/m/manifests/v1" || r.Requests() != 1 {
		t.Errorf("requests %q, counted %d; want one GET", requests, r.Requests())
	}
	if p.Subject() != pushed.Subject() || p.Name() != host+"/team/m" || p.Tag() != "v1" || !bytes.Equal(p.Manifest(), pushed.Manifest()) {
		t.Errorf("resolved %s (tag %q)", p.Reference(), p.Tag())
	}
	if want := host + "/team/m@" + p.Subject().Digest().String(); p.Reference() != want {
		t.Errorf("reference %s, want %s", p.Reference(), want)
	}
	p.Manifest()[0] = 'x'
	if p.Manifest()[0] == 'x' {
		t.Error("the pinned bytes can be changed from outside")
	}
	byDigest, err := newRepo(t, p.Reference(), registry.Options{}).Resolve(t.Context())
	if err != nil || byDigest.Tag() != "" || byDigest.Subject() != p.Subject() {
		t.Errorf("by digest: %+v, %v", byDigest, err)
	}
}

func TestResolveRefusesWhatIsNotTheDigest(t *testing.T) {
	flip := alter(get("/manifests/"), func(rec *httptest.ResponseRecorder) []byte {
		rec.Header().Del("Docker-Content-Digest")
		return bytes.Replace(rec.Body.Bytes(), []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1)
	})
	host := memRegistry(t, nil, flip)
	p := pushImage(t, newRepo(t, host+"/m", registry.Options{}), "v1", "layer")
	w := new(waits)
	r := newRepo(t, p.Reference(), registry.Options{Sleep: w.sleep})
	got, err := r.Resolve(t.Context())
	wantKind(t, err, registry.Corrupt)
	if !got.Subject().IsZero() || len(w.all) != 0 {
		t.Error("a tampered manifest was pinned or asked for again")
	}
}

func TestResolveRefusesHeaderOfOtherBytes(t *testing.T) {
	for name, header := range map[string]string{"another digest": someDigest, "no digest": "sha256:xyz"} {
		t.Run(name, func(t *testing.T) {
			host := memRegistry(t, nil, alter(get("/manifests/"), func(rec *httptest.ResponseRecorder) []byte {
				rec.Header().Set("Docker-Content-Digest", header)
				return rec.Body.Bytes()
			}))
			pushImage(t, newRepo(t, host+"/m", registry.Options{}), "v1", "layer")
			_, err := newRepo(t, host+"/m:v1", registry.Options{}).Resolve(t.Context())
			kind := registry.Corrupt
			if header != someDigest {
				kind = registry.Protocol
			}
			wantKind(t, err, kind)
		})
	}
}

func TestResolveRefusesWhatIsNoManifest(t *testing.T) {
	for name, c := range map[string]struct{ contentType, body string }{
		"HTML":             {"text/html; charset=utf-8", "<html>log in</html>"},
		"schema 1":         {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`},
		"other media type": {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`},
		"both kinds":       {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"manifests":[],"layers":[]}`},
		"truncated JSON":   {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[`},
		"duplicate key":    {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"schemaVersion":2,"layers":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				w.Header().Set("Docker-Content-Digest", digest.FromString(c.body).String())
				fmt.Fprint(w, c.body)
			}))
			p, err := newRepo(t, host+"/m:v1", registry.Options{}).Resolve(t.Context())
			wantKind(t, err, registry.Protocol)
			var me *signature.ManifestError
			if !errors.As(err, &me) || !p.Subject().IsZero() {
				t.Errorf("%v does not say what is wrong with the manifest", err)
			}
		})
	}
}

func TestResolveBoundsTheManifest(t *testing.T) {
	for _, announced := range []bool{true, false} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			if announced {
				w.Header().Set("Content-Length", fmt.Sprint(64<<20))
			}
			chunk := bytes.Repeat([]byte(" "), 1<<20)
			for range 64 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}))
		_, err := newRepo(t, host+"/m:v1", registry.Options{}).Resolve(t.Context())
		wantKind(t, err, registry.TooLarge)
	}
}

func TestResolveAsksAgainAfterATruncatedAnswer(t *testing.T) {
	var cut atomic.Int32
	host := memRegistry(t, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet && cut.Add(1) <= 2 {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				w.Header().Set("Content-Length", "500")
				fmt.Fprint(w, `{"schemaVersion":2`)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, req)
		})
	})
	pushed := pushImage(t, newRepo(t, host+"/m", registry.Options{}), "v1", "layer")
	r := newRepo(t, host+"/m:v1", registry.Options{})
	p, err := r.Resolve(t.Context())
	if err != nil || p.Subject() != pushed.Subject() || r.Retries() != 2 {
		t.Errorf("%v after %d retries", err, r.Retries())
	}
}

func TestResolveNeedsATagOrDigest(t *testing.T) {
	r := newRepo(t, "localhost:1/m", registry.Options{})
	var re *registry.ReferenceError
	if _, err := r.Resolve(t.Context()); !errors.As(err, &re) || r.Requests() != 0 {
		t.Errorf("%v after %d requests", err, r.Requests())
	}
}

func TestResolveTag(t *testing.T) {
	for name, o := range map[string]*ociserver.Options{"header": nil, "no header": {OmitDigestFromTagGetResponse: true}} {
		t.Run(name, func(t *testing.T) {
			drop := func(next http.Handler) http.Handler {
				if o == nil {
					return next
				}
				return alter(func(req *http.Request) bool { return req.Method == http.MethodHead }, func(rec *httptest.ResponseRecorder) []byte {
					rec.Header().Del("Docker-Content-Digest")
					return nil
				})(next)
			}
			r := newRepo(t, memRegistry(t, o, drop)+"/m", registry.Options{})
			p := pushImage(t, r, "v1", "layer")
			got, ok, err := r.ResolveTag(t.Context(), "v1")
			if err != nil || !ok || got != p.Subject().Digest() {
				t.Errorf("v1 is %s, %v, %v", got, ok, err)
			}
			if _, ok, err := r.ResolveTag(t.Context(), "v2"); ok || err != nil {
				t.Errorf("v2 is there: %v, %v", ok, err)
			}
		})
	}
}

func TestFetchManifestChecksDigestAndSize(t *testing.T) {
	r := newRepo(t, memRegistry(t, nil)+"/m", registry.Options{})
	p := pushImage(t, r, "", "layer")
	desc := p.Subject().Descriptor()
	got, err := r.FetchManifest(t.Context(), desc)
	if err != nil || !bytes.Equal(got, p.Manifest()) {
		t.Fatalf("%q, %v", got, err)
	}
	desc.Size++
	_, err = r.FetchManifest(t.Context(), desc)
	wantKind(t, err, registry.Corrupt)
	desc.Size = 5 << 20
	_, err = r.FetchManifest(t.Context(), desc)
	wantKind(t, err, registry.TooLarge)
	desc = p.Subject().Descriptor()
	desc.Digest = someDigest
	_, err = r.FetchManifest(t.Context(), desc)
	wantKind(t, err, registry.NotFound)
	// A digest from an untrusted list must not become another path.
	for _, evil := range []digest.Digest{"v1", "", "sha256:../../other/manifests/v1", "sha512:" + digest.Digest(strings.Repeat("a", 128))} {
		before := r.Requests()
		_, err = r.FetchManifest(t.Context(), ocispec.Descriptor{Digest: evil, Size: 1})
		wantKind(t, err, registry.Protocol)
		if r.Requests() != before {
			t.Errorf("%q was sent to the registry", evil)
		}
	}
}

func TestResolveStopsWithItsContext(t *testing.T) {
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { <-req.Context().Done() }))
	ctx, cancel := context.WithCancel(t.Context())
	r := newRepo(t, host+"/m:v1", registry.Options{})
	done := make(chan error, 1)
	go func() {
		_, err := r.Resolve(ctx)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
