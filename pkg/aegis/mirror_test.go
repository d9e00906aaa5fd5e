// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"crypto/rand"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// mirrorRig is a signed model in a real registry, and distribution's pull-through
// cache of it, each behind a proxy that counts and spoils.
type mirrorRig struct {
	ref            registry.Reference
	dir            string
	key            *testkey.Key
	pushed         aegis.PushResult
	origin, mirror *servertest.Proxy
	// patience bounds the silence of a server: much, unless the test is about it.
	patience time.Duration

	mu       sync.Mutex
	warnings []string
}

func newMirrorRig(t *testing.T, seed uint64) *mirrorRig {
	t.Helper()
	host := servertest.SharedStack(t).Registry
	r := &mirrorRig{key: ecdsaKey(t), dir: modelDir(t, seed), origin: servertest.FaultProxy(t, host)}
	// Another run of the test would add signatures to a repository of the same name.
	stored := parse(t, host+"/"+name(t)+"-"+strings.ToLower(rand.Text())+":v1")
	r.pushed = mustPush(t, newClient(t), stored, r.dir, r.key)
	cache, _ := servertest.Distribution(t, "proxy:\n  remoteurl: http://"+host+"\n")
	r.mirror = servertest.FaultProxy(t, cache)
	r.ref = via(r.origin, stored)
	return r
}

func (r *mirrorRig) warn(msg string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, msg)
}

func (r *mirrorRig) warned(part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(r.warnings), func(w string) bool { return !strings.Contains(w, part) }))
}

// client asks the mirrors before the registry.
func (r *mirrorRig) client(t *testing.T, urls ...string) *aegis.Client {
	t.Helper()
	o := registry.Options{Sleep: noWait, AnswerTimeout: r.patience, Warn: r.warn, Retry: registry.RetryPolicy{Budget: 10 * time.Second}}
	for _, u := range urls {
		o.Mirrors = append(o.Mirrors, registry.Mirror{URL: u})
	}
	c, err := registry.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return aegis.New(c, aegis.Options{RetryBudget: 10 * time.Second, Concurrency: 1, Warn: r.warn})
}

func (r *mirrorRig) pull(t *testing.T, c *aegis.Client, ref registry.Reference) error {
	t.Helper()
	parent := t.TempDir()
	dst := filepath.Join(parent, "model")
	_, err := c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: dst}, requirement(r.key.Public(t)))
	if err == nil {
		sameModel(t, r.dir, dst)
		if _, err := aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dst}, requirement(r.key.Public(t))); err != nil {
			t.Error(err)
		}
		return nil
	}
	if _, statErr := os.Stat(dst); statErr == nil {
		t.Error("the destination's name is there after a failure")
	}
	return err
}

// asked counts requests for blobs.
func asked(p *servertest.Proxy, method string) int {
	n := 0
	for _, req := range p.Requests() {
		if strings.Contains(req.Path, "/blobs/sha256:") && req.Method == method {
			n++
		}
	}
	return n
}

func TestPullThroughCacheDelivers(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 61)
	if err := r.pull(t, r.client(t, r.mirror.URL), r.ref); err != nil {
		t.Fatal(err)
	}
	// The tag, the referrers and the classic tag: docs/scaling.md counts on it.
	if n := len(r.origin.Requests()); asked(r.origin, http.MethodGet) != 0 || n != 3 {
		t.Errorf("the registry was asked %d times: %v", n, r.origin.Requests())
	}
	// Three files, and the signature's blob.
	if n := asked(r.mirror, http.MethodGet); n != 4 {
		t.Errorf("%d blobs came from the mirror", n)
	}
	// The tag and the lists of signatures are the registry's, and the mirror is told
	// whose content is wanted.
	if n := r.mirror.Count("/manifests/v1") + r.mirror.Count("/referrers/"); n != 0 {
		t.Errorf("the mirror was asked %d times what it is not trusted with", n)
	}
	for _, req := range r.mirror.Requests() {
		if !strings.HasSuffix(req.Path, "?ns="+strings.ReplaceAll(r.origin.Addr, ":", "%3A")) {
			t.Errorf("%s does not name the registry", req.Path)
		}
	}
	if len(r.warnings) > 0 {
		t.Errorf("warnings: %q", r.warnings)
	}
}

