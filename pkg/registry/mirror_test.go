// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// mirroredRepo is a repository with mirrors.
func mirroredRepo(t testing.TB, ref string, o registry.Options) *registry.Repository {
	t.Helper()
	return openRepo(t, ref, o, (*registry.Client).Mirrored)
}

// headersSeen collects the headers of requests that could carry a secret.
type headersSeen struct {
	mu  sync.Mutex
	all []http.Header
}

func (s *headersSeen) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		s.all = append(s.all, req.Header.Clone())
		s.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}

func (s *headersSeen) values(name string) (values []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.all {
		values = append(values, h.Values(name)...)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// askedForPassword is a mirror that wants basic authentication.
func askedForPassword(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") == "" {
			w.Header().Set("Www-Authenticate", `Basic realm="anywhere"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// askedForToken is a mirror that wants a token of the endpoint at realm.
func askedForToken(realm string) wrap {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", fmt.Sprintf("Bearer realm=%q,service=registry,scope=\"repository:m:pull\"", realm))
			w.WriteHeader(http.StatusUnauthorized)
		})
	}
}

// authsFile is a docker configuration with pairs of host and credential.
func authsFile(t testing.TB, entries ...string) string {
	t.Helper()
	m := map[string]map[string]string{}
	for i := 0; i < len(entries); i += 2 {
		m[entries[i]] = map[string]string{"auth": entries[i+1]}
	}
	raw, err := json.Marshal(map[string]any{"auths": m})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "config.json", string(raw), 0o600)
}

// TestMirrorGetsNoCredentialOfTheRegistry: neither a password, as given or from a
// file, nor a token, even when the mirror asks for one, and even with the registry's
// own realm. What it gets is what the docker configuration has for it.
func TestMirrorGetsNoCredentialOfTheRegistry(t *testing.T) {
	front := tokenEndpoint(t)
	host, _ := servertest.Distribution(t, front.Section)
	given := registry.CredentialOptions{Username: user, Password: password}
	pushImage(t, newRepo(t, host+"/m", registry.Options{Credentials: given}), "v1", "layer")
	realm := askedForToken(front.URL + "/token")
	for name, c := range map[string]struct {
		challenge wrap
		given     bool // the registry's credential on the command line
		own       bool // one for the mirror in the file
		pattern   bool // one for a pattern that matches the mirror
		want      []string
	}{
		"nothing asked":                {nil, true, false, false, nil},
		"a password asked":             {askedForPassword, true, false, false, nil},
		"a password asked, file":       {askedForPassword, false, false, false, nil},
		"a password asked, pattern":    {askedForPassword, false, false, true, nil},
		"the registry's realm":         {realm, true, false, false, nil},
		"the registry's realm, file":   {realm, false, false, false, nil},
		"its own password":             {askedForPassword, false, true, false, []string{"Basic " + basic("mirror", "its own")}},
		"its own, and one given":       {askedForPassword, true, true, true, []string{"Basic " + basic("mirror", "its own")}},
		"its own at the others' realm": {realm, true, true, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			seen := new(headersSeen)
			wraps := []wrap{seen.wrap}
			if c.challenge != nil {
				wraps = []wrap{c.challenge, seen.wrap}
			}
			mirror := memRegistry(t, &ociserver.Options{}, wraps...)
			entries := []string{host, basic(user, password)}
			if c.pattern {
				// For the registries of a domain, to which the mirror need not belong.
				entries = append(entries, "127.0.0.*"+mirror[strings.LastIndexByte(mirror, ':'):], basic(user, password))
			}
			if c.own {
				entries = append(entries, mirror, basic("mirror", "its own"))
			}
			o := registry.Options{Credentials: registry.CredentialOptions{ConfigFiles: []string{authsFile(t, entries...)}}, Mirrors: []registry.Mirror{{URL: "http://" + mirror}}}
			if c.given {
				o.Credentials.Username, o.Credentials.Password = user, password
			}
			r := mirroredRepo(t, host+"/m:v1", o)
			if _, err := r.Resolve(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100); err != nil {
				t.Fatal(err)
			}
			got := seen.values("Authorization")
			if len(seen.all) == 0 || !slices.Equal(got, c.want) && !anonymousOnly(got) {
				t.Errorf("the mirror saw %q, want %q", got, c.want)
			}
			for _, v := range got {
				if strings.Contains(v, basic(user, password)) {
					t.Errorf("the mirror got the registry's password")
				}
			}
		})
	}
}

// TestAPlainMirrorOnTheRegistrysHostGetsNoPassword: what is configured for the host is
// for TLS, and a mirror on port 80 of it would send it in the clear.
func TestAPlainMirrorOnTheRegistrysHostGetsNoPassword(t *testing.T) {
	for _, host := range []string{"registry.example.com", "docker.io"} {
		testPlainMirror(t, host)
	}
}

func testPlainMirror(t *testing.T, host string) {
	t.Helper()
	api := host
	if host == "docker.io" {
		api = "registry-1.docker.io"
	}
	seen, asked := new(headersSeen), new(headersSeen)
	mirror := httptest.NewServer(seen.wrap(askedForPassword(http.NotFoundHandler())))
	origin := httptest.NewTLSServer(asked.wrap(askedForPassword(http.NotFoundHandler())))
	t.Cleanup(mirror.Close)
	t.Cleanup(origin.Close)
	r := mirroredRepo(t, host+"/m:v1", registry.Options{
		InsecureSkipTLS: true,
		Credentials:     registry.CredentialOptions{ConfigFiles: []string{authsFile(t, host, basic(user, password), "https://index.docker.io/v1/", basic(user, password), host+":80", basic(user, password))}},
		Resolve:         []string{api + ":443:" + origin.Listener.Addr().String(), host + ":80:" + mirror.Listener.Addr().String()},
		Mirrors:         []registry.Mirror{{URL: "http://" + strings.ToUpper(host)}, {URL: "http://" + host + ":80/v2/cache"}},
		Warn:            func(string) {},
	})
	if _, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100); err == nil {
		t.Fatal("nobody has it")
	}
	if got := seen.values("Authorization"); len(seen.all) < 2 || len(got) > 0 {
		t.Errorf("the mirrors were asked %d times and saw %q", len(seen.all), got)
	}
	if got, want := asked.values("Authorization"), []string{"Basic " + basic(user, password)}; !slices.Equal(got, want) {
		t.Errorf("the registry saw %q, want %q", got, want)
	}
}

// anonymousOnly reports that the values are tokens that the endpoint gave to nobody:
// they allow nothing.
func anonymousOnly(values []string) bool {
	for _, v := range values {
		token, ok := strings.CutPrefix(v, "Bearer ")
		if !ok || !strings.Contains(decodedPart(token), `"sub":"anonymous"`) {
			return false
		}
	}
	return len(values) > 0
}

// TestHostsTOMLWithARealMirror: a mirror over TLS with an authority of its own, as a
// hosts.toml names it, with a header that nobody else sees.
func TestHostsTOMLWithARealMirror(t *testing.T) {
	mirror := servertest.Stack(t, "-tls", "-no-vault")
	trusting := registry.Options{CAFile: mirror.CAFile}
	content := []byte("a layer")
	pushBlob(t, newRepo(t, mirror.Registry+"/m", trusting), content)
	var seen headersSeen
	origin := memRegistry(t, &ociserver.Options{}, seen.wrap)
	r := newRepo(t, origin+"/m", registry.Options{})
	pushImage(t, r, "v1", "another layer")

	dir := t.TempDir()
	folder := strings.ReplaceAll(origin, ":", "_") + "_"
	if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(mirror.CAFile)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, folder, "ca.pem"), ca, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		extra    string
		insecure bool
		ok       bool
	}{
		"its authority":            {`ca = "ca.pem"`, false, true},
		"no authority":             {"", false, false},
		"not checked":              {"skip_verify = true", true, true},
		"not checked, nor allowed": {"skip_verify = true", false, false},
		"only for pushing":         {"ca = \"ca.pem\"\ncapabilities = [\"push\"]", false, false},
		"for resolving alone":      {"ca = \"ca.pem\"\ncapabilities = [\"resolve\"]", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := fmt.Sprintf("[host.\"https://%s\"]\n%s\n[host.\"https://%s\".header]\nx-team = \"only the mirror's\"\n", mirror.Registry, c.extra, mirror.Registry)
			if err := os.WriteFile(filepath.Join(dir, folder, "hosts.toml"), []byte(file), 0o644); err != nil {
				t.Fatal(err)
			}
			var warnings []string
			o := registry.Options{HostsDir: dir, InsecureSkipTLS: c.insecure, PlainHTTP: true, Warn: func(s string) { warnings = append(warnings, s) }}
			got, err := mirroredRepo(t, origin+"/m:v1", o).FetchBlob(t.Context(), descOf(content), 100)
			if c.ok && (err != nil || string(got) != string(content) || len(warnings) > 0) {
				t.Errorf("%v, %q, %q", err, got, warnings)
			}
			if !c.ok {
				// Only the mirror has it.
				wantKind(t, err, registry.NotFound)
			}
			if strings.HasPrefix(name, "not checked, nor") && (len(warnings) != 1 || !strings.Contains(warnings[0], "--insecure")) {
				t.Errorf("warnings %q", warnings)
			}
		})
	}
	if got := seen.values("X-Team"); len(got) > 0 {
		t.Errorf("the registry saw the mirror's header: %q", got)
	}
}

// TestMirrorsHeaderDoesNotFollowARedirect, nor does the password.
func TestMirrorsHeaderDoesNotFollowARedirect(t *testing.T) {
	content := []byte("a layer that lies elsewhere")
	var elsewhere, at headersSeen
	store := httptest.NewServer(elsewhere.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })))
	t.Cleanup(store.Close)
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, store.URL+"/object", http.StatusTemporaryRedirect)
	}), askedForPassword, at.wrap)
	config := writeFile(t, "config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, mirror, basic("mirror", "its own")), 0o600)
	r := mirroredRepo(t, memRegistry(t, nil)+"/m:v1", registry.Options{
		Credentials: registry.CredentialOptions{ConfigFiles: []string{config}},
		Mirrors:     []registry.Mirror{{URL: "http://" + mirror, Header: http.Header{"X-Key": {"k"}}}},
	})
	got, err := r.FetchBlob(t.Context(), descOf(content), 100)
	if err != nil || string(got) != string(content) {
		t.Fatalf("%q, %v", got, err)
	}
	if len(at.values("X-Key")) != 1 || len(at.values("Authorization")) != 1 {
		t.Error("the mirror did not get its own header and password")
	}
	if len(elsewhere.all) != 1 || len(elsewhere.values("X-Key"))+len(elsewhere.values("Authorization")) > 0 {
		t.Errorf("elsewhere saw %v", elsewhere.all)
	}
}

// TestMirrorBelowAPath is where Harbor has its proxy projects, and tokens are asked
// for by the longer name.
func TestMirrorBelowAPath(t *testing.T) {
	front := tokenEndpoint(t)
	host, _ := servertest.Distribution(t, front.Section)
	own := registry.CredentialOptions{Username: user, Password: password}
	pushBlob(t, newRepo(t, host+"/proxy-hub/team/m", registry.Options{Credentials: own}), []byte("layer"))
	config := writeFile(t, "config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, basic(user, password)), 0o600)
	front.Reset()
	r := mirroredRepo(t, memRegistry(t, nil)+"/team/m:v1", registry.Options{
		Credentials: registry.CredentialOptions{ConfigFiles: []string{config}},
		Mirrors:     []registry.Mirror{{URL: "http://" + host + "/v2/proxy-hub"}},
	})
	if _, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100); err != nil {
		t.Fatal(err)
	}
	if len(front.Scopes()) != 1 || front.Scopes()[0] != "repository:proxy-hub/team/m:pull" {
		t.Errorf("scopes %q", front.Scopes())
	}
}

// TestMirrorsManifestMustSayItsType: a mirror that calls the right bytes another
// type would have every signature of them refused.
func TestMirrorsManifestMustSayItsType(t *testing.T) {
	origin := memRegistry(t, nil)
	pushed := pushImage(t, newRepo(t, origin+"/m", registry.Options{}), "v1", "layer")
	raw := pushed.Manifest()
	liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		_, _ = w.Write(raw)
	}))
	var warnings []string
	r := mirroredRepo(t, origin+"/m@"+pushed.Subject().Digest().String(), registry.Options{
		Mirrors: []registry.Mirror{{URL: "http://" + liar}}, Warn: func(s string) { warnings = append(warnings, s) },
	})
	got, err := r.Resolve(t.Context())
	if err != nil || got.Subject() != pushed.Subject() || len(warnings) != 1 {
		t.Errorf("%v %v %q", got.Subject(), err, warnings)
	}
}

// TestMirrorIsLeftAloneAndAskedAgain by the clock.
func TestMirrorIsLeftAloneAndAskedAgain(t *testing.T) {
	origin := memRegistry(t, nil)
	pushImage(t, newRepo(t, origin+"/m", registry.Options{}), "v1", "layer")
	var failing bool
	asked := 0
	mirror := memRegistry(t, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if asked++; failing {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	pushBlob(t, newRepo(t, mirror+"/m", registry.Options{}), []byte("layer"))
	now := time.Now()
	r := mirroredRepo(t, origin+"/m:v1", registry.Options{
		Mirrors: []registry.Mirror{{URL: "http://" + mirror}}, Now: func() time.Time { return now },
	})
	for i, step := range []struct {
		after time.Duration
		fails bool
		asked int
	}{
		{0, false, 1},
		{0, true, 1},
		{9 * time.Second, false, 0},  // it rests for ten
		{2 * time.Second, true, 1},   // it is asked again, and rests for twenty
		{19 * time.Second, false, 0}, //
		{2 * time.Second, false, 1},
	} {
		now, failing, asked = now.Add(step.after), step.fails, 0
		if _, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100); err != nil || asked != step.asked {
			t.Errorf("step %d: the mirror was asked %d times, %v", i, asked, err)
		}
	}
}

// ranging serves one blob of zeros, with ranges or only whole, and counts the requests.
type ranging struct {
	size   int64
	ranges bool
	fails  bool
	asked  atomic.Int64
}

func (s *ranging) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.asked.Add(1)
	switch {
	case s.fails:
		w.WriteHeader(http.StatusServiceUnavailable)
	case s.ranges:
		http.ServeContent(w, req, "", time.Time{}, io.NewSectionReader(zeros{}, 0, s.size))
	default:
		w.Header().Set("Content-Length", strconv.FormatInt(s.size, 10))
		_, _ = io.Copy(w, io.NewSectionReader(zeros{}, 0, s.size))
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// Much that is there already is not fetched again from a mirror without ranges, such as
// a pull-through cache that is still empty, while somebody else sends the rest alone.
func TestAMirrorWithoutRangesIsNotReadFromTheStart(t *testing.T) {
	t.Parallel()
	const size, mib = 80 << 20, 1 << 20
	for name, c := range map[string]struct {
		mirror, origin *ranging
		offset, at     int64
		asked          [2]int64 // the mirror, the origin
	}{
		"much is there":   {&ranging{}, &ranging{ranges: true}, 70 * mib, 70 * mib, [2]int64{1, 1}},
		"little is there": {&ranging{}, &ranging{ranges: true}, 5 * mib, 0, [2]int64{1, 0}},
		"nobody has them": {&ranging{}, &ranging{}, 70 * mib, 0, [2]int64{2, 1}},
		"the mirror has":  {&ranging{ranges: true}, &ranging{}, 70 * mib, 70 * mib, [2]int64{1, 0}},
		"origin fails":    {&ranging{}, &ranging{fails: true}, 70 * mib, 0, [2]int64{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.mirror.size, c.origin.size = size, size
			var warned atomic.Int64
			mirror, host := httptest.NewServer(c.mirror), serve(t, c.origin)
			t.Cleanup(mirror.Close)
			r := mirroredRepo(t, host+"/m:v1", registry.Options{
				Mirrors: []registry.Mirror{{URL: mirror.URL}}, Warn: func(string) { warned.Add(1) },
			})
			desc := ocispec.Descriptor{Digest: digest.FromString(name), Size: size}
			body, at, err := r.OpenBlob(t.Context(), desc, c.offset)
			if err != nil || at != c.at {
				t.Fatalf("from %d, %v", at, err)
			}
			if n, err := io.Copy(io.Discard, body); err != nil || n != size-at {
				t.Errorf("%d bytes, %v", n, err)
			}
			body.Close()
			if got := [2]int64{c.mirror.asked.Load(), c.origin.asked.Load()}; got != c.asked {
				t.Errorf("the mirror and the registry were asked %d times, want %d", got, c.asked)
			}
			if warned.Load() > 0 {
				t.Errorf("%d warnings: that there is the whole only is no fault", warned.Load())
			}
		})
	}
}

// That the registry wants to be left alone for an hour is no reason not to ask a mirror
// that will be back in a moment, and the registry is left alone.
func TestABusyRegistryIsNotAwaitedWhileAMirrorMayAnswer(t *testing.T) {
	t.Parallel()
	content := []byte("from the mirror after all")
	var asked atomic.Int64
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(mirror.Close)
	var origin atomic.Int64
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		origin.Add(1)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	var w waits
	r := mirroredRepo(t, host+"/m:v1", registry.Options{
		Mirrors: []registry.Mirror{{URL: mirror.URL}}, Warn: func(string) {}, Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: time.Minute},
	})
	got, err := r.FetchBlob(t.Context(), descOf(content), 1000)
	if err != nil || string(got) != string(content) {
		t.Errorf("%q, %v", got, err)
	}
	if origin.Load() != 1 || w.total() > time.Minute || len(w.all) == 0 {
		t.Errorf("the registry was asked %d times, waited %v", origin.Load(), w.all)
	}
	mirror.Close()
	_, err = r.FetchBlob(t.Context(), descOf([]byte("another")), 1000)
	if e := wantKind(t, err, registry.RateLimited); origin.Load() != 1 || e.RetryAfter() > time.Hour {
		t.Errorf("the registry was asked %d times, the error asks for %v", origin.Load(), e.RetryAfter())
	}
}

// TestAMissingBlobSaysNothingOfOthers: a Retry-After with a 404 is about its blob.
func TestAMissingBlobSaysNothingOfOthers(t *testing.T) {
	t.Parallel()
	content := []byte("is there")
	mirror := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(mirror.Close)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, descOf(content).Digest.String()) {
			_, _ = w.Write(content)
			return
		}
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusNotFound)
	}))
	r := mirroredRepo(t, host+"/m:v1", registry.Options{Mirrors: []registry.Mirror{{URL: mirror.URL}}, Warn: func(string) {}})
	_, err := r.FetchBlob(t.Context(), descOf([]byte("is not")), 1000)
	wantKind(t, err, registry.NotFound)
	got, err := r.FetchBlob(t.Context(), descOf(content), 1000)
	if err != nil || string(got) != string(content) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestConnectionsCutTogetherAreOneFailure: what cuts all connections to a mirror, such as its
// restart, costs ten seconds, however many there were.
func TestConnectionsCutTogetherAreOneFailure(t *testing.T) {
	t.Parallel()
	const size, streams = 1 << 20, 8
	desc := ocispec.Descriptor{Digest: digest.FromString("cut"), Size: size}
	begun, cut := make(chan struct{}, streams), make(chan struct{})
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(make([]byte, 1000))
		_ = http.NewResponseController(w).Flush()
		begun <- struct{}{}
		<-cut
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(mirror.Close)
	var passed atomic.Int64
	start := time.Now()
	r := mirroredRepo(t, serve(t, &ranging{size: size, ranges: true})+"/m:v1", registry.Options{
		Mirrors: []registry.Mirror{{URL: mirror.URL}}, Warn: func(string) {},
		Now: func() time.Time { return start.Add(time.Duration(passed.Load())) },
	})
	open := func() io.ReadCloser {
		body, _, err := r.OpenBlob(t.Context(), desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-begun:
		case <-time.After(10 * time.Second):
			t.Fatal("the mirror was not asked")
		}
		return body
	}
	drain := func(body io.ReadCloser) {
		defer body.Close()
		if _, err := io.Copy(io.Discard, body); err == nil {
			t.Error("it was not cut")
		}
	}
	bodies := make([]io.ReadCloser, streams)
	for i := range bodies {
		bodies[i] = open()
	}
	close(cut)
	for _, body := range bodies[:streams-1] {
		drain(body)
	}
	if n := len(r.Mirrors(false)); n != 0 {
		t.Errorf("%d mirrors are well", n)
	}
	passed.Add(int64(11 * time.Second))
	if n := len(r.Mirrors(false)); n != 1 {
		t.Error("it rests for longer than ten seconds")
	}
	// One whose end is seen late.
	drain(bodies[streams-1])
	if n := len(r.Mirrors(false)); n != 1 {
		t.Error("it rests for what it has rested for")
	}
	// A further failure is one.
	drain(open())
	passed.Add(int64(11 * time.Second))
	if n := len(r.Mirrors(false)); n != 0 {
		t.Error("it does not rest for twenty seconds")
	}
	passed.Add(int64(10 * time.Second))
	if n := len(r.Mirrors(false)); n != 1 {
		t.Error("it rests for longer than twenty seconds")
	}
}

// TestARestingMirrorWithoutRangesIsReadWhole: that it sends no ranges is no failure, and the
// registry, which is away, does not hide it.
func TestARestingMirrorWithoutRangesIsReadWhole(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	desc := ocispec.Descriptor{Digest: digest.FromString("whole"), Size: size}
	var down atomic.Bool
	whole, busy := &ranging{size: size}, &ranging{fails: true}
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if down.Load() {
			busy.ServeHTTP(w, req)
			return
		}
		whole.ServeHTTP(w, req)
	}))
	t.Cleanup(mirror.Close)
	var warned atomic.Int64
	r := mirroredRepo(t, "127.0.0.1:1/m:v1", registry.Options{Mirrors: []registry.Mirror{{URL: mirror.URL}}, Warn: func(string) { warned.Add(1) }})
	down.Store(true)
	if _, err := r.OpenRange(t.Context(), desc, 0, 1000); err == nil {
		t.Fatal("nobody has it")
	}
	down.Store(false)
	if _, err := r.OpenRange(t.Context(), desc, 0, 1000); !errors.Is(err, registry.ErrNoRanges) {
		t.Errorf("error %v", err)
	}
	body, _, err := r.OpenBlob(t.Context(), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if n := warned.Load(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// TestAMirrorsFailureThatPassesOutlivesTheRegistrysLastWord, within the budget, and asks to
// wait for as long as the mirror said. What is returned in the end is the registry's error.
func TestAMirrorsFailureThatPassesOutlivesTheRegistrysLastWord(t *testing.T) {
	t.Parallel()
	content := []byte("from the mirror after all")
	status := func(n int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) })
	}
	for name, c := range map[string]struct {
		origin     string
		kind       registry.Kind
		fails      int64 // answers of the mirror that are a failure
		status     int
		retryAfter string
		waits      int // -1 is any number
		longest    time.Duration
		ok         bool
	}{
		"no such host":    {"nowhere.invalid:5000", registry.Unreachable, 1, http.StatusServiceUnavailable, "1", 1, 2 * time.Second, true},
		"401":             {serve(t, status(http.StatusUnauthorized)), registry.Unauthorized, 1, http.StatusServiceUnavailable, "", 1, time.Second, true},
		"404":             {serve(t, status(http.StatusNotFound)), registry.NotFound, 2, http.StatusTooManyRequests, "1", 2, 2 * time.Second, true},
		"in vain":         {serve(t, status(http.StatusForbidden)), registry.Denied, 1 << 30, http.StatusBadGateway, "", -1, 16 * time.Second, false},
		"too late":        {serve(t, status(http.StatusForbidden)), registry.Denied, 1, http.StatusServiceUnavailable, "3600", 0, 0, false},
		"neither has it":  {serve(t, status(http.StatusNotFound)), registry.NotFound, 1, http.StatusNotFound, "1", 0, 0, false},
		"neither lets in": {serve(t, status(http.StatusUnauthorized)), registry.Unauthorized, 1, http.StatusForbidden, "1", 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) <= c.fails {
					if c.retryAfter != "" {
						w.Header().Set("Retry-After", c.retryAfter)
					}
					w.WriteHeader(c.status)
					return
				}
				_, _ = w.Write(content)
			}))
			t.Cleanup(mirror.Close)
			var w waits
			r := mirroredRepo(t, c.origin+"/m:v1", registry.Options{
				Mirrors: []registry.Mirror{{URL: mirror.URL}}, Warn: func(string) {}, Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: time.Minute},
			})
			got, err := r.FetchBlob(t.Context(), descOf(content), 1000)
			if c.ok && (err != nil || string(got) != string(content)) {
				t.Errorf("%q, %v", got, err)
			}
			if !c.ok {
				wantKind(t, err, c.kind)
			}
			if c.waits >= 0 && len(w.all) != c.waits || c.waits < 0 && len(w.all) < 3 || w.total() > time.Minute {
				t.Errorf("waited %v", w.all)
			}
			for _, d := range w.all {
				if d > c.longest {
					t.Errorf("waited for %v", d)
				}
			}
		})
	}
}

// TestErrorsNameTheMirrorsReason: where only the mirror can be reached it is what is wrong there
// that helps. It is the mirror's text, and is bounded and cleaned.
func TestErrorsNameTheMirrorsReason(t *testing.T) {
	t.Parallel()
	refuse := func(status int, text string) string {
		return "http://" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}))
	}
	var mirrors []registry.Mirror
	for _, url := range []string{
		refuse(http.StatusUnauthorized, "\x1bsee http://u:s3cret@a.example.com/?token=s3cret\nforged"),
		refuse(http.StatusServiceUnavailable, strings.Repeat("x", 5000)), refuse(http.StatusNotFound, ""), refuse(http.StatusForbidden, ""), refuse(http.StatusBadGateway, ""),
	} {
		mirrors = append(mirrors, registry.Mirror{URL: url})
	}
	for name, origin := range map[string]string{"no such host": "nowhere.invalid:5000", "refused": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			var warnings []string
			r := mirroredRepo(t, origin+"/m:v1", registry.Options{
				Mirrors: mirrors, Retry: registry.RetryPolicy{Budget: time.Second}, Warn: func(s string) { warnings = append(warnings, s) },
			})
			_, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100)
			text := wantKind(t, err, registry.Unreachable).Error()
			for _, part := range []string{
				"; mirror " + mirrors[0].URL + "/v2: not authenticated (401): see http://a.example.com/ forged; ",
				"; mirror " + mirrors[1].URL + "/v2: the mirror is unavailable (503): xxx",
				"; mirror " + mirrors[2].URL + "/v2: not found (404); and 2 more",
			} {
				if !strings.Contains(text, part) {
					t.Errorf("no %q in %q", part, text)
				}
			}
			if len(text) > 1500 {
				t.Errorf("%d bytes", len(text))
			}
			if len(warnings) != len(mirrors) {
				t.Errorf("warnings %q", warnings)
			}
			for i, w := range warnings {
				if !strings.Contains(w, mirrors[i].URL) || strings.Contains(w, "the registry") || strings.Contains(w, origin) {
					t.Errorf("the warning is %q", w)
				}
			}
		})
	}
}

// TestAMirrorDoesWithoutTheFileThatTheRegistryDoesNotNeed: with a password given, a file that is
// not there is not read, and no reason to refuse a command that has a mirror.
func TestAMirrorDoesWithoutTheFileThatTheRegistryDoesNotNeed(t *testing.T) {
	t.Parallel()
	content := []byte("layer")
	origin, open := memRegistry(t, nil), memRegistry(t, nil)
	for _, host := range []string{origin, open} {
		pushBlob(t, newRepo(t, host+"/m", registry.Options{}), content)
	}
	closed := serve(t, http.NotFoundHandler(), askedForPassword)
	missing := filepath.Join(t.TempDir(), "config.json")
	var warnings []string
	o := registry.Options{
		Credentials: registry.CredentialOptions{Username: user, Password: password, ConfigFiles: []string{missing}},
		Mirrors:     []registry.Mirror{{URL: "http://" + closed}, {URL: "http://" + open}},
		Warn:        func(s string) { warnings = append(warnings, s) },
	}
	r := mirroredRepo(t, origin+"/m:v1", o)
	if got, err := r.FetchBlob(t.Context(), descOf(content), 100); err != nil || string(got) != string(content) {
		t.Errorf("%q, %v", got, err)
	}
	// The one that asks for a password cannot have it.
	if len(warnings) != 1 || !strings.Contains(warnings[0], closed) || !strings.Contains(warnings[0], missing) {
		t.Errorf("warnings %q", warnings)
	}
	o.Credentials.Username, o.Credentials.Password = "", ""
	var config *registry.ConfigError
	if _, err := registry.NewClient(o); !errors.As(err, &config) {
		t.Errorf("without a password given: %v", err)
	}
}

// TestPlainHTTPTakesAPasswordThatIsMeantForIt: what the docker configuration has for a host is
// for TLS, and would be sent in the clear to a mirror on the same name.
func TestPlainHTTPTakesAPasswordThatIsMeantForIt(t *testing.T) {
	t.Parallel()
	const host = "mirror.example.com"
	for name, c := range map[string]struct {
		port, key string
		sent      bool
	}{
		"the host":                   {"", host, false},
		"the host, over TLS":         {"", "https://" + host, false},
		"the host, with port 80":     {":80", host + ":80", false},
		"the host, in plain HTTP":    {"", "http://" + host, true},
		"port 80, in plain HTTP":     {":80", "http://" + host + ":80/v2/", true},
		"its port":                   {":5000", host + ":5000", true},
		"its port, a repository":     {":5000", host + ":5000/m", true},
		"its port, in plain HTTP":    {":5000", "http://" + host + ":5000", true},
		"its port, over TLS":         {":5000", "https://" + host + ":5000", false},
		"the host, and asked at one": {":5000", host, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := new(headersSeen)
			mirror := httptest.NewServer(seen.wrap(askedForPassword(http.NotFoundHandler())))
			t.Cleanup(mirror.Close)
			port := c.port
			if port == "" {
				port = ":80"
			}
			r := mirroredRepo(t, serve(t, http.NotFoundHandler())+"/m:v1", registry.Options{
				Credentials: registry.CredentialOptions{ConfigFiles: []string{authsFile(t, c.key, basic(user, password))}},
				Resolve:     []string{host + port + ":" + mirror.Listener.Addr().String()},
				Mirrors:     []registry.Mirror{{URL: "http://" + host + c.port}},
				Warn:        func(string) {},
			})
			if _, err := r.FetchBlob(t.Context(), descOf([]byte("layer")), 100); err == nil {
				t.Fatal("nobody has it")
			}
			if got := seen.values("Authorization"); len(seen.all) == 0 || len(got) > 0 != c.sent {
				t.Errorf("asked %d times, and sent %q", len(seen.all), got)
			}
		})
	}
}

// TestADeadMirrorDoesNotOutliveTheRegistrysLastWord: a digest that nobody has is refused at
// once. Where the registry cannot be asked either, somebody may come back.
func TestADeadMirrorDoesNotOutliveTheRegistrysLastWord(t *testing.T) {
	t.Parallel()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	for origin, want := range map[string]struct {
		kind  registry.Kind
		waits bool
	}{
		serve(t, http.NotFoundHandler()): {registry.NotFound, false},
		"nowhere.invalid:5000":           {registry.Unreachable, true},
	} {
		var w waits
		r := mirroredRepo(t, origin+"/m:v1", registry.Options{
			Mirrors: []registry.Mirror{{URL: dead.URL}}, Warn: func(string) {}, Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: time.Minute},
		})
		_, err := r.FetchBlob(t.Context(), descOf([]byte("x")), 1000)
		if wantKind(t, err, want.kind); len(w.all) > 0 != want.waits {
			t.Errorf("%s: waited %v", origin, w.all)
		}
	}
}

// TestTheRegistrysLastWordIsNotAskedForAgain while a mirror is: a wrong password that is sent
// again and again locks an account.
func TestTheRegistrysLastWordIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		seen, asked := new(headersSeen), new(headersSeen)
		origin := serve(t, askedForPassword(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })), seen.wrap)
		mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }), asked.wrap)
		clock := time.Unix(1_800_000_000, 0)
		r := mirroredRepo(t, origin+"/m:v1", registry.Options{
			Mirrors: []registry.Mirror{{URL: "http://" + mirror}}, Warn: func(string) {}, Now: func() time.Time { return clock },
			Sleep: func(_ context.Context, d time.Duration) error {
				clock = clock.Add(d)
				return nil
			},
			Credentials: registry.CredentialOptions{Username: user, Password: password},
		})
		for i := range 5 {
			_, err := r.FetchBlob(t.Context(), descOf([]byte{byte(i)}), 1000)
			var e *registry.Error
			if !errors.As(err, &e) || e.Status != status {
				t.Errorf("%d: error %v", i, err)
			}
		}
		passwords := 0
		for _, h := range seen.all {
			if h.Get("Authorization") != "" {
				passwords++
			}
		}
		// Each blob's answer once, one of them with a password that is a minute old and so
		// sent twice, and the mirror not for ever.
		if passwords < 1 || passwords > 6 || len(asked.all) < 10 || len(asked.all) > 80 {
			t.Errorf("%d: the password was sent %d times, the mirror asked %d times", status, passwords, len(asked.all))
		}
	}
}

// TestAMirrorsHiccupIsOneForAllConnections: many that fail in the same second do not use up
// the time that it may take.
func TestAMirrorsHiccupIsOneForAllConnections(t *testing.T) {
	t.Parallel()
	status := func(n int) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }))
	}
	clock := time.Unix(1_800_000_000, 0)
	r := mirroredRepo(t, status(http.StatusForbidden)+"/m:v1", registry.Options{
		Mirrors: []registry.Mirror{{URL: "http://" + status(http.StatusServiceUnavailable)}}, Warn: func(string) {}, Now: func() time.Time { return clock },
	})
	for range 100 {
		if _, err := r.OpenRange(t.Context(), descOf([]byte("content")), 1, 3); !registry.Retryable(err) {
			t.Fatal(err)
		}
	}
	clock = clock.Add(3 * time.Minute)
	if _, err := r.OpenRange(t.Context(), descOf([]byte("content")), 1, 3); err == nil || registry.Retryable(err) {
		t.Errorf("after the time for it: %v", err)
	}
}
