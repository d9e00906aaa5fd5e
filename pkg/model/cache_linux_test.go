// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func TestUnpackDropsThePageCacheOnRequest(t *testing.T) {
	a := newArtifact().file("a", random(4<<20))
	v, m := a.decode(t)
	for _, drop := range []bool{false, true} {
		dst := filepath.Join(t.TempDir(), "m")
		if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{DropPageCache: drop}); err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		must(t, unix.Statfs(dst, &st))
		// What is on tmpfs is nowhere else.
		stays := !drop || st.Type == unix.TMPFS_MAGIC
		pages, cached := residentPages(t, filepath.Join(dst, "a"))
		if stays && cached < pages/2 || !stays && cached > pages/10 {
			t.Errorf("drop %v: %d of %d pages are cached", drop, cached, pages)
		}
		checkInstalled(t, dst, v, 1)
	}
}

// midway calls look once, when most of the blob was read.
type midway struct {
	io.Reader
	left int
	look func()
}

func (m *midway) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if m.left -= n; m.left <= 0 && m.look != nil {
		m.look()
		m.look = nil
	}
	return n, err
}

type fetchFunc func(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, error)

func (f fetchFunc) Fetch(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return f(ctx, d, offset)
}

// A model that is larger than the memory must not pass through all of it.
func TestUnpackDropsThePageCacheBehindTheWriteFront(t *testing.T) {
	const size = 6 * writeWindow
	a := newArtifact().file("a", random(size))
	v, m := a.decode(t)
	dir := t.TempDir()
	dst := filepath.Join(dir, "m")
	looked := false
	fetch := fetchFunc(func(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
		rc, err := a.fetcher().Fetch(ctx, d, offset)
		if err != nil {
			return nil, err
		}
		look := func() {
			looked = true
			staged, err := filepath.Glob(filepath.Join(dir, "*", blobsDir, "*"))
			if err != nil || len(staged) != 1 {
				t.Errorf("staged: %v, %v", staged, err)
				return
			}
			pages, cached := residentPages(t, staged[0])
			var st unix.Statfs_t
			must(t, unix.Statfs(dir, &st))
			if limit := 4 * writeWindow / os.Getpagesize(); st.Type != unix.TMPFS_MAGIC && cached > limit || pages < limit {
				t.Errorf("%d of %d pages are cached, not %d", cached, pages, limit)
			}
		}
		return struct {
			io.Reader
			io.Closer
		}{&midway{Reader: rc, left: size - 1<<20, look: look}, rc}, nil
	})
	if _, err := Unpack(t.Context(), fetch, v, m, dst, UnpackOptions{DropPageCache: true}); err != nil {
		t.Fatal(err)
	}
	if !looked {
		t.Error("nobody looked")
	}
	checkInstalled(t, dst, v, 1)
}

// residentPages counts the pages of a file and those in the page cache, which
// mapping it does not change.
func residentPages(t *testing.T, name string) (pages, cached int) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(b) //nolint:errcheck
	vec := make([]byte, (len(b)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, v := range vec {
		cached += int(v & 1)
	}
	return len(vec), cached
}
