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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociserver"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// The fronts here give answers of hosted registries that are on record, before a registry
// that does the rest.

func asError[E error](err error, target *E) bool { return errors.As(err, target) }

// shortTokens asks for a token, one of which is good for an hour of clock, and answers with
// over what comes with an older one.
type shortTokens struct {
	clock atomic.Int64 // seconds
	made  atomic.Int64
	over  http.HandlerFunc
	// base is the challenge's scope at /v2/; "" for none, and "open" for no challenge.
	base string

	mu    sync.Mutex
	until map[string]int64
}

func (s *shortTokens) now() time.Time { return time.Unix(1_800_000_000+s.clock.Load(), 0) }

func (s *shortTokens) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			token := fmt.Sprint("token-", s.made.Add(1))
			s.mu.Lock()
			s.until[token] = s.clock.Load() + 3600
			s.mu.Unlock()
			fmt.Fprintf(w, `{"token":%q}`, token)
			return
		}
		token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		until, known := s.until[token]
		s.mu.Unlock()
		switch scope := s.base; {
		case req.URL.Path == "/v2/" && s.base == "open":
		case !known:
			if req.URL.Path != "/v2/" {
				scope = ""
			}
			_, _ = io.Copy(io.Discard, req.Body)
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x",scope=%q`, req.Host, scope))
			w.WriteHeader(http.StatusUnauthorized)
		case s.clock.Load() >= until:
			_, _ = io.Copy(io.Discard, req.Body)
			s.over(w, req)
		case req.URL.Path == "/v2/":
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// TestATokenThatIsOverIsRenewed also where no 401 with a challenge says so: Amazon ECR
// answers 403, its public registry 400, others 401 alone (oras-go#1227).
func TestATokenThatIsOverIsRenewed(t *testing.T) {
	t.Parallel()
	ecr := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Your authorization token has expired. Reauthenticate and try again.", http.StatusForbidden)
	}
	for name, c := range map[string]struct {
		over http.HandlerFunc
		base string
	}{
		"ECR": {ecr, ""},
		"ECR Public": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`)
		}, "aws"},
		"no challenge":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, ""},
		"another scope": {ecr, "repository:user/image:pull"},
		"open":          {ecr, "open"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &shortTokens{over: c.over, base: c.base, until: map[string]int64{}}
			r := newRepo(t, memRegistry(t, &ociserver.Options{DisableReferrersAPI: true}, s.front)+"/m:v1", registry.Options{Now: s.now})
			steps := map[string]func() error{
				"push": func() error {
					content := bytes.Repeat([]byte(fmt.Sprint(s.clock.Load())), 100_000)
					up, err := r.PushBlob(t.Context(), descOf(content), opener(content))
					if err == nil && !up {
						t.Error("the blob was not sent")
					}
					return err
				},
				"upload": func() error {
					u, err := r.BeginUpload(t.Context(), "a file")
					if err != nil {
						return err
					}
					// A request that takes long, and one after it.
					s.clock.Add(3601)
					content := bytes.Repeat([]byte(fmt.Sprint(s.clock.Load())), 100_000)
					if err := u.Send(t.Context(), 0, int64(len(content)), opener(content)); err != nil {
						return err
					}
					s.clock.Add(3601)
					return u.Commit(t.Context(), descOf(content).Digest)
				},
				"many": func() error {
					var all errgroup.Group
					for i := range 8 {
						all.Go(func() error {
							_, err := r.BlobExists(t.Context(), descOf([]byte{byte(i)}))
							return err
						})
					}
					return all.Wait()
				},
				"tag":  func() error { pushImage(t, r, "v1", "layer"); return nil },
				"pull": func() error { _, err := r.Resolve(t.Context()); return err },
				"list": func() error { listed(t, r, pushImage(t, r, "", "layer").Subject()); return nil },
			}
			for _, step := range []string{"tag", "push", "upload", "many", "pull", "list"} {
				s.clock.Add(3601)
				made := s.made.Load()
				if err := steps[step](); err != nil {
					t.Errorf("%s: %v", step, err)
				}
				// One of each scope, for each time that it was over, and one of the base's.
				most := map[string]int64{"upload": 6, "many": 8}[step]
				if n := s.made.Load() - made; n < 1 || n > max(most, 3) {
					t.Errorf("%s: %d tokens", step, n)
				}
			}
		})
	}
}

// TestARefusalIsNoReasonForManyTokens: what is refused with a token that has just come is
// refused, and so is what another token does not change.
func TestARefusalIsNoReasonForManyTokens(t *testing.T) {
	t.Parallel()
	s := &shortTokens{until: map[string]int64{}}
	refused := answer(get("/manifests/"), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	r := newRepo(t, memRegistry(t, nil, refused, s.front)+"/m:v1", registry.Options{Now: s.now})
	resolve := func() {
		t.Helper()
		_, err := r.Resolve(t.Context())
		wantKind(t, err, registry.Denied)
	}
	for range 3 {
		resolve()
	}
	if n := s.made.Load(); n != 1 {
		t.Errorf("%d tokens for refusals in the first minute", n)
	}
	s.clock.Add(120)
	for range 3 {
		resolve()
	}
	if n := s.made.Load(); n != 2 {
		t.Errorf("%d tokens, want one more after two minutes", n)
	}
}

// TestARefusedUploadIsNotSentAgain for want of another token: the registry says why.
func TestARefusedUploadIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int64{"DIGEST_INVALID": 1, "BLOB_UPLOAD_INVALID": 3} {
		s := &shortTokens{until: map[string]int64{}}
		var puts atomic.Int64
		refuse := answer(func(req *http.Request) bool { return req.Method == http.MethodPut }, func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			puts.Add(1)
			s.clock.Add(90) // that is how long it took
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, code)
		})
		r := newRepo(t, memRegistry(t, nil, refuse, s.front)+"/m", registry.Options{Now: s.now})
		content := bytes.Repeat([]byte("0123456789"), 1000)
		_, err := r.PushBlob(t.Context(), descOf(content), opener(content))
		if e := wantKind(t, err, registry.Refused); e.Code != code || puts.Load() != want {
			t.Errorf("%v, after %d requests with all of it, want %d", err, puts.Load(), want)
		}
	}
}

// TestATokenIsKeptWhereNobodyAsksForOne: a registry that says 403 to it and 404 to nobody
// has a reason for the first.
func TestATokenIsKeptWhereNobodyAsksForOne(t *testing.T) {
	t.Parallel()
	s := &shortTokens{until: map[string]int64{}}
	hidden := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch hides := strings.Contains(req.URL.Path, "/manifests/hidden"); {
			case hides && req.Header.Get("Authorization") == "":
				w.WriteHeader(http.StatusNotFound)
			case hides:
				w.WriteHeader(http.StatusForbidden)
			default:
				next.ServeHTTP(w, req)
			}
		})
	}
	host := memRegistry(t, nil, s.front, hidden)
	r := newRepo(t, host+"/m:hidden", registry.Options{Now: s.now})
	pushImage(t, r, "v1", "layer")
	if _, _, err := r.ResolveTag(t.Context(), "v1"); err != nil { // for a token to pull
		t.Fatal(err)
	}
	s.clock.Add(120)
	made := s.made.Load()
	for range 3 {
		before := r.Requests()
		_, err := r.Resolve(t.Context())
		wantKind(t, err, registry.Denied)
		if n := r.Requests() - before; n > 2 {
			t.Errorf("%d requests", n)
		}
	}
	before := r.Requests()
	if _, _, err := r.ResolveTag(t.Context(), "v1"); err != nil || r.Requests() != before+1 || s.made.Load() != made {
		t.Errorf("%d requests and %d tokens for a manifest, %v", r.Requests()-before, s.made.Load()-made, err)
	}
}

// TestTagsThatCannotBeMoved: the same manifest again is no change.
func TestTagsThatCannotBeMoved(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]struct {
		status int
		code   string
	}{
		"ECR":    {http.StatusBadRequest, "TAG_INVALID"},
		"Harbor": {http.StatusPreconditionFailed, "PRECONDITION"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			there := make(map[string]bool)
			isTag := func(req *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				tag := req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "/manifests/v1")
				was := there[req.URL.Path]
				there[req.URL.Path] = was || tag
				return tag && was
			}
			immutable := answer(isTag, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(refusal.status)
				fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"the tag is immutable"}]}`, refusal.code)
			})
			proxy := servertest.FaultProxy(t, memRegistry(t, nil, immutable))
			// The answer to the first request is lost: it is sent again.
			proxy.Fail(servertest.Fault{Method: http.MethodPut, Path: "/manifests/v1", Cut: true, Times: 1})
			r := newRepo(t, proxy.Addr+"/m", registry.Options{})
			p := pushImage(t, r, "v1", "layer")
			if err := r.TagManifest(t.Context(), p, "v1"); err != nil {
				t.Errorf("again: %v", err)
			}
			other := pushImage(t, r, "", "another")
			err := r.TagManifest(t.Context(), other, "v1")
			if e := (*registry.Error)(nil); !asError(err, &e) || e.Status != refusal.status || e.Code != refusal.code {
				t.Errorf("another manifest: %v", err)
			}
			if d, _, err := r.ResolveTag(t.Context(), "v1"); err != nil || d != p.Subject().Digest() {
				t.Errorf("v1 is %s, %v", d, err)
			}
		})
	}
}

