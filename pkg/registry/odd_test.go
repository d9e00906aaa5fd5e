// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// sendsTo is a registry that redirects for each blob.
func sendsTo(t *testing.T, url string) *registry.Repository {
	t.Helper()
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, url, http.StatusTemporaryRedirect)
	}))
	return newRepo(t, host+"/a/b:v1", registry.Options{Retry: registry.RetryPolicy{Budget: time.Millisecond}})
}

// TestARedirectTellsNobodyWhereItCameFrom: the URL that was left may be signed, and is a
// credential then.
func TestARedirectTellsNobodyWhereItCameFrom(t *testing.T) {
	t.Parallel()
	content := []byte("a blob")
	var seen, told atomic.Int64
	watch := func(h http.HandlerFunc) *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			seen.Add(1)
			if req.Referer() != "" {
				told.Add(1)
			}
			h(w, req)
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	last := watch(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	first := watch(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, last.URL+"/blob", http.StatusTemporaryRedirect)
	})
	got, err := sendsTo(t, first.URL+"/blob?X-Amz-Signature=secret").FetchBlob(t.Context(), descOf(content), 100)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%q, %v", got, err)
	}
	if seen.Load() != 2 || told.Load() != 0 {
		t.Errorf("%d of %d hosts were told", told.Load(), seen.Load())
	}
}

// TestARefusalOfAnotherHostIsNotTheRegistrys: no credentials went there, and others would
// not help.
func TestARefusalOfAnotherHostIsNotTheRegistrys(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(store.Close)
		_, err := sendsTo(t, store.URL+"/blob").FetchBlob(t.Context(), descOf([]byte("a blob")), 100)
		if e := wantKind(t, err, registry.Unavailable); !e.Retryable() || !strings.Contains(e.Error(), strings.TrimPrefix(store.URL, "http://")) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestWhatIsCompressedOnItsWayIsNotJudged: it was not asked for, and its bytes say nothing
// about the artifact. A blob that is said to be compressed and has its size is taken as it
// is.
func TestWhatIsCompressedOnItsWayIsNotJudged(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	desc := descOf(content)
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	_, _ = z.Write(content)
	_ = z.Close()
	for name, body := range map[string][]byte{"compressed": compressed.Bytes(), "said to be": content} {
		for _, length := range []bool{true, false} {
			send := func(w http.ResponseWriter, req *http.Request) {
				if got := req.Header.Get("Accept-Encoding"); got != "identity" {
					t.Errorf("asked for the codings %q", got)
				}
				w.Header().Set("Content-Encoding", "gzip")
				if length {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				} else {
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = w.Write(body)
			}
			host := memRegistry(t, nil, answer(get("/blobs/sha256:"), send), answer(get("/manifests/"), send))
			repo := newRepo(t, host+"/a/b:v1", registry.Options{Retry: registry.RetryPolicy{Budget: time.Millisecond}})
			rc, _, err := repo.OpenBlob(t.Context(), desc, 0)
			if name == "said to be" && length {
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				continue
			}
			wantKind(t, err, registry.Unavailable)
			_, err = repo.OpenRange(t.Context(), desc, 0, desc.Size)
			wantKind(t, err, registry.Unavailable)
			_, err = repo.FetchBlob(t.Context(), desc, 1<<20)
			wantKind(t, err, registry.Unavailable)
			_, err = repo.Resolve(t.Context())
			wantKind(t, err, registry.Unavailable)
		}
	}
}

// TestARangeEndsWhereItWasSaidTo: without a length, a connection that breaks looks like the
// end. Units have no case.
func TestARangeEndsWhereItWasSaidTo(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	desc := descOf(content)
	const from, kept = 100, 1000
	var short atomic.Bool
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", fmt.Sprintf("Bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush() // chunked from here on
		if short.Load() {
			_, _ = w.Write(content[from:][:kept])
			return
		}
		_, _ = w.Write(content[from:])
	}))
	repo := newRepo(t, host+"/a/b:v1", registry.Options{})
	for range 2 {
		rc, at, err := repo.OpenBlob(t.Context(), desc, from)
		if err != nil || at != from {
			t.Fatal(at, err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if !short.Load() {
			if err != nil || !bytes.Equal(got, content[from:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			short.Store(true)
			continue
		}
		var e *registry.Error
		if !errors.As(err, &e) || !e.Retryable() || !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != kept {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

// TestALocationIsRelativeToWhatWasAsked, as any reference in an answer (RFC 9110, section
// 10.2.2).
func TestALocationIsRelativeToWhatWasAsked(t *testing.T) {
	t.Parallel()
	content := []byte("a file")
	var asked []string
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked = append(asked, req.Method+" "+req.URL.RequestURI())
		_, _ = io.Copy(io.Discard, req.Body)
		switch req.Method {
		case http.MethodPost:
			w.Header().Set("Location", "one?state=0")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPatch:
			w.Header().Set("Location", "?state=1")
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	u, err := newRepo(t, host+"/a/b:v1", registry.Options{}).BeginUpload(t.Context(), "a file")
	if err == nil {
		err = u.Send(t.Context(), 0, int64(len(content)), opener(content))
	}
	if err == nil {
		err = u.Commit(t.Context(), descOf(content).Digest)
	}
	const at = "/v2/a/b/blobs/uploads/"
	want := []string{"POST " + at, "PATCH " + at + "one?state=0", "PUT " + at + "one?digest=" + strings.ReplaceAll(descOf(content).Digest.String(), ":", "%3A") + "&state=1"}
	if err != nil || !slices.Equal(asked, want) {
		t.Errorf("%q, want %q, %v", asked, want, err)
	}
}

// TestARangeOfWhatIsSaidToBeCompressed is taken where the whole has its size: stores keep
// objects with such a label.
func TestARangeOfWhatIsSaidToBeCompressed(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	desc := descOf(content)
	var total atomic.Int64
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 100-%d/%d", len(content)-1, total.Load()))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content[100:])
	}))
	repo := newRepo(t, host+"/a/b:v1", registry.Options{Retry: registry.RetryPolicy{Budget: time.Millisecond}})
	for _, n := range []int64{desc.Size, desc.Size + 1} {
		total.Store(n)
		part, err := repo.OpenRange(t.Context(), desc, 100, desc.Size)
		rest, _, err2 := repo.OpenBlob(t.Context(), desc, 100)
		if n != desc.Size {
			wantKind(t, err, registry.Unavailable)
			wantKind(t, err2, registry.Unavailable)
			continue
		}
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for _, rc := range []io.ReadCloser{part, rest} {
			if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, content[100:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			rc.Close()
		}
	}
}

// TestARefusedRangeIsNoWordAboutTheBlob: there may be no ranges now.
func TestARefusedRangeIsNoWordAboutTheBlob(t *testing.T) {
	t.Parallel()
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	}))
	desc := descOf([]byte("a blob"))
	if _, err := newRepo(t, host+"/a/b:v1", registry.Options{}).OpenRange(t.Context(), desc, 2, 4); !errors.Is(err, registry.ErrNoRanges) {
		t.Errorf("error %v", err)
	}
}