// TestMirrorThatFails: whatever a mirror does, the model comes, whole and right, and
// one warning tells of it.
func TestMirrorThatFails(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }
	for name, c := range map[string]struct {
		fault servertest.Fault
		warn  string
	}{
		"wrong bytes":            {servertest.Fault{Replace: flip}, "not asked again in this run: it sent other bytes"},
		"wrong bytes, cut":       {servertest.Fault{Replace: flip, Cut: true, CutAfter: 40 << 10}, "may have sent other bytes"},
		"a wrong length":         {servertest.Fault{Replace: func(b []byte) []byte { return b[:len(b)-1] }}, "as it should be"},
		"a longer blob":          {servertest.Fault{Replace: func(b []byte) []byte { return append(bytes.Clone(b), 'x') }}, "as it should be"},
		"a short chunked body":   {servertest.Fault{Replace: func(b []byte) []byte { return b[:len(b)/2] }, Header: http.Header{"Content-Length": nil}}, "ends early"},
		"a body that is cut":     {servertest.Fault{Cut: true, CutAfter: 10 << 10}, "going on from the next source"},
		"no answer at all":       {servertest.Fault{Cut: true}, "going on from the next source"},
		"silence":                {servertest.Fault{Delay: time.Hour}, "no answer in time"},
		"silence after a while":  {servertest.Fault{Stall: true, CutAfter: 10 << 10}, "no answer in time"},
		"404":                    {servertest.Fault{Status: http.StatusNotFound}, "does not have sha256:"},
		"401":                    {servertest.Fault{Status: http.StatusUnauthorized}, "not authenticated"},
		"403":                    {servertest.Fault{Status: http.StatusForbidden}, "access denied"},
		"429":                    {servertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}}, "left alone for 1h0m0s"},
		"500":                    {servertest.Fault{Status: http.StatusInternalServerError}, "left alone for 10s"},
		"503":                    {servertest.Fault{Status: http.StatusServiceUnavailable}, "left alone for 10s"},
		"a redirect in a circle": {servertest.Fault{Status: http.StatusFound, Header: http.Header{"Location": {"/v2/round/"}}}, "going on from the next source"},
		"an unasked-for range":   {servertest.Fault{Status: http.StatusPartialContent, Header: http.Header{"Content-Range": {"bytes 5-9/10"}}, Body: "hello"}, "going on from the next source"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newMirrorRig(t, 62)
			if c.warn == "no answer in time" {
				r.patience = time.Second
			}
			if c.fault.Path = "/blobs/"; c.fault.CutAfter > 0 {
				c.fault.Path = blobOf(t, r.dir, "weights/part-1.bin").String()
			}
			r.mirror.Fail(c.fault)
			if err := r.pull(t, r.client(t, r.mirror.URL), r.ref); err != nil {
				t.Fatal(err)
			}
			if asked(r.mirror, http.MethodGet) == 0 || asked(r.origin, http.MethodGet) == 0 {
				t.Error("not both were asked")
			}
			if r.warned("mirror "+r.mirror.URL) == 0 || r.warned(c.warn) != 1 {
				t.Errorf("no warning has %q once: %q", c.warn, r.warnings)
			}
		})
	}
}

// TestMirrorRangeThatIsWrong resumes at a mirror that sends another range.
func TestMirrorRangeThatIsWrong(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 63)
	weights := blobOf(t, r.dir, "weights/part-1.bin").String()
	// Both break off, so that the next question is for a range.
	for _, p := range []*servertest.Proxy{r.origin, r.mirror} {
		p.Fail(servertest.Fault{Path: weights, Cut: true, CutAfter: 10 << 10, Times: 1})
	}
	r.mirror.Fail(servertest.Fault{Path: weights, Header: http.Header{"Content-Range": {"bytes 7-65535/65536"}}})
	if err := r.pull(t, r.client(t, r.mirror.URL), r.ref); err != nil {
		t.Fatal(err)
	}
}

// TestDeadMirrors: one port is closed, and one takes connections and says nothing.
func TestDeadMirrors(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 64)
	r.patience = time.Second
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hole.Close() })
	closed := servertest.FaultProxy(t, r.origin.Addr)
	closed.Down()
	c := r.client(t, closed.URL, "http://"+hole.Addr().String(), r.mirror.URL)
	if err := r.pull(t, c, r.ref); err != nil {
		t.Fatal(err)
	}
	if n := asked(r.origin, http.MethodGet); n != 0 {
		t.Errorf("the registry was asked for %d blobs, though a mirror has them", n)
	}
	// Each is left alone after one failure.
	if r.warned("mirror "+closed.URL) != 1 || r.warned("mirror http://"+hole.Addr().String()) != 1 || len(r.warnings) != 2 {
		t.Errorf("warnings: %q", r.warnings)
	}
}