// TestABlobIsNotSentAgainThatArrived: only the answer was lost.
func TestABlobIsNotSentAgainThatArrived(t *testing.T) {
	t.Parallel()
	proxy := servertest.FaultProxy(t, memRegistry(t, nil))
	proxy.Fail(servertest.Fault{Method: http.MethodPut, Path: "/blobs/uploads/", Cut: true, Times: 1})
	r := newRepo(t, proxy.Addr+"/m", registry.Options{})
	content := bytes.Repeat([]byte("0123456789"), 1000)
	if up, err := r.PushBlob(t.Context(), descOf(content), opener(content)); err != nil || !up {
		t.Errorf("pushed %v, %v", up, err)
	}
	puts := 0
	for _, req := range proxy.Requests() {
		if req.Method == http.MethodPut {
			puts++
		}
	}
	if puts != 1 {
		t.Errorf("it was sent %d times", puts)
	}
}

// TestABlobThatArrivedBeforeARestart: it is asked for after each try, until one succeeds.
func TestABlobThatArrivedBeforeARestart(t *testing.T) {
	t.Parallel()
	proxy := servertest.FaultProxy(t, memRegistry(t, nil))
	proxy.Fail(servertest.Fault{Method: http.MethodPut, Path: "/blobs/uploads/", Cut: true, Times: 1})
	proxy.Fail(servertest.Fault{Method: http.MethodHead, Skip: 1, Status: 503, Times: 1})
	proxy.Fail(servertest.Fault{Method: http.MethodPost, Skip: 1, Status: 503, Times: 1})
	r := newRepo(t, proxy.Addr+"/m", registry.Options{})
	content := bytes.Repeat([]byte("0123456789"), 1000)
	if up, err := r.PushBlob(t.Context(), descOf(content), opener(content)); err != nil || !up {
		t.Errorf("pushed %v, %v", up, err)
	}
	methods := make(map[string]int)
	for _, req := range proxy.Requests() {
		methods[req.Method]++
	}
	if methods[http.MethodPut] != 1 || methods[http.MethodHead] != 3 || methods[http.MethodPost] != 2 {
		t.Errorf("requests %v", methods)
	}
}

