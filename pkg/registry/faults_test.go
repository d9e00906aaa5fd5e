// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// behind is a repository of the real registry, reached through a proxy, with a
// blob and a tagged manifest in it.
func behind(t *testing.T, o registry.Options) (*registry.Repository, *servertest.Proxy, ocispec.Descriptor) {
	t.Helper()
	proxy := servertest.FaultProxy(t, servertest.SharedStack(t).Registry)
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	r := newRepo(t, proxy.Addr+"/"+name+":v1", o)
	pushImage(t, r, "v1", "a layer of some bytes")
	proxy.Reset()
	return r, proxy, descOf([]byte("a layer of some bytes"))
}

func TestFetchBlobRefusesTamperedBytes(t *testing.T) {
	for name, replace := range map[string]func([]byte) []byte{
		"a flipped byte": func(b []byte) []byte { b = bytes.Clone(b); b[0] ^= 1; return b },
		"shorter":        func(b []byte) []byte { return b[:len(b)-1] },
		"longer":         func(b []byte) []byte { return append(bytes.Clone(b), 'x') },
		"empty":          func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r, proxy, desc := behind(t, registry.Options{})
			proxy.Fail(servertest.Fault{Method: http.MethodGet, Path: "/blobs/", Replace: replace})
			got, err := r.FetchBlob(t.Context(), desc, 1000)
			wantKind(t, err, registry.Corrupt)
			if got != nil || r.Retries() != 0 {
				t.Errorf("%d bytes came, after %d retries", len(got), r.Retries())
			}
		})
	}
	r, proxy, desc := behind(t, registry.Options{})
	_, err := r.FetchBlob(t.Context(), desc, desc.Size-1)
	if wantKind(t, err, registry.TooLarge); len(proxy.Requests()) > 0 {
		t.Error("a blob over the limit was asked for")
	}
}

// A web server, a captive portal or a log-in page says nothing about the artifact:
// not that its bytes are wrong, nor that a blob is there or a log-in was right.
func TestAWebPageIsNoAnswer(t *testing.T) {
	page := "<!doctype html><html>Welcome</html>"
	r, proxy, desc := behind(t, registry.Options{})
	proxy.Fail(servertest.Fault{
		Status: http.StatusOK, Body: page,
		Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
	})
	ref := strings.TrimPrefix(proxy.URL, "http://")
	client, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func() error{
		"resolve":    func() error { _, err := r.Resolve(t.Context()); return err },
		"look up":    func() error { _, _, err := r.ResolveTag(t.Context(), "v1"); return err },
		"blob there": func() error { _, err := r.BlobExists(t.Context(), desc); return err },
		"log in":     func() error { return client.Ping(t.Context(), ref) },
		"push": func() error {
			_, err := r.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
			return err
		},
	} {
		err := ask()
		wantKind(t, err, registry.Protocol)
		if err != nil && !strings.Contains(err.Error(), "a web page") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A wrong Content-Length: the connection ends before what it announces, and is
// asked again within the budget.
func TestCutAnswersAreAskedAgain(t *testing.T) {
	for _, path := range []string{"/blobs/", "/manifests/v1"} {
		r, proxy, desc := behind(t, registry.Options{})
		ask := func() error {
			if path == "/blobs/" {
				_, err := r.FetchBlob(t.Context(), desc, 1000)
				return err
			}
			_, err := r.Resolve(t.Context())
			return err
		}
		proxy.Fail(servertest.Fault{Method: http.MethodGet, Path: path, Cut: true, CutAfter: 5, Times: 2})
		proxy.Fail(servertest.Fault{Method: http.MethodGet, Path: path, Cut: true, Times: 1})
		if err := ask(); err != nil || r.Retries() != 3 {
			t.Errorf("%s: %v after %d retries", path, err, r.Retries())
		}
		proxy.Fail(servertest.Fault{Method: http.MethodGet, Path: path, Cut: true, CutAfter: 5})
		wantKind(t, ask(), registry.Unreachable)
	}
}

func TestStatusesHaveKindsAndOnlySomeAreRetried(t *testing.T) {
	for status, c := range map[int]struct {
		kind    registry.Kind
		retried bool
	}{
		http.StatusUnauthorized:          {registry.Unauthorized, false},
		http.StatusForbidden:             {registry.Denied, false},
		http.StatusNotFound:              {registry.NotFound, false},
		http.StatusBadRequest:            {registry.Refused, false},
		http.StatusRequestEntityTooLarge: {registry.TooLarge, false},
		http.StatusNotImplemented:        {registry.Unavailable, false},
		http.StatusTooManyRequests:       {registry.RateLimited, true},
		http.StatusRequestTimeout:        {registry.Unavailable, true},
		http.StatusInternalServerError:   {registry.Unavailable, true},
		http.StatusBadGateway:            {registry.Unavailable, true},
		http.StatusServiceUnavailable:    {registry.Unavailable, true},
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			w := new(waits)
			budget := 30 * time.Second
			r, proxy, _ := behind(t, registry.Options{Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: budget}})
			proxy.Fail(servertest.Fault{Path: "/manifests/", Status: status, Body: `{"errors":[{"code":"CODE","message":"why\u001b[2J"}]}`})
			_, err := r.Resolve(t.Context())
			e := wantKind(t, err, c.kind)
			// A 401 without a challenge comes from the client's own logic.
			if status != http.StatusUnauthorized && (e.Status != status || e.Code != "CODE" || !strings.HasPrefix(e.Detail, "why") || strings.Contains(e.Detail, "\x1b")) {
				t.Errorf("error %+v", e)
			}
			if e.Retryable() != c.retried || (r.Retries() > 1) != c.retried || w.total() > budget {
				t.Errorf("retryable %v, %d retries in %s", e.Retryable(), r.Retries(), w.total())
			}
			proxy.Reset()
			proxy.Fail(servertest.Fault{Path: "/manifests/", Status: status, Times: 1})
			if _, err := r.Resolve(t.Context()); (err == nil) != c.retried {
				t.Errorf("one fault, then: %v", err)
			}
		})
	}
}

