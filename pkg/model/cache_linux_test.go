// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

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