// TestARefusalThatMightHavePassed is one when the time is up.
func TestARefusalThatMightHavePassed(t *testing.T) {
	t.Parallel()
	refuse := answer(func(req *http.Request) bool { return req.Method == http.MethodPut }, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}`)
	})
	r := newRepo(t, memRegistry(t, nil, refuse)+"/m", registry.Options{Retry: registry.RetryPolicy{Budget: 1}})
	_, err := r.PushBlob(t.Context(), descOf([]byte("content")), opener([]byte("content")))
	if e := wantKind(t, err, registry.Refused); e.Retryable() {
		t.Errorf("%v may be tried again", err)
	}
}

// TestCodesOfErrors of those that have another type there.
func TestCodesOfErrors(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{`"NAME_INVALID"`: "NAME_INVALID", `400`: "400", `null`: "", `{"a":1}`: "", `["x"]`: ""} {
		host := memRegistry(t, nil, answer(get("/manifests/"), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"errors":[{"code":%s,"message":"the reason"}]}`, code)
		}))
		_, err := newRepo(t, host+"/m:v1", registry.Options{}).Resolve(t.Context())
		if e := wantKind(t, err, registry.Refused); e.Code != want || e.Detail != "the reason" {
			t.Errorf("%s: code %q, %q", code, e.Code, e.Detail)
		}
	}
}