func TestRetryAfterIsHonouredWithinTheBudget(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		passes bool
		atWait time.Duration
	}{
		"seconds":           {"7", true, 7 * time.Second},
		"a date":            {time.Now().Add(9 * time.Second).UTC().Format(http.TimeFormat), true, 7 * time.Second},
		"beyond the budget": {"3600", false, 0},
		"negative":          {"-5", true, 0},
		"nonsense":          {"soon", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(waits)
			r, proxy, _ := behind(t, registry.Options{Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: time.Minute}})
			for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
				proxy.Fail(servertest.Fault{Path: "/manifests/", Status: status, Times: 1, Header: http.Header{"Retry-After": {c.header}}})
			}
			_, err := r.Resolve(t.Context())
			if !c.passes {
				if wantKind(t, err, registry.RateLimited); len(w.all) != 0 {
					t.Errorf("waited %v for what does not fit into the budget", w.all)
				}
				return
			}
			if err != nil || len(w.all) != 2 || w.all[0] < c.atWait || w.all[1] < c.atWait || w.all[0] == w.all[1] {
				t.Errorf("%v after waits of %v", err, w.all)
			}
		})
	}
}

func TestAStalledRegistryIsGivenUp(t *testing.T) {
	r, proxy, _ := behind(t, registry.Options{AnswerTimeout: 50 * time.Millisecond})
	proxy.Fail(servertest.Fault{Path: "/manifests/", Delay: 10 * time.Second, Times: 1})
	began := time.Now()
	if _, err := r.Resolve(t.Context()); err != nil || r.Retries() != 1 {
		t.Errorf("%v after %d retries", err, r.Retries())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

// freshKey says in a connection's context that it was opened when others had gone silent.
type freshKey struct{}

// What a firewall has forgotten is silent on each of its connections: after one that
// stalled the next try opens another.
func TestAfterAStallNoConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	const kept = 3
	content := []byte("on any connection")
	var silent atomic.Bool
	var meet, fetched sync.WaitGroup
	meet.Add(kept)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch fresh, _ := req.Context().Value(freshKey{}).(bool); {
		case !silent.Load():
			meet.Done()
			meet.Wait()
		case !fresh:
			<-req.Context().Done()
			return
		}
		_, _ = w.Write(content)
	}))
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, freshKey{}, silent.Load())
	}
	srv.Start()
	t.Cleanup(srv.Close)
	r := newRepo(t, strings.TrimPrefix(srv.URL, "http://")+"/m", registry.Options{AnswerTimeout: time.Second})
	fetch := func() {
		if _, err := r.FetchBlob(t.Context(), descOf(content), 100); err != nil {
			t.Error(err)
		}
	}
	for range kept {
		fetched.Go(fetch)
	}
	fetched.Wait()
	silent.Store(true)
	if fetch(); r.Retries() != 1 {
		t.Errorf("%d retries", r.Retries())
	}
}

