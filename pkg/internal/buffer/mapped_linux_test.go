// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// With the race detector all is in the heap.
//go:build !race

package buffer

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapped is how much of b is mapped, and how much of that in large pages by advice, in
// bytes (proc_pid_smaps(5), VmFlags).
func mapped(t *testing.T, b []byte) (all, advised int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	end := begin + uintptr(len(b))
	var from, to uintptr
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok {
			part := int(max(begin, min(to, end)) - max(begin, min(from, end))) //nolint:gosec // of a slice
			all += part
			if slices.Contains(strings.Fields(value), "hg") {
				advised += part
			}
			continue
		}
		var x, y uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &x, &y); n == 2 {
			from, to = x, y
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all, advised
}

// takesAdvice reports whether this kernel does, and its pages are such that it is given.
func takesAdvice(t *testing.T) bool {
	t.Helper()
	m := mapping(t, 2*largePage)
	err := unix.Madvise(m, unix.MADV_HUGEPAGE)
	_, advised := mapped(t, m)
	return err == nil && advised == len(m) && os.Getpagesize() == 4<<10
}

// mapping is memory of the test's own that begins with a large page.
func mapping(t *testing.T, size int) []byte {
	t.Helper()
	m, err := unix.Mmap(-1, 0, size+largePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	return wholePages(m)[:size]
}

// Buffers are in large pages and outside the heap, and what is given back is not mapped any
// more.
func TestBuffersAreOutsideTheHeap(t *testing.T) {
	want := 0
	if takesAdvice(t) {
		want = Large
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := own()
	taken := fill(t, s, 64)
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 8<<20 { //nolint:gosec // of this process
		t.Errorf("the heap has %d bytes more with 32 MiB of buffers", grown)
	}
	for i, b := range taken {
		if all, advised := mapped(t, *b); all != Large || advised != want {
			t.Errorf("buffer %d: %d bytes are mapped, large pages are advised for %d, want %d", i, all, advised, want)
		}
		s.put(b)
	}
	s.tidy()
	had := regions(s)
	if len(had) < 2 {
		t.Errorf("32 MiB of buffers are in %d regions", len(had))
	}
	s.tidy()
	for r := range had {
		// Another thread may have got a part of it meanwhile.
		if all, _ := mapped(t, r.memory); all > len(r.memory)/2 {
			t.Error("a region is still mapped")
		}
	}
}

// The first buffers share large pages: four of them take 2 MiB.
func TestFewBuffersAreInFewPages(t *testing.T) {
	s := own()
	pages := map[uintptr]bool{}
	for range 8 {
		b := s.get()
		begin := uintptr(unsafe.Pointer(unsafe.SliceData(*b)))
		pages[begin/largePage], pages[(begin+Large-1)/largePage] = true, true
	}
	if len(pages) != 2 {
		t.Errorf("8 buffers lie in %d large pages, want 2", len(pages))
	}
}

func TestAdviceIsForWholeLargePages(t *testing.T) {
	takes := takesAdvice(t)
	for _, c := range []struct{ from, to, first, last int }{
		{2*largePage + 4096, 2*largePage + 8192, 2, 2},
		{largePage - 4096, largePage + 4096, 1, 1},
		{largePage, 2 * largePage, 1, 2},
		{largePage - 4096, 3*largePage + 4096, 1, 3},
		{1, 6*largePage - 1, 1, 5},
	} {
		m := mapping(t, 6*largePage)
		adviseLarge(m[c.from:c.to])
		_, got := mapped(t, m)
		_, inside := mapped(t, m[c.first*largePage:c.last*largePage])
		want := 0
		if takes {
			want = (c.last - c.first) * largePage
		}
		if got != want || inside != want {
			t.Errorf("%d to %d: advised for %d bytes, %d of them in pages %d to %d; want %d", c.from, c.to, got, inside, c.first, c.last, want)
		}
	}
}

func TestAdviceIsNotGivenWhereLargePagesAreDisabled(t *testing.T) {
	t.Setenv("GODEBUG", "disablethp=1")
	m := mapping(t, 4*largePage)
	adviseLarge(m)
	if _, advised := mapped(t, m); advised > 0 {
		t.Error("large pages are advised with GODEBUG=disablethp=1")
	}
}

// Where the system has nothing to map, buffers are in the heap, which may still have some.
func TestBuffersAreInTheHeapWhenNothingCanBeMapped(t *testing.T) {
	defer func() { mmap = unix.Mmap }()
	mmap = func(int, int64, int, int, int) ([]byte, error) { return nil, unix.ENOMEM }
	s := own()
	for _, b := range fill(t, s, 40) {
		s.put(b)
	}
	s.tidy()
	s.tidy()
	if len(regions(s)) != 0 {
		t.Errorf("%d regions are kept", len(regions(s)))
	}
}