// TestAnUploadThatARegistryLosesIsSentAgain, and one that it goes on refusing is not for
// ever.
func TestAnUploadThatARegistryLosesIsSentAgain(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 1000)
	for name, c := range map[string]struct {
		status int
		body   string
		times  int
		tries  int
		ok     bool
	}{
		"Azure":        {http.StatusRequestedRangeNotSatisfiable, "", 1, 2, true},
		"ECR":          {http.StatusBadRequest, `{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"parts are missing"}]}`, 2, 3, true},
		"a wrong hash": {http.StatusBadRequest, `{"errors":[{"code":"DIGEST_INVALID"}]}`, 1, 1, false},
		"for ever":     {http.StatusBadRequest, `{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}`, 100, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			puts := 0
			lost := func(req *http.Request) bool {
				if req.Method != http.MethodPut {
					return false
				}
				puts++
				return puts <= c.times
			}
			r := newRepo(t, memRegistry(t, nil, answer(lost, func(w http.ResponseWriter, req *http.Request) {
				_, _ = io.Copy(io.Discard, req.Body)
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))+"/m", registry.Options{})
			_, err := r.PushBlob(t.Context(), descOf(content), opener(content))
			if e := (*registry.Error)(nil); !c.ok && (!asError(err, &e) || e.Kind != registry.Refused || e.Status != c.status) {
				t.Errorf("error %v", err)
			}
			if (err == nil) != c.ok || puts != c.tries {
				t.Errorf("sent %d times, want %d: %v", puts, c.tries, err)
			}
		})
	}
}