func TestARegistryThatIsDownIsAwaitedWithinTheBudget(t *testing.T) {
	w := new(waits)
	budget := 20 * time.Second
	r, proxy, _ := behind(t, registry.Options{Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: budget}})
	proxy.Down()
	_, err := r.Resolve(t.Context())
	if e := wantKind(t, err, registry.Unreachable); !e.Retryable() || w.total() > budget || len(w.all) < 2 {
		t.Errorf("%v after waits of %v", err, w.all)
	}
	proxy.Up(t)
	if _, err := r.Resolve(t.Context()); err != nil {
		t.Error(err)
	}
}

// A tag that moves between two requests: what was resolved stays what it was.
func TestAMovedTagIsNotFollowed(t *testing.T) {
	host := memRegistry(t, nil)
	r := newRepo(t, host+"/m:v1", registry.Options{})
	first := pushImage(t, r, "v1", "first")
	p, err := r.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d, _, err := r.ResolveTag(t.Context(), "v1"); err != nil || d != first.Subject().Digest() {
		t.Fatalf("%s, %v", d, err)
	}
	second := pushImage(t, r, "v1", "second")
	if p.Subject() != first.Subject() || !bytes.Equal(p.Manifest(), first.Manifest()) {
		t.Error("the pinned manifest changed")
	}
	got, err := r.FetchManifest(t.Context(), p.Subject().Descriptor())
	if err != nil || !bytes.Equal(got, first.Manifest()) {
		t.Errorf("by digest: %v", err)
	}
	if err := r.TagManifest(t.Context(), p, "stable"); err != nil {
		t.Fatal(err)
	}
	if d, _, err := r.ResolveTag(t.Context(), "stable"); err != nil || d != first.Subject().Digest() || d == second.Subject().Digest() {
		t.Errorf("stable is %s, %v", d, err)
	}
}

func TestRedirectsCarryNoCredentials(t *testing.T) {
	const password = "pa55word"
	content := []byte("served elsewhere")
	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for k, v := range req.Header {
			if k == "Authorization" || k == "Cookie" || strings.Contains(strings.Join(v, ""), password) {
				leaked = append(leaked, k)
			}
		}
		w.Write(content)
	}))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		to   string
		kind registry.Kind
	}{
		"to another host": {elsewhere.URL + "/blob?signature=s3cret", 0},
		"in a circle":     {"/v2/m/blobs/circle", registry.Protocol},
		"to no URL":       {"http://[", registry.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			leaked = nil
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if user, pass, ok := req.BasicAuth(); !ok || user != "u" || pass != password {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				w.Header().Set("Location", c.to)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			r := newRepo(t, host+"/m", registry.Options{Credentials: registry.CredentialOptions{Username: "u", Password: password},
				Retry: registry.RetryPolicy{Budget: time.Second}})
			got, err := r.FetchBlob(t.Context(), descOf(content), 1000)
			if c.kind == 0 && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%q, %v", got, err)
			}
			if c.kind != 0 {
				wantKind(t, err, c.kind)
			}
			if len(leaked) > 0 || (err != nil && strings.Contains(err.Error(), password)) {
				t.Errorf("credentials went along in %q, error %v", leaked, err)
			}
		})
	}
}

func TestPushBlobRefusesAFileThatChanged(t *testing.T) {
	content := []byte("what was hashed before")
	for name, now := range map[string][]byte{
		"other bytes": []byte("WHAT was hashed before"), "shorter": content[:10], "longer": append(bytes.Clone(content), '!'), "empty": nil,
	} {
		t.Run(name, func(t *testing.T) {
			r, _, _ := behind(t, registry.Options{})
			up, err := r.PushBlob(t.Context(), descOf(content), opener(now))
			var ce *registry.ChangedError
			if !errors.As(err, &ce) || up {
				t.Fatalf("uploaded %v, error %v; want a *ChangedError", up, err)
			}
			for _, b := range [][]byte{content, now} {
				if there, err := r.BlobExists(t.Context(), descOf(b)); err != nil || (there && len(b) > 0) {
					t.Errorf("the registry has %q: %v, %v", b, there, err)
				}
			}
		})
	}
	r, _, _ := behind(t, registry.Options{})
	missing := errors.New("gone")
	if _, err := r.PushBlob(t.Context(), descOf(content), func() (io.ReadCloser, error) { return nil, missing }); !errors.Is(err, missing) {
		t.Errorf("error %v, want that of opening", err)
	}
}