// TestDrippingMirror is never silent, and would take hours.
func TestDrippingMirror(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 73)
	r.patience = time.Second
	weights := blobOf(t, r.dir, "weights/part-1.bin").String()
	content, err := os.ReadFile(filepath.Join(r.dir, "weights/part-1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	r.mirror.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, weights) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		for i := 0; i < len(content) && req.Context().Err() == nil; i += 10 {
			_, _ = w.Write(content[i : i+10])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
		return true
	})
	if err := r.pull(t, r.client(t, r.mirror.URL), r.ref); err != nil {
		t.Fatal(err)
	}
	if r.warned("it sends next to nothing") != 1 {
		t.Errorf("warnings: %q", r.warnings)
	}
}

// TestLyingMirrorIsAskedOnce: after one blob with wrong bytes nothing else is taken
// from it.
func TestLyingMirrorIsAskedOnce(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 65)
	weights := blobOf(t, r.dir, "weights/part-1.bin").String()
	r.mirror.Fail(servertest.Fault{Path: "/blobs/", Replace: func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }})
	if err := r.pull(t, r.client(t, r.mirror.URL), r.ref); err != nil {
		t.Fatal(err)
	}
	// The first was the signature's blob.
	if n := asked(r.mirror, http.MethodGet); n != 1 || r.mirror.Count(weights) != 0 {
		t.Errorf("%d blobs were asked for", n)
	}
	if r.warned("") != 1 {
		t.Errorf("warnings: %q", r.warnings)
	}
}

// TestNobodyHasTheRightBytes: all mirrors and the registry agree on wrong ones.
func TestNobodyHasTheRightBytes(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 66)
	second := servertest.FaultProxy(t, r.origin.Addr)
	weights := blobOf(t, r.dir, "weights/part-1.bin")
	for _, p := range []*servertest.Proxy{r.origin, r.mirror} {
		p.Fail(servertest.Fault{Path: weights.String(), Replace: func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }})
	}
	c := r.client(t, r.mirror.URL, second.URL)
	parent := t.TempDir()
	_, err := c.Pull(t.Context(), aegis.PullOptions{Ref: r.ref, Dir: filepath.Join(parent, "model")}, requirement(r.key.Public(t)))
	if e := wantErr[*model.ContentError](t, err); e.Want != weights {
		t.Errorf("another blob: %v", e)
	}
	nothingIn(t, parent)
	if n := r.warned("not asked again in this run"); n != 2 {
		t.Errorf("%d mirrors were told off: %q", n, r.warnings)
	}
}

// TestMirrorsTagIsNotAsked: at the mirror the tag is another model, signed as well.
func TestMirrorsTagIsNotAsked(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 67)
	other, _ := servertest.Distribution(t)
	r.mirror = servertest.FaultProxy(t, other)
	there := r.ref
	there.Registry = other
	mustPush(t, newClient(t), there, modelDir(t, 68), r.key)
	if err := r.pull(t, r.client(t, r.mirror.URL), r.ref); err != nil {
		t.Fatal(err)
	}
	if n := r.mirror.Count("/manifests/v1"); n != 0 {
		t.Errorf("the mirror was asked for the tag %d times", n)
	}
}

// TestUnsignedAtTheRegistry: what a mirror has under a tag's digest does not make up
// for it, and neither does a mirror's silence about a signature hide one.
func TestUnsignedAtTheRegistry(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 69)
	host := servertest.SharedStack(t).Registry
	unsigned := parse(t, host+"/"+r.ref.Repository+"-unsigned:v1")
	mustPush(t, newClient(t), unsigned, r.dir, nil)
	signed, _ := servertest.Distribution(t)
	at := unsigned
	at.Registry = signed
	mustPush(t, newClient(t), at, r.dir, r.key)
	c := r.client(t, "http://"+signed)
	wantErr[*verify.NoSignatureError](t, r.pull(t, c, via(r.origin, unsigned)))
	// By digest it is the same manifest, and the signature that the mirror has is
	// the key's.
	if err := r.pull(t, c, byDigest(via(r.origin, unsigned), r.pushed.Digest)); err != nil {
		t.Error(err)
	}
	// The other way round: the mirror has the model and no signature.
	empty, _ := servertest.Distribution(t)
	bare := via(r.origin, unsigned)
	bare.Registry = empty
	bare.Repository = r.ref.Repository
	mustPush(t, newClient(t), bare, r.dir, nil)
	if err := r.pull(t, r.client(t, "http://"+empty), byDigest(r.ref, r.pushed.Digest)); err != nil {
		t.Error(err)
	}
}

