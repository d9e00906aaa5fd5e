// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package aegis_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/digestcache"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// cached is a client with a digest cache, whose clock is so far ahead that files
// which were just written are old enough to be remembered.
type cached struct {
	*aegis.Client
	cache *digestcache.Cache
	dir   string

	mu       sync.Mutex
	warnings []string
}

func newCached(t testing.TB) *cached {
	t.Helper()
	c := &cached{dir: filepath.Join(t.TempDir(), "digests")}
	var err error
	later := func() time.Time { return time.Now().Add(time.Minute) }
	if c.cache, err = digestcache.Open(c.dir, later); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cache.Close() })
	c.Client = newClient(t, func(o *aegis.Options) {
		o.Now = later
		o.Warn = func(s string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.warnings = append(c.warnings, s)
		}
	})
	return c
}

func (c *cached) push(t testing.TB, ref registry.Reference, dir string, signing *aegis.Signing, trust bool) aegis.PushResult {
	t.Helper()
	got, err := c.Push(t.Context(), aegis.PushOptions{Ref: ref, Paths: []string{dir}, Signing: signing, Cache: c.cache, TrustCache: trust})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (c *cached) key(t testing.TB, file string) digestcache.Key {
	t.Helper()
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := digestcache.KeyOf(file, info)
	if !ok {
		t.Fatalf("%s has no key", file)
	}
	return key
}

// remember makes the cache say d of a file.
func (c *cached) remember(t testing.TB, file string, d digest.Digest, repositories ...string) {
	t.Helper()
	ok, err := c.cache.Store(c.cache.Again(file, c.key(t, file)), digestcache.Entry{Digest: d, Repositories: repositories})
	if err != nil || !ok {
		t.Fatalf("stored %v, %v", ok, err)
	}
}

func (c *cached) knows(t testing.TB, file string) bool {
	t.Helper()
	_, ok, err := c.cache.Lookup(c.key(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// methods counts the requests for blobs by method.
func methods(p *servertest.Proxy) map[string]int {
	count := map[string]int{}
	for _, r := range p.Requests() {
		if strings.Contains(r.Path, "/blobs/") {
			count[r.Method]++
		}
	}
	return count
}

func TestPushOfUnchangedFilesIsAHeadEach(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		c, ref, dir, proxy := newCached(t), refTo(t, host, "v1"), largeModel(t, 20), servertest.FaultProxy(t, host)
		first := c.push(t, via(proxy, ref), dir, nil, false)
		if !c.knows(t, filepath.Join(dir, "model.bin")) {
			t.Fatal("nothing is remembered")
		}
		proxy.Reset()
		second := c.push(t, via(proxy, ref), dir, nil, false)
		if second.Digest != first.Digest || second.BytesUploaded != 0 {
			t.Errorf("%+v, want the digest %s", second, first.Digest)
		}
		// The model, the small file, and the config.
		if m := methods(proxy); len(m) != 1 || m[http.MethodHead] != 3 {
			t.Errorf("requests %v", m)
		}
		if len(c.warnings) > 0 {
			t.Errorf("warnings %q", c.warnings)
		}
	})
}

// Who can write to the cache can have a push name another blob; a signature only
// where that was asked for.
func TestAPoisonedCacheIsNotSigned(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	ref, dir, key := refTo(t, host, "v1"), largeModel(t, 21), ecdsaKey(t)
	other := largeModel(t, 22) // of the same size, and in the registry
	mustPush(t, newClient(t), ref, other, nil)
	file, evil := filepath.Join(dir, "model.bin"), blobOf(t, other, "model.bin")
	honest, poisoned := digestOf(t, dir), digestOf(t, other)

	for _, tc := range []struct {
		name    string
		signing *aegis.Signing
		trust   bool
		want    digest.Digest
	}{
		{"signed", &aegis.Signing{Signer: key}, false, honest},
		{"signed with trust", &aegis.Signing{Signer: key}, true, poisoned},
		{"unsigned", nil, false, poisoned},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCached(t)
			c.remember(t, file, evil, ref.Name())
			if got := c.push(t, ref, dir, tc.signing, tc.trust); got.Digest != tc.want {
				t.Errorf("pushed %s, want %s", got.Digest, tc.want)
			}
		})
	}
	// What was read replaces what was remembered.
	c := newCached(t)
	c.remember(t, file, evil, ref.Name())
	c.push(t, ref, dir, &aegis.Signing{Signer: key}, false)
	if e, ok, err := c.cache.Lookup(c.key(t, file)); err != nil || !ok || e.Digest != blobOf(t, dir, "model.bin") {
		t.Errorf("remembered is %+v, %v, %v", e, ok, err)
	}
}

// A signed push of unchanged files reads them and sends nothing.
func TestSignedPushOfUnchangedFilesSendsNothing(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		c, ref, dir, proxy := newCached(t), refTo(t, host, "v1"), largeModel(t, 23), servertest.FaultProxy(t, host)
		first := c.push(t, ref, dir, nil, false)
		got := c.push(t, via(proxy, ref), dir, &aegis.Signing{Signer: ecdsaKey(t)}, false)
		if got.Digest != first.Digest || got.BytesUploaded != 0 || proxy.Received() > 100<<10 {
			t.Errorf("%+v, %d bytes were sent", got, proxy.Received())
		}
	})
}