func TestPushBlobIsSentAgainAfterFaults(t *testing.T) {
	for name, faults := range map[string][]servertest.Fault{
		"no session":     {{Method: http.MethodPost, Path: "/blobs/uploads/", Status: 503, Times: 2}},
		"session gone":   {{Method: http.MethodPut, Path: "/blobs/uploads/", Status: 404, Times: 1}},
		"overloaded":     {{Method: http.MethodPut, Path: "/blobs/uploads/", Status: 429, Times: 1, Header: http.Header{"Retry-After": {"1"}}}},
		"cut at the end": {{Method: http.MethodPut, Path: "/blobs/uploads/", Cut: true, Times: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			r, proxy, _ := behind(t, registry.Options{})
			for _, f := range faults {
				proxy.Fail(f)
			}
			content := []byte("sent again: " + name)
			if up, err := r.PushBlob(t.Context(), descOf(content), opener(content)); err != nil || !up {
				t.Fatalf("%v, %v", up, err)
			}
			if got, err := r.FetchBlob(t.Context(), descOf(content), 1000); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%q, %v", got, err)
			}
			if r.Retries() == 0 {
				t.Error("no retry was counted")
			}
		})
	}
}

func TestUploadLocationElsewhereGetsNoCredentials(t *testing.T) {
	var leaked bool
	var stored []byte
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		leaked = leaked || req.Header.Get("Authorization") != ""
		stored, _ = io.ReadAll(req.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	defer storage.Close()
	for location, kind := range map[string]registry.Kind{storage.URL + "/up?id=1": 0, "": registry.Protocol, "ftp://x/": registry.Protocol, "http://[": registry.Protocol} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if _, _, ok := req.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if req.Method == http.MethodHead {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusAccepted)
		}))
		r := newRepo(t, host+"/m", registry.Options{Credentials: registry.CredentialOptions{Username: "u", Password: "p"}})
		content := []byte("to the storage")
		_, err := r.PushBlob(t.Context(), descOf(content), opener(content))
		if kind != 0 {
			wantKind(t, err, kind)
		} else if err != nil || !bytes.Equal(stored, content) {
			t.Errorf("stored %q, %v", stored, err)
		}
	}
	if leaked {
		t.Error("the storage got the registry's credentials")
	}
}

func TestPushManifestNoticesAnotherDigest(t *testing.T) {
	host := memRegistry(t, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
				w.Header().Set("Docker-Content-Digest", someDigest)
				w.WriteHeader(http.StatusCreated)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	r := newRepo(t, host+"/m", registry.Options{})
	manifest := image(pushBlob(t, r, []byte("{}")), pushBlob(t, r, []byte("x")), nil, nil)
	p, err := r.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifest)
	if wantKind(t, err, registry.Corrupt); !p.Subject().IsZero() {
		t.Error("it is pinned all the same")
	}
	if _, err := r.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"mediaType":%q}`, ocispec.MediaTypeImageIndex)); err == nil {
		t.Error("a manifest of another type was pushed")
	}
}

// TestAnotherRequestsErrorIsNoAnswer: what ended one request of a group is the cause of
// the end of the others. It says nothing about what they were about, and stays what it is.
func TestAnotherRequestsErrorIsNoAnswer(t *testing.T) {
	r, _, desc := behind(t, registry.Options{})
	content := []byte("of a blob that is not there")
	_, missing := r.FetchBlob(t.Context(), descOf(content), 1000)
	wantKind(t, missing, registry.NotFound)
	before := missing.Error()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("a group: %w", missing))
	p, err := r.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asks := map[string]func() error{
		"a blob's presence": func() error { _, err := r.BlobExists(ctx, desc); return err },
		"a blob":            func() error { _, err := r.FetchBlob(ctx, desc, 1000); return err },
		"referrers":         func() error { _, err := r.HasReferrersAPI(ctx, p.Subject()); return err },
		"a mount":           func() error { _, err := r.MountBlob(ctx, desc, "some/where"); return err },
		"an upload": func() error {
			_, err := r.PushBlob(ctx, descOf(content), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
			return err
		},
	}
	for name, ask := range asks {
		err := ask()
		var e *registry.Error
		if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if missing.Error() != before {
		t.Errorf("%q has become %q", before, missing)
	}
}

// Quay says of its "true" that it is a web page.
func TestLogInWhereTheAnswerIsSaidToBeAPage(t *testing.T) {
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "true")
	}))
	client, err := registry.NewClient(registry.Options{})
	if err == nil {
		err = client.Ping(t.Context(), host)
	}
	if err != nil {
		t.Error(err)
	}
}
