// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

func openCache(t testing.TB, dir string) *nodecache.Cache {
	t.Helper()
	c, err := nodecache.Open(dir, nodecache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestCacheLeavesRoomForTheModel: on one volume with room for the model alone the
// cache is left, and what is in it is used.
func TestCacheLeavesRoomForTheModel(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", random(600<<10)).file("b", random(100<<10))
	v, m := a.decode(t)
	volume := mountTmpfs(t, "1m")
	cache := openCache(t, filepath.Join(volume, "cache"))
	var warnings []string
	o := UnpackOptions{Cache: cache, Warn: func(s string) { warnings = append(warnings, s) }}
	f := a.fetcher()
	if _, err := Unpack(t.Context(), f, v, m, filepath.Join(volume, "m"), o); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, filepath.Join(volume, "m"), v, 2)
	if len(f.calls) != 2 || len(warnings) != 1 || !strings.Contains(warnings[0], "no room") {
		t.Errorf("%d blobs were fetched, warnings %q", len(f.calls), warnings)
	}
	if left, err := os.ReadDir(filepath.Join(volume, "cache", "blobs", "sha256")); err != nil || len(left) > 0 {
		t.Errorf("the cache has %d blobs, %v", len(left), err)
	}
	// With links the two are one.
	must(t, os.RemoveAll(filepath.Join(volume, "m")))
	o.Link = true
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(volume, "m"), o); err != nil || len(warnings) != 1 {
		t.Errorf("%v, warnings %q", err, warnings)
	}
}

// TestCacheMakesRoomOnAFullVolume: what is unused goes where the cache is pruned at all,
// though it may hold more than its volume, and where that is enough.
func TestCacheMakesRoomOnAFullVolume(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	// Two models have a blob in common.
	common, first, second, small := random(100<<10), random(500<<10), random(600<<10), random(50<<10)
	a, b := newArtifact().file("w", first).file("c", common).file("s", small), newArtifact().file("w", second).file("c", common)
	av, am := a.decode(t)
	bv, bm := b.decode(t)
	for name, c := range map[string]struct {
		maxSize      int64
		beside, held bool // the model is on the cache's volume; its blob is being read
		filler       int  // what the volume holds besides
		evicted      bool
	}{
		"more than the volume":       {maxSize: 1 << 40, evicted: true},
		"the model on the volume":    {maxSize: 1 << 40, beside: true, evicted: true},
		"not pruned":                 {},
		"not pruned, with the model": {beside: true},
		"in use":                     {maxSize: 1 << 40, held: true},
		"not enough":                 {maxSize: 1 << 40, filler: 340 << 10},
	} {
		size := "1m"
		if c.beside {
			size = "1500k"
		}
		volume, elsewhere := mountTmpfs(t, size), t.TempDir()
		cache, err := nodecache.Open(filepath.Join(volume, "cache"), nodecache.Options{MaxSize: c.maxSize})
		must(t, err)
		_, err = Unpack(t.Context(), a.fetcher(), av, am, filepath.Join(elsewhere, "a"), UnpackOptions{Cache: cache})
		must(t, err, os.WriteFile(filepath.Join(volume, "filler"), make([]byte, c.filler), 0o644))
		if c.held {
			e, err := cache.Blob(t.Context(), digest.FromBytes(first), int64(len(first)), nil)
			must(t, err)
			defer e.Close()
		}
		dst := filepath.Join(elsewhere, "b")
		if c.beside {
			dst = filepath.Join(volume, "b")
		}
		var warnings []string
		f := b.fetcher()
		res, err := Unpack(t.Context(), f, bv, bm, dst, UnpackOptions{Cache: cache, Warn: func(s string) { warnings = append(warnings, s) }})
		must(t, err)
		checkInstalled(t, dst, bv, 2)
		if res.BytesReused != int64(len(common)) {
			t.Errorf("%s: %d bytes were reused", name, res.BytesReused)
		}
		if cache.Has(digest.FromBytes(first), int64(len(first))) == c.evicted {
			t.Errorf("%s: the blob that nobody wants is there: %v", name, !c.evicted)
		}
		if !c.evicted && !cache.Has(digest.FromBytes(small), int64(len(small))) {
			t.Errorf("%s: a blob went for nothing", name)
		}
		if cache.Has(digest.FromBytes(second), int64(len(second))) != c.evicted || (len(warnings) == 0) != c.evicted {
			t.Errorf("%s: warnings %q", name, warnings)
		}
		must(t, cache.Close())
	}
}

