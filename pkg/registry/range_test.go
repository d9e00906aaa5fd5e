// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// storage stands for the object store that registries redirect to. It knows one
// blob, under signed URLs that expire after some requests, and no credentials.
type storage struct {
	content  []byte
	uses     int64
	asked    atomic.Int64
	issued   atomic.Int64
	withAuth atomic.Int64
}

func (s *storage) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.asked.Add(1)
	if req.Header.Get("Authorization") != "" {
		s.withAuth.Add(1)
	}
	if req.URL.Query().Get("signature") != fmt.Sprint((s.asked.Load()-1)/s.uses+1) {
		http.Error(w, "expired", http.StatusForbidden)
		return
	}
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(s.content))
}

func TestOpenRangeResolvesARedirectOnceAndRenewsIt(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	store := &storage{content: content, uses: 4}
	elsewhere := httptest.NewServer(store)
	t.Cleanup(elsewhere.Close)
	redirect := answer(get("/blobs/sha256:"), func(w http.ResponseWriter, req *http.Request) {
		n := store.asked.Load()/store.uses + 1
		store.issued.Add(1)
		// localhost is another host than 127.0.0.1.
		to := strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
		http.Redirect(w, req, fmt.Sprintf("%s/bucket/blob?signature=%d", to, n), http.StatusTemporaryRedirect)
	})
	host := memRegistry(t, nil, redirect)
	repo := newRepo(t, host+"/a/b:v1", registry.Options{Credentials: registry.CredentialOptions{Username: "user", Password: "password"}})
	desc := descOf(content)
	const step = 1 << 12
	for at := int64(0); at < desc.Size; at += step {
		body, err := repo.OpenRange(t.Context(), desc, at, at+step)
		if err != nil {
			t.Fatalf("from %d: %v", at, err)
		}
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || !bytes.Equal(got, content[at:at+step]) {
			t.Fatalf("from %d: %d bytes, %v", at, len(got), err)
		}
	}
	ranges := int64(len(content) / step)
	if issued := store.issued.Load(); issued > ranges/store.uses+2 || issued < 2 {
		t.Errorf("the registry was asked %d times for %d ranges, with URLs that hold for %d", issued, ranges, store.uses)
	}
	if n := store.withAuth.Load(); n > 0 {
		t.Errorf("credentials went to another host %d times", n)
	}
}

// TestOpenRangeLeavesAHostThatAnswersWithAPage: a URL that has expired may lead to a log-in,
// with 200. The registry is asked for another one, and the blob still has ranges.
func TestOpenRangeLeavesAHostThatAnswersWithAPage(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 256)
	desc := descOf(content)
	var expired atomic.Bool
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if expired.CompareAndSwap(true, false) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>please log in</html>"))
			return
		}
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(store.Close)
	var asked atomic.Int64
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		http.Redirect(w, req, store.URL+"/blob", http.StatusTemporaryRedirect)
	}))
	repo := newRepo(t, host+"/a/b:v1", registry.Options{})
	open := func() error {
		body, err := repo.OpenRange(t.Context(), desc, 16, 32)
		if err == nil {
			body.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	expired.Store(true)
	if e := wantKind(t, open(), registry.Unavailable); !e.Retryable() || !strings.Contains(e.Error(), "a web page") {
		t.Errorf("error %v", e)
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the registry was asked %d times, want once before the page and once after", n)
	}
	// So is a small blob's page no word about it.
	expired.Store(true)
	_, err := repo.FetchBlob(t.Context(), desc, desc.Size)
	wantKind(t, err, registry.Unavailable)
}

func TestOpenRangeSaysThatThereAreNone(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 1<<16)
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, req *http.Request) {
		w.Write(content)
	}))
	repo := newRepo(t, host+"/a/b:v1", registry.Options{})
	desc := descOf(content)
	if _, err := repo.OpenRange(t.Context(), desc, 16, 32); !errors.Is(err, registry.ErrNoRanges) {
		t.Errorf("error %v", err)
	}
	body, err := repo.OpenRange(t.Context(), desc, 0, desc.Size)
	if err != nil {
		t.Fatalf("the range that is the whole blob: %v", err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestOpenRangeRefusesAnotherRange(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 1<<12)
	desc := descOf(content)
	for header, kind := range map[string]registry.Kind{
		"bytes 17-31/4096":  registry.Protocol,
		"bytes 16-63/4096":  registry.Protocol,
		"bytes 16-31/65536": registry.Corrupt,
		"bytes 16-15/4096":  registry.Protocol,
		"16-31":             registry.Protocol,
		"":                  registry.Protocol,
	} {
		host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[16:32])
		}))
		_, err := newRepo(t, host+"/a/b:v1", registry.Options{}).OpenRange(t.Context(), desc, 16, 32)
		if e := wantKind(t, err, kind); e.Retryable() {
			t.Errorf("%q is retryable: %v", header, err)
		}
	}
	for _, r := range [][2]int64{{-1, 5}, {5, 5}, {6, 5}, {0, desc.Size + 1}} {
		if _, err := newRepo(t, "127.0.0.1:1/a/b:v1", registry.Options{}).OpenRange(t.Context(), desc, r[0], r[1]); err == nil {
			t.Errorf("the range %v was asked for", r)
		}
	}
}

// TestABusyHostElsewhereIsAwaited: the registry would only send us there again.
func TestABusyHostElsewhereIsAwaited(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 1<<12)
	var there, here atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if there.Add(1) == 2 {
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(elsewhere.Close)
	host := memRegistry(t, nil, answer(get("/blobs/sha256:"), func(w http.ResponseWriter, req *http.Request) {
		here.Add(1)
		http.Redirect(w, req, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect)
	}))
	repo := newRepo(t, host+"/a/b:v1", registry.Options{})
	for n := range 3 {
		body, err := repo.OpenRange(t.Context(), descOf(content), 0, 10)
		if n == 1 {
			if e := wantKind(t, err, registry.Unavailable); e.RetryAfter() != 5*time.Second || here.Load() != 1 {
				t.Errorf("to be asked again after %v; the registry was asked %d times", e.RetryAfter(), here.Load())
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
	}
	if here.Load() != 1 || there.Load() != 3 {
		t.Errorf("the registry was asked %d times, the other host %d times", here.Load(), there.Load())
	}
}
