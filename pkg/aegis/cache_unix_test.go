// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package aegis_test

import (
	"bytes"
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
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// cached pulls r's model through the cache in dir, as a process of its own would,
// and returns where it is.
func (r *mirrorRig) cached(t testing.TB, dir string, mods ...func(*model.UnpackOptions)) (string, aegis.PullResult, error) {
	t.Helper()
	cache, err := nodecache.Open(dir, nodecache.Options{Stall: time.Minute})
	if err != nil {
		return "", aegis.PullResult{}, err
	}
	defer cache.Close()
	o := aegis.PullOptions{Ref: r.ref, Dir: filepath.Join(t.TempDir(), "model"), Unpack: model.UnpackOptions{Cache: cache, Warn: r.warn}}
	for _, m := range mods {
		m(&o.Unpack)
	}
	c, err := registry.NewClient(registry.Options{Sleep: noWait, Retry: registry.RetryPolicy{Budget: time.Second}})
	if err != nil {
		return "", aegis.PullResult{}, err
	}
	got, err := aegis.New(c, aegis.Options{RetryBudget: 300 * time.Millisecond}).Pull(t.Context(), o, requirement(r.key.Public(t)))
	return o.Dir, got, err
}

func (r *mirrorRig) mustCached(t testing.TB, dir string, mods ...func(*model.UnpackOptions)) (string, aegis.PullResult) {
	t.Helper()
	dst, got, err := r.cached(t, dir, mods...)
	if err != nil {
		t.Fatal(err)
	}
	sameModel(t, r.dir, dst)
	return dst, got
}

// fetchedFiles counts how often each file of the model came from the registry.
func (r *mirrorRig) fetchedFiles(t testing.TB) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, file := range []string{"config.json", "README.md", "weights/part-1.bin"} {
		counts[file] = 0
		for _, req := range r.origin.Requests() {
			if req.Method == http.MethodGet && strings.Contains(req.Path, blobOf(t, r.dir, file).String()) {
				counts[file]++
			}
		}
	}
	return counts
}

// TestTwentyPullsThroughOneCacheFetchOnce, at once and one after another.
func TestTwentyPullsThroughOneCacheFetchOnce(t *testing.T) {
	t.Parallel()
	r, dir := newMirrorRig(t, 81), filepath.Join(t.TempDir(), "cache")
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = r.cached(t, dir) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	_, got := r.mustCached(t, dir)
	if got.BytesFetched != 0 || got.BytesReused < 64<<10 {
		t.Errorf("%d bytes were fetched, %d reused", got.BytesFetched, got.BytesReused)
	}
	for file, n := range r.fetchedFiles(t) {
		if n != 1 {
			t.Errorf("%s was fetched %d times", file, n)
		}
	}
	if len(r.warnings) > 0 {
		t.Errorf("warnings: %q", r.warnings)
	}
	// The signature is judged each time, and not kept.
	if n := r.origin.Count("/referrers/"); n != 21 {
		t.Errorf("the signatures were listed %d times", n)
	}
}

// TestSpoiltCacheIsRefilled: what somebody changed in the cache is found on its way
// out, and never gets a name of the model.
func TestSpoiltCacheIsRefilled(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]bool{"copied": false, "linked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, dir := newMirrorRig(t, 82), t.TempDir()
			withLink := func(o *model.UnpackOptions) { o.Link = link }
			r.mustCached(t, dir)
			blob := blobOf(t, r.dir, "weights/part-1.bin")
			path := filepath.Join(dir, "blobs", "sha256", blob.Encoded())
			if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 64<<10), 0o644); err != nil {
				t.Fatal(err)
			}
			r.mustCached(t, dir, withLink)
			if n := r.fetchedFiles(t)["weights/part-1.bin"]; n != 2 || r.warned("the cache holds wrong bytes for "+blob.String()) != 1 {
				t.Errorf("fetched %d times, warnings %q", n, r.warnings)
			}
			if now, err := os.ReadFile(path); err != nil || digest.FromBytes(now) != blob {
				t.Errorf("the cache holds %d bytes, %v", len(now), err)
			}
		})
	}
}