// TestCacheMakesRoomForTheModel on the one volume that both are on.
func TestCacheMakesRoomForTheModel(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a, b := newArtifact().file("w", random(700<<10)), newArtifact().file("w", random(800<<10))
	av, am := a.decode(t)
	bv, bm := b.decode(t)
	volume := mountTmpfs(t, "1m")
	cache, err := nodecache.Open(filepath.Join(volume, "cache"), nodecache.Options{MaxSize: 1 << 40})
	must(t, err)
	defer cache.Close()
	_, err = Unpack(t.Context(), a.fetcher(), av, am, filepath.Join(t.TempDir(), "a"), UnpackOptions{Cache: cache})
	must(t, err)
	_, err = Unpack(t.Context(), b.fetcher(), bv, bm, filepath.Join(volume, "b"), UnpackOptions{Cache: cache})
	must(t, err)
	checkInstalled(t, filepath.Join(volume, "b"), bv, 1)
}

// TestCacheLinksWhereACopyHasNoRoom: what is linked needs no space, and what cannot be
// linked does.
func TestCacheLinksWhereACopyHasNoRoom(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", random(600<<10)).file("b", random(100<<10))
	v, m := a.decode(t)
	volume := mountTmpfs(t, "1m")
	cache := openCache(t, filepath.Join(volume, "cache"))
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(volume, "m1"), UnpackOptions{Cache: cache, Link: true}); err != nil {
		t.Fatal(err)
	}
	refused := func(o UnpackOptions) {
		t.Helper()
		f := a.fetcher()
		_, err := Unpack(t.Context(), f, v, m, filepath.Join(volume, "m"), o)
		var space *SpaceError
		if !errors.As(err, &space) || space.Need < 600<<10 || len(f.calls) > 0 {
			t.Errorf("error %v, %d fetched, want a SpaceError", err, len(f.calls))
		}
		wantOnly(t, volume, "cache", "m1")
	}
	refused(UnpackOptions{Cache: cache})
	// A file that others can write to is not linked.
	blob := cache.Path(digest.FromBytes(random(600 << 10)))
	must(t, os.Chmod(blob, 0o666))
	refused(UnpackOptions{Cache: cache, Link: true})
	must(t, os.Chmod(blob, 0o644))
	f := a.fetcher()
	if _, err := Unpack(t.Context(), f, v, m, filepath.Join(volume, "m2"), UnpackOptions{Cache: cache, Link: true}); err != nil || len(f.calls) > 0 {
		t.Fatalf("error %v, %d fetched", err, len(f.calls))
	}
	checkInstalled(t, filepath.Join(volume, "m2"), v, 2)
}

// TestCacheStaysLinkedWhenTheModelIsReplaced: a file that came by a link has two names,
// and stays one file.
func TestCacheStaysLinkedWhenTheModelIsReplaced(t *testing.T) {
	big := random(3<<20 + 5)
	dst, cache := filepath.Join(t.TempDir(), "m"), openCache(t, t.TempDir())
	o := UnpackOptions{Cache: cache, Link: true, Replace: true}
	for _, version := range []string{"1", "2"} {
		a := newArtifact().file("w.bin", big).file("version", []byte(version))
		v, m := a.decode(t)
		f := a.fetcher()
		res, err := Unpack(t.Context(), f, v, m, dst, o)
		must(t, err)
		checkInstalled(t, dst, v, 2)
		if version == "2" && (f.bytes != 1 || res.BytesReused != int64(len(big))) {
			t.Errorf("%d bytes were fetched, %+v", f.bytes, res)
		}
		sameFile(t, filepath.Join(dst, "w.bin"), cache.Path(digest.FromBytes(big)), true)
	}
	// Wrong bytes in the cache are not linked.
	writeFile(t, cache.Path(digest.FromBytes(big)), string(random(3<<20+4))+"x")
	a := newArtifact().file("w.bin", big).file("version", []byte("3"))
	v, m := a.decode(t)
	_, err := Unpack(t.Context(), a.fetcher(), v, m, dst, o)
	must(t, err)
	checkInstalled(t, dst, v, 2)
}

// sameFile fails unless a and b are the same file, or are not.
func sameFile(t *testing.T, a, b string, want bool) {
	t.Helper()
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	must(t, errA, errB)
	if os.SameFile(infoA, infoB) != want {
		t.Errorf("%s and %s are the same file: %v", a, b, !want)
	}
}