// TestRegistryThatIsGone: by digest a mirror is enough when it has a signature that
// counts. When it has none, nobody can tell.
func TestRegistryThatIsGone(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 70)
	site, _ := servertest.Distribution(t)
	at := r.ref
	at.Registry = site
	copied(t, aegis.CopyOptions{From: r.ref, To: at})
	bare, _ := servertest.Distribution(t)
	at.Registry = bare
	copied(t, aegis.CopyOptions{From: r.ref, To: at, NoReferrers: true})
	ref := byDigest(r.ref, r.pushed.Digest)
	r.origin.Reset()
	if err := r.pull(t, r.client(t, "http://"+site), ref); err != nil || len(r.origin.Requests()) != 0 {
		t.Errorf("%v, and the registry was asked %v", err, r.origin.Requests())
	}
	r.origin.Down()

	if err := r.pull(t, r.client(t, "http://"+site), ref); err != nil {
		t.Error(err)
	}
	wantRegistryErr(t, r.pull(t, r.client(t, "http://"+site), r.ref), registry.Unreachable) // a tag
	undecided := wantErr[*verify.UndecidedError](t, r.pull(t, r.client(t, "http://"+bare), ref))
	wantRegistryErr(t, undecided, registry.Unreachable)
	if said := "mirror http://" + bare + "/v2: no signature attached"; !strings.Contains(undecided.Error(), said) {
		t.Errorf("%v does not say what the mirror has", undecided)
	}
	other := requirement(ecdsaKey(t).Public(t))
	_, err := r.client(t, "http://"+site).Verify(t.Context(), ref, other)
	wantErr[*verify.UndecidedError](t, err)
	// The manifest is there, and the lists are refused.
	r.mirror = servertest.FaultProxy(t, site)
	r.mirror.Fail(servertest.Fault{Path: "/referrers/", Status: http.StatusForbidden})
	_, err = r.client(t, r.mirror.URL).Verify(t.Context(), ref, requirement(r.key.Public(t)))
	wantRegistryErr(t, wantErr[*verify.UndecidedError](t, err), registry.Unreachable)
	if said := "mirror " + r.mirror.URL + "/v2: access denied (403)"; !strings.Contains(err.Error(), said) {
		t.Errorf("%v does not say what the mirror said", err)
	}
}

// TestMirrorThatHiccups is the only source: it is asked again within the budget.
func TestMirrorThatHiccups(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 71)
	site, _ := servertest.Distribution(t)
	at := r.ref
	at.Registry = site
	copied(t, aegis.CopyOptions{From: r.ref, To: at})
	r.mirror = servertest.FaultProxy(t, site)
	r.origin.Down()
	for _, path := range []string{"/manifests/", blobOf(t, r.dir, "weights/part-1.bin").String()} {
		r.mirror.Fail(servertest.Fault{Path: path, Skip: 1, Status: http.StatusServiceUnavailable, Times: 2})
	}
	r.mirror.Fail(servertest.Fault{Path: blobOf(t, r.dir, "weights/part-1.bin").String(), Cut: true, CutAfter: 10 << 10, Times: 3})
	if err := r.pull(t, r.client(t, r.mirror.URL), byDigest(r.ref, r.pushed.Digest)); err != nil {
		t.Error(err)
	}
}