func TestAChangedFileIsReadAgain(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(file string) error{
		"other content, the old time": func(f string) error {
			info, err := os.Stat(f)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(f, weights(25, largeFile), 0o644), os.Chtimes(f, info.ModTime(), info.ModTime()))
		},
		"replaced": func(f string) error {
			return errors.Join(os.WriteFile(f+".new", weights(25, largeFile), 0o644), os.Rename(f+".new", f))
		},
	} {
		t.Run(name, func(t *testing.T) {
			host, _ := servertest.Distribution(t)
			c, ref, dir := newCached(t), refTo(t, host, "v1"), largeModel(t, 24)
			file := filepath.Join(dir, "model.bin")
			c.push(t, ref, dir, nil, false)
			time.Sleep(20 * time.Millisecond) // a tick of the kernel's clock
			if err := change(file); err != nil {
				t.Fatal(err)
			}
			got := c.push(t, ref, dir, nil, false)
			if got.Digest != digestOf(t, dir) || got.BytesUploaded < largeFile {
				t.Errorf("%+v, want the digest of the new content", got)
			}
		})
	}
}

func TestYoungFilesAreNotRemembered(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	c, dir := newCached(t), writeModel(t, map[string]string{"model.bin": string(weights(26, 1<<20))})
	cache, err := digestcache.Open(c.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	_, err = newClient(t).Push(t.Context(), aegis.PushOptions{Ref: refTo(t, host, "v1"), Paths: []string{dir}, Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	if c.knows(t, filepath.Join(dir, "model.bin")) {
		t.Error("a file that was written just now is remembered")
	}
}

func TestAnEntryOthersCouldHaveWrittenIsNotUsed(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	c, ref, dir := newCached(t), refTo(t, host, "v1"), largeModel(t, 27)
	other := largeModel(t, 28)
	mustPush(t, newClient(t), ref, other, nil)
	c.remember(t, filepath.Join(dir, "model.bin"), blobOf(t, other, "model.bin"), ref.Name())
	entries, err := filepath.Glob(filepath.Join(c.dir, "*"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%q, %v", entries, err)
	}
	if err := os.Chmod(entries[0], 0o666); err != nil {
		t.Fatal(err)
	}
	if got := c.push(t, ref, dir, nil, false); got.Digest != digestOf(t, dir) {
		t.Errorf("pushed %s", got.Digest)
	}
	if len(c.warnings) != 1 || !strings.Contains(c.warnings[0], "others can write to it") {
		t.Errorf("warnings %q", c.warnings)
	}
}

// What another repository of the registry was given is mounted from there.
func TestPushMountsFromTheRepositoryOfTheLastPush(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		proxy := servertest.FaultProxy(t, host)
		c, ref, dir := newCached(t), via(proxy, refTo(t, host, "v1")), largeModel(t, 29)
		first := c.push(t, ref, dir, nil, false)
		proxy.Reset()
		to := ref
		to.Repository += "-prod"
		got := c.push(t, to, dir, nil, false)
		if got.Digest != first.Digest || proxy.Received() > 100<<10 {
			t.Errorf("%+v, %d bytes were sent", got, proxy.Received())
		}
		if proxy.Count("from="+strings.ReplaceAll(ref.Repository, "/", "%2F")) != 1 {
			t.Errorf("no mount was asked for: %v", proxy.Requests())
		}
		pulled(t, to, dir)
	})
}

func TestPushMountsFromARepositoryThatIsNamed(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		proxy, ref, dir := servertest.FaultProxy(t, host), refTo(t, host, "v1"), largeModel(t, 30)
		mustPush(t, newClient(t), ref, dir, nil)
		to := via(proxy, ref)
		to.Repository += "-prod"
		got, err := newClient(t).Push(t.Context(), aegis.PushOptions{
			Ref: to, Paths: []string{dir}, MountFrom: []string{"none/here", ref.Repository}, Signing: &aegis.Signing{Signer: ecdsaKey(t)},
		})
		if err != nil || proxy.Received() > 100<<10 {
			t.Errorf("%+v, %v, %d bytes were sent", got, err, proxy.Received())
		}
		pulled(t, to, dir)
	})
	_, err := newClient(t).Push(t.Context(), aegis.PushOptions{Ref: parse(t, "example.com/a:v1"), Paths: []string{t.TempDir()}, MountFrom: []string{"Not/a repository"}})
	wantErr[*aegis.OptionError](t, err)
}

// A registry may answer a mount with a session of its own: it is used, not left.
func TestPushGoesOnWithTheSessionInPlaceOfAMount(t *testing.T) {
	t.Parallel()
	host, storage := servertest.Distribution(t)
	proxy := servertest.FaultProxy(t, host)
	c, ref, dir := newCached(t), via(proxy, refTo(t, host, "v1")), largeModel(t, 31)
	file := filepath.Join(dir, "model.bin")
	c.remember(t, file, blobOf(t, dir, "model.bin"), ref.Registry+"/gone/first", "elsewhere.example/gone/second", ref.Registry+"/gone/third")
	got := c.push(t, ref, dir, nil, false)
	if got.BytesUploaded < largeFile {
		t.Errorf("%+v", got)
	}
	// Two for mounts that fail, of which the second one is the model's; one each
	// for the small file and the config.
	if m := methods(proxy); m[http.MethodPost] != 4 || m[http.MethodPatch] != 1 || m[http.MethodDelete] != 1 {
		t.Errorf("requests %v", m)
	}
	if left := uploads(t, storage); len(left) > 0 {
		t.Errorf("sessions are left: %q", left)
	}
	pulled(t, ref, dir)
}