// TestCacheKeepsModesApart: a file's mode is that of all its names, so what is to be
// executable is not linked.
func TestCacheKeepsModesApart(t *testing.T) {
	content := random(10 << 10)
	a := newArtifact().file("plain", content)
	b := newArtifact().layer(modelspec.MediaTypeModelWeightRaw, content, map[string]string{
		ocispec.AnnotationTitle: "run", modelspec.AnnotationFileMetadata: `{"name":"run","mode":493,"uid":0,"gid":0,"size":10240,"mtime":"2026-01-01T00:00:00Z","typeflag":0}`,
	})
	dir, cache := t.TempDir(), openCache(t, t.TempDir())
	for name, art := range map[string]*artifact{"a": a, "b": b} {
		v, m := art.decode(t)
		if _, err := Unpack(t.Context(), art.fetcher(), v, m, filepath.Join(dir, name), UnpackOptions{Cache: cache, Link: true}); err != nil {
			t.Fatal(err)
		}
	}
	for path, executable := range map[string]bool{"a/plain": false, "b/run": true} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || (info.Mode().Perm()&0o111 != 0) != executable || (info.Sys().(*syscall.Stat_t).Nlink == 1) != executable {
			t.Errorf("%s: %v, %d names, %v", path, info.Mode(), info.Sys().(*syscall.Stat_t).Nlink, err)
		}
	}
}

// hearing adds up what a progress is told.
type hearing struct {
	mu    sync.Mutex
	sum   map[string]int64
	back  bool
	sizes map[string]int64
}

func (h *hearing) Start(name string, size int64) { h.mu.Lock(); h.sizes[name] = size; h.mu.Unlock() }
func (h *hearing) Done(string)                   {}
func (h *hearing) Add(name string, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sum[name] += n
	h.back = h.back || n < 0
}

// TestCacheShowsEachByteOnce: copying out of the cache is no progress of its own.
func TestCacheShowsEachByteOnce(t *testing.T) {
	a := newArtifact().file("a", random(3<<20)).file("b", random(10))
	v, m := a.decode(t)
	cache := openCache(t, t.TempDir())
	for _, round := range []string{"filled", "taken"} {
		h := &hearing{sum: map[string]int64{}, sizes: map[string]int64{}}
		o := UnpackOptions{Cache: cache, Progress: h, DropPageCache: true}
		got, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(t.TempDir(), "m"), o)
		if err != nil {
			t.Fatal(err)
		}
		if h.back || h.sum["a"] != 3<<20 || h.sum["b"] != 10 {
			t.Errorf("%s: %v were shown of %v", round, h.sum, h.sizes)
		}
		if fetched := got.BytesFetched; (fetched == 3<<20+10) != (round == "filled") || got.BytesReused+fetched != 3<<20+10 {
			t.Errorf("%s: %d fetched, %d reused", round, fetched, got.BytesReused)
		}
	}
}

// TestCacheOnAFullVolume: somebody fills it after we looked. The blob is fetched past
// the cache, and nothing of it stays there.
func TestCacheOnAFullVolume(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a := newArtifact().file("a", random(600<<10))
	v, m := a.decode(t)
	volume := mountTmpfs(t, "1m")
	cache := openCache(t, filepath.Join(volume, "cache"))
	f := a.fetcher()
	f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		if len(f.calls) == 1 {
			// Somebody else takes all the room while the blob comes.
			if err := os.WriteFile(filepath.Join(volume, "filler"), make([]byte, 2<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the volume was not filled: %v", err)
			}
		}
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	var warnings []string
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Cache: cache, Warn: func(s string) { warnings = append(warnings, s) }}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, dst, v, 1)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "fetching a past the cache: its volume is full") {
		t.Errorf("warnings %q", warnings)
	}
	for _, part := range []string{"partial", "blobs/sha256"} {
		wantOnly(t, filepath.Join(volume, "cache", part))
	}
}

// breakOpen has reads of a file that this process has open fail, or with O_RDONLY writes,
// as on a broken disk.
func breakOpen(t *testing.T, name string, flag int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.Contains(path, name) {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		must(t, err)
		other, err := unix.Open(path, flag|unix.O_CLOEXEC, 0)
		must(t, err, unix.Dup3(other, fd, unix.O_CLOEXEC), unix.Close(other))
		return
	}
	t.Errorf("%s is not open", name)
}

// progressFunc is called for each part that is read, or comes.
type progressFunc func()

func (progressFunc) Start(string, int64) {}
func (f progressFunc) Add(string, int64) { f() }
func (progressFunc) Done(string)         {}