// TestAManifestWaitsForItsBlobs that a replica of the registry does not see yet.
func TestAManifestWaitsForItsBlobs(t *testing.T) {
	t.Parallel()
	for times, ok := range map[int]bool{2: true, 100: false} {
		puts := 0
		slow := func(req *http.Request) bool {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
				puts++
				return puts <= times
			}
			return false
		}
		var w waits
		r := newRepo(t, memRegistry(t, nil, answer(slow, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}`)
		}))+"/m", registry.Options{Sleep: w.sleep})
		manifest := image(pushBlob(t, r, []byte("{}")), pushBlob(t, r, []byte("layer")), nil, nil)
		_, err := r.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifest)
		if (err == nil) != ok || puts > 5 || w.total() > 10*time.Second {
			t.Errorf("refused %d times: %v, after %d requests and %s", times, err, puts, w.total())
		}
		if !ok && wantKind(t, err, registry.NotFound).Code != "MANIFEST_BLOB_UNKNOWN" {
			t.Errorf("error %v", err)
		}
	}
}

// TestReferrersWhereSomebodyElseAnswers for the path: that is no API, and the tag lists them.
func TestReferrersWhereSomebodyElseAnswers(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, "<!doctype html><title>Sign in</title>")
		},
		"not implemented": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, memRegistry(t, &ociserver.Options{DisableReferrersAPI: true}, answer(get("/referrers/"), with))+"/m", registry.Options{})
			attachAndList(t, r, pushImage(t, r, "v1", "layer"))
		})
	}
}

// TestATagThatIsTheSubjectListsNothing: GitLab resolves sha256-<hex> to the manifest of
// that digest. Before anything is signed it is known that nothing can be listed there.
func TestATagThatIsTheSubjectListsNothing(t *testing.T) {
	t.Parallel()
	likeGitLab := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet || req.Method == http.MethodHead {
				req.URL.Path = strings.Replace(req.URL.Path, "/manifests/sha256-", "/manifests/sha256:", 1)
			}
			next.ServeHTTP(w, req)
		})
	}
	r := newRepo(t, memRegistry(t, &ociserver.Options{DisableReferrersAPI: true}, likeGitLab)+"/m", registry.Options{})
	p := pushImage(t, r, "v1", "layer")
	if all := listed(t, r, p.Subject()); len(all) > 0 {
		t.Errorf("listed %v", all)
	}
	var fe *registry.FallbackError
	if err := r.Listable(t.Context(), p.Subject()); !asError(err, &fe) || !fe.Itself {
		t.Errorf("listable: %v", err)
	}
	_, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "x"))
	if !asError(err, &fe) || !fe.Itself {
		t.Errorf("attach: %v", err)
	}
}

// TestSeveralChallenges of a registry behind a proxy for Kerberos.
func TestSeveralChallenges(t *testing.T) {
	t.Parallel()
	ask := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if u, p, ok := req.BasicAuth(); ok && u == user && p == password {
				next.ServeHTTP(w, req)
				return
			}
			w.Header()["Www-Authenticate"] = []string{"Negotiate", `Basic realm="x"`}
			w.WriteHeader(http.StatusUnauthorized)
		})
	}
	r := newRepo(t, memRegistry(t, nil, ask)+"/m:v1", registry.Options{Credentials: registry.CredentialOptions{Username: user, Password: password}})
	p := pushImage(t, r, "v1", "layer")
	if got, err := r.Resolve(t.Context()); err != nil || got.Subject() != p.Subject() {
		t.Errorf("%v, %v", got, err)
	}
}

// TestRangesHaveAnEnd: there are registries that refuse one without (anchore/stereoscope#695).
func TestRangesHaveAnEnd(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 1000)
	var mu sync.Mutex
	var ranges []string
	note := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if r := req.Header.Get("Range"); r != "" {
				mu.Lock()
				ranges = append(ranges, r)
				mu.Unlock()
			}
			next.ServeHTTP(w, req)
		})
	}
	r := newRepo(t, memRegistry(t, nil, note)+"/m", registry.Options{})
	desc := pushBlob(t, r, content)
	rc, at, err := r.OpenBlob(t.Context(), desc, 4000)
	if err != nil || at != 4000 {
		t.Fatal(at, err)
	}
	defer rc.Close()
	if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, content[4000:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if want := []string{"bytes=4000-9999"}; !slices.Equal(ranges, want) {
		t.Errorf("asked for %q, want %q", ranges, want)
	}
}

// TestARetryAfterInUnixTime is a moment, and not half a century.
func TestARetryAfterInUnixTime(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	asked := 0
	busy := func(req *http.Request) bool { asked++; return asked == 1 }
	var w waits
	host := memRegistry(t, nil, answer(busy, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", fmt.Sprint(now.Unix()+40))
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	r := newRepo(t, host+"/m", registry.Options{Now: func() time.Time { return now }, Sleep: w.sleep})
	if there, err := r.BlobExists(t.Context(), descOf([]byte("x"))); err != nil || there {
		t.Errorf("%v, %v", there, err)
	}
	if got := w.total(); got < 40*time.Second || got > 44*time.Second {
		t.Errorf("waited %s", got)
	}
}

// TestAnEmptyBlobThatIsRefused says what is special about it.
func TestAnEmptyBlobThatIsRefused(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(answer(func(req *http.Request) bool { return req.Method == http.MethodPut }, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"the upload does not have any parts"}]}`)
	})(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			w.Header().Set("Location", req.URL.Path+"1")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})))
	t.Cleanup(srv.Close)
	r := newRepo(t, strings.TrimPrefix(srv.URL, "http://")+"/m", registry.Options{})
	_, err := r.PushBlob(t.Context(), descOf(nil), opener(nil))
	if e := wantKind(t, err, registry.Refused); e.Detail != "the upload does not have any parts (the blob is empty, which not every registry takes)" {
		t.Errorf("detail %q", e.Detail)
	}
}

// TestNoEmptyLayers has the hosts, and those that look alike.
func TestNoEmptyLayers(t *testing.T) {
	for host, want := range map[string]bool{
		"public.ecr.aws": true, "123456789012.dkr.ecr.eu-central-1.amazonaws.com": true, "europe-docker.pkg.dev": true, "eu.gcr.io": true,
		"ghcr.io": false, "example.com": false, "notgcr.io": false, "localhost:5000": false,
	} {
		if name := registry.NoEmptyLayers(host); (name != "") != want {
			t.Errorf("NoEmptyLayers(%q) = %q", host, name)
		}
	}
}