// TestCacheLinksOnlyWhenAsked to.
func TestCacheLinksOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	r, dir := newMirrorRig(t, 83), t.TempDir()
	blob := filepath.Join(dir, "blobs", "sha256", blobOf(t, r.dir, "weights/part-1.bin").Encoded())
	same := func(dst string) bool {
		a, errA := os.Stat(blob)
		b, errB := os.Stat(filepath.Join(dst, "weights", "part-1.bin"))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		return os.SameFile(a, b)
	}
	linked, _ := r.mustCached(t, dir, func(o *model.UnpackOptions) { o.Link = true })
	copied, got := r.mustCached(t, dir)
	if !same(linked) || same(copied) || got.BytesFetched != 0 {
		t.Errorf("linked: %v, copied: %v, %d bytes fetched", same(linked), !same(copied), got.BytesFetched)
	}
	if _, err := aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: linked}, requirement(r.key.Public(t))); err != nil {
		t.Error(err)
	}
	// What others may write to is not shared with them.
	if err := os.Chmod(blob, 0o666); err != nil {
		t.Fatal(err)
	}
	if again, _ := r.mustCached(t, dir, func(o *model.UnpackOptions) { o.Link = true }); same(again) {
		t.Error("a file that everybody may write to was linked")
	}
}

// TestRefusedBlobIsNotCached, and leaves nothing.
func TestRefusedBlobIsNotCached(t *testing.T) {
	t.Parallel()
	r, dir := newMirrorRig(t, 84), t.TempDir()
	blob := blobOf(t, r.dir, "weights/part-1.bin")
	r.origin.Fail(servertest.Fault{Path: blob.String(), Replace: func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }})
	dst, _, err := r.cached(t, dir)
	if e := wantErr[*model.ContentError](t, err); e.Want != blob {
		t.Errorf("another blob: %v", e)
	}
	nothingIn(t, filepath.Dir(dst))
	nothingIn(t, filepath.Join(dir, "partial"))
	if _, err := os.Stat(filepath.Join(dir, "blobs", "sha256", blob.Encoded())); !os.IsNotExist(err) {
		t.Errorf("the refused blob is in the cache: %v", err)
	}
}

// TestCacheResumes what a pull that lost its registry has left.
func TestCacheResumes(t *testing.T) {
	t.Parallel()
	r, dir := newMirrorRig(t, 85), t.TempDir()
	blob := blobOf(t, r.dir, "weights/part-1.bin").String()
	r.origin.Fail(servertest.Fault{Path: blob, Cut: true, CutAfter: 40 << 10, Times: 1})
	r.origin.Fail(servertest.Fault{Path: blob, Status: http.StatusServiceUnavailable})
	_, _, err := r.cached(t, dir)
	wantRegistryErr(t, err, registry.Unavailable)
	r.origin.Reset()
	_, got := r.mustCached(t, dir)
	if n := r.origin.Count(blob); n != 1 || got.BytesFetched > 30<<10 {
		t.Errorf("%d requests, %d bytes fetched", n, got.BytesFetched)
	}
	for _, req := range r.origin.Requests() {
		if strings.Contains(req.Path, blob) && !strings.HasPrefix(req.Header.Get("Range"), "bytes=") {
			t.Errorf("it was fetched from the start")
		}
	}
}

// TestCacheThatCannotBeWritten is read where it has something, and passed by.
func TestCacheThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	r, dir := newMirrorRig(t, 86), t.TempDir()
	r.mustCached(t, dir)
	missing := filepath.Join(dir, "blobs", "sha256", blobOf(t, r.dir, "README.md").Encoded())
	if err := os.Remove(missing); err != nil {
		t.Fatal(err)
	}
	// Without the directories nothing can be locked or written, whoever we are.
	for _, part := range []string{"locks", "partial"} {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := nodecache.Open(dir, nodecache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	for _, part := range []string{"locks", "partial"} {
		if err := os.Remove(filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
	before := r.fetchedFiles(t)
	r.mustCached(t, t.TempDir(), func(o *model.UnpackOptions) { o.Cache = cache })
	after := r.fetchedFiles(t)
	if after["README.md"] != before["README.md"]+1 || after["weights/part-1.bin"] != before["weights/part-1.bin"] {
		t.Errorf("fetched %v, before %v", after, before)
	}
	if r.warned("past the cache") != 1 {
		t.Errorf("warnings: %q", r.warnings)
	}
}