// TestCacheThatCannotBeRead: a blob that the disk does not give back is fetched anew.
func TestCacheThatCannotBeRead(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	content := random(3 << 20)
	a := newArtifact().file("a", content)
	v, m := a.decode(t)
	for _, link := range []bool{false, true} {
		volume := mountTmpfs(t, "16m") // which does not clone
		cache := openCache(t, filepath.Join(volume, "cache"))
		o := UnpackOptions{Cache: cache, Link: link}
		_, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(volume, "m1"), o)
		must(t, err)
		blob := cache.Path(digest.FromBytes(content))
		before, err := os.Stat(blob)
		must(t, err)
		var warnings []string
		o.Warn = func(s string) { warnings = append(warnings, s) }
		var once sync.Once
		o.Progress = progressFunc(func() { once.Do(func() { breakOpen(t, blob, unix.O_WRONLY) }) })
		f := a.fetcher()
		_, err = Unpack(t.Context(), f, v, m, filepath.Join(volume, "m2"), o)
		must(t, err)
		checkInstalled(t, filepath.Join(volume, "m2"), v, 1)
		if len(f.calls) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0], "cannot be read") {
			t.Errorf("link %v: %d fetched, warnings %q", link, len(f.calls), warnings)
		}
		if now, err := os.Stat(blob); err != nil || os.SameFile(before, now) {
			t.Errorf("link %v: the cache has the same file, %v", link, err)
		}
	}
}

// TestReplaceFetchesWhatCannotBeRead: the same for an old file.
func TestReplaceFetchesWhatCannotBeRead(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	for _, link := range []bool{false, true} {
		big, dst := random(3<<20), filepath.Join(mountTmpfs(t, "16m"), "m")
		install(t, newArtifact().file("w.bin", big).file("version", []byte("1")), dst)
		a := newArtifact().file("w.bin", big).file("version", []byte("2"))
		v, m := a.decode(t)
		f := a.fetcher()
		var once sync.Once
		o := UnpackOptions{Replace: true, Link: link, Concurrency: 1, Progress: progressFunc(func() {
			once.Do(func() { breakOpen(t, filepath.Join(dst, "w.bin"), unix.O_WRONLY) })
		})}
		var warnings []string
		o.Warn = func(s string) { warnings = append(warnings, s) }
		before, err := os.Stat(filepath.Join(dst, "w.bin"))
		must(t, err)
		_, err = Unpack(t.Context(), f, v, m, dst, o)
		must(t, err)
		checkInstalled(t, dst, v, 2)
		after, err := os.Stat(filepath.Join(dst, "w.bin"))
		must(t, err)
		// What could not be read to be linked is opened anew to be copied.
		if os.SameFile(before, after) {
			t.Errorf("link %v: the old file is there", link)
		}
		if !link && (f.bytes != int64(len(big))+1 || len(warnings) != 1 || !strings.Contains(warnings[0], "cannot be read")) {
			t.Errorf("%d bytes fetched, warnings %q", f.bytes, warnings)
		}
	}
}

// TestCacheThatCannotBeWritten: what its disk does not take is fetched past it.
func TestCacheThatCannotBeWritten(t *testing.T) {
	a := newArtifact().file("a", random(3<<20))
	v, m := a.decode(t)
	dir := t.TempDir()
	cache, dst := openCache(t, dir), filepath.Join(t.TempDir(), "m")
	f := a.fetcher()
	f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		if len(f.calls) == 1 {
			breakOpen(t, filepath.Join(dir, "partial"), unix.O_RDONLY)
		}
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	var warnings []string
	_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Cache: cache, Warn: func(s string) { warnings = append(warnings, s) }})
	must(t, err)
	checkInstalled(t, dst, v, 1)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "fetching a past the cache: ") {
		t.Errorf("warnings %q", warnings)
	}
	wantOnly(t, filepath.Join(dir, "blobs", "sha256"))
}

// TestCacheThatIsGone: its directory is removed by somebody.
func TestCacheThatIsGone(t *testing.T) {
	a := newArtifact().file("a", random(10))
	v, m := a.decode(t)
	dir, dst := filepath.Join(t.TempDir(), "cache"), filepath.Join(t.TempDir(), "m")
	cache := openCache(t, dir)
	must(t, os.RemoveAll(dir))
	var warnings []string
	_, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Cache: cache, Warn: func(s string) { warnings = append(warnings, s) }})
	must(t, err)
	checkInstalled(t, dst, v, 1)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "fetching past the cache") {
		t.Errorf("warnings %q", warnings)
	}
}