// TestMirrorThatHiccupsWhileTheRegistryRefuses: the registry's last word, or that of somebody
// in its place, does not end a pull that the mirror can finish.
func TestMirrorThatHiccupsWhileTheRegistryRefuses(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*mirrorRig){
		"401": func(r *mirrorRig) { r.origin.Fail(servertest.Fault{Status: http.StatusUnauthorized}) },
		"403": func(r *mirrorRig) { r.origin.Fail(servertest.Fault{Status: http.StatusForbidden}) },
		"404": func(r *mirrorRig) { r.origin.Fail(servertest.Fault{Status: http.StatusNotFound}) },
		"no such host": func(r *mirrorRig) {
			r.origin.Down()
			r.ref.Registry = "nowhere.invalid:5000"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newMirrorRig(t, 171)
			site, _ := servertest.Distribution(t)
			at := r.ref
			at.Registry = site
			copied(t, aegis.CopyOptions{From: r.ref, To: at})
			r.mirror = servertest.FaultProxy(t, site)
			refuse(r)
			weights := blobOf(t, r.dir, "weights/part-1.bin").String()
			busy := servertest.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}, Times: 2}
			for _, path := range []string{"/manifests/", blobOf(t, r.dir, "README.md").String()} {
				busy.Path = path
				r.mirror.Fail(busy)
			}
			r.mirror.Fail(servertest.Fault{Path: weights, Cut: true, CutAfter: 10 << 10, Times: 1})
			r.mirror.Fail(servertest.Fault{Path: weights, Skip: 1, Status: http.StatusServiceUnavailable, Times: 2})
			ref := byDigest(r.ref, r.pushed.Digest)
			if err := r.pull(t, r.client(t, r.mirror.URL), ref); err != nil {
				t.Error(err)
			}
			// What the mirror does not have either is not waited for.
			r.mirror.Fail(servertest.Fault{Status: http.StatusNotFound})
			if _, err := r.client(t, r.mirror.URL).Verify(t.Context(), ref, requirement(r.key.Public(t))); err == nil || registry.Retryable(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestKeyThatCannotAnswerIsAskedOnce, however many places have the signature: each would be
// waited for as long. Another key that a later place has a signature of still counts.
func TestKeyThatCannotAnswerIsAskedOnce(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 172)
	srv, keyName := servertest.SharedStack(t), name(t)
	srv.TransitKey(t, keyName, "ecdsa-p256")
	front := servertest.FaultProxy(t, srv.VaultAddr)
	asked := session(t, front.URL, "transit/verify/"+keyName, "update").Key(transit(keyName))
	var sites []string
	for range 2 {
		host, _ := servertest.Distribution(t)
		at := r.ref
		at.Registry = host
		mustPush(t, newClient(t), at, r.dir, signOnly(t, srv.VaultAddr, keyName))
		sites = append(sites, "http://"+host)
	}
	ref := byDigest(r.ref, r.pushed.Digest)
	front.Fail(servertest.Fault{Path: "/transit/verify/", Status: http.StatusForbidden})
	// At the registry there is a signature of the other key alone.
	if _, err := r.client(t, sites...).Verify(t.Context(), ref, requirement(asked, r.key.Public(t))); err != nil {
		t.Error(err)
	}
	if n := front.Count("/transit/verify/"); n != 1 {
		t.Errorf("Vault was asked %d times", n)
	}
	front.Reset()
	front.Fail(servertest.Fault{Path: "/transit/verify/", Status: http.StatusForbidden})
	_, err := r.client(t, sites...).Verify(t.Context(), ref, requirement(asked))
	wantErr[*vault.Error](t, wantErr[*verify.UndecidedError](t, err))
	if n := front.Count("/transit/verify/"); n != 2 {
		t.Errorf("Vault was asked %d times", n)
	}
	front.Reset()
	if _, err := r.client(t, sites...).Verify(t.Context(), ref, requirement(asked)); err != nil {
		t.Error(err)
	}
}

// TestCopyFromALyingMirror: the copy is the registry's bytes.
func TestCopyFromALyingMirror(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 72)
	r.mirror.Fail(servertest.Fault{Path: blobOf(t, r.dir, "weights/part-1.bin").String(), Replace: func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }})
	to, _ := servertest.Distribution(t)
	at := r.ref
	at.Registry = to
	plain, err := registry.NewClient(registry.Options{Sleep: noWait})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client(t, r.mirror.URL).Copy(t.Context(), aegis.CopyOptions{From: r.ref, To: at, Into: plain}); err != nil {
		t.Fatal(err)
	}
	if err := r.pull(t, newClient(t), at); err != nil {
		t.Error(err)
	}
	if r.warned("not asked again in this run") != 1 {
		t.Errorf("warnings: %q", r.warnings)
	}
}

// TestAnHonestMirrorIsNotBlamedForAnothersBytes: one breaks off, and the next lies about
// the rest. Nobody knows then whose bytes were wrong.
func TestAnHonestMirrorIsNotBlamedForAnothersBytes(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 163)
	weights := blobOf(t, r.dir, "weights/part-1.bin").String()
	honest, liar := servertest.FaultProxy(t, r.origin.Addr), servertest.FaultProxy(t, r.origin.Addr)
	honest.Fail(servertest.Fault{Path: weights, Cut: true, CutAfter: 40 << 10, Times: 1})
	liar.Fail(servertest.Fault{Path: weights, Replace: func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }})
	if err := r.pull(t, r.client(t, honest.URL, liar.URL), r.ref); err != nil {
		t.Fatal(err)
	}
	if n := liar.Count(weights); n == 0 {
		t.Error("the other mirror was not asked: the test tests nothing")
	}
	if said := strings.Join(r.warnings, "\n"); strings.Contains(said, "not asked again in this run") {
		t.Errorf("a mirror was blamed:\n%s", said)
	}
}
