// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer_test

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

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// advised reports whether large pages are advised for all of b, and for any of it
// (proc_pid_smaps(5), VmFlags).
func advised(t *testing.T, b []byte) (all, some bool) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	end := begin + uintptr(len(b))
	var from, to, with, without uintptr
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok {
			part := max(begin, min(to, end)) - max(begin, min(from, end))
			if slices.Contains(strings.Fields(value), "hg") {
				with += part
			} else {
				without += part
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
	if with+without != end-begin {
		t.Fatalf("the mappings have %d bytes of %d", with+without, end-begin)
	}
	return without == 0, with > 0
}

// mapping is memory of the test's own, whose first large page begins at the index returned.
func mapping(t *testing.T, size int) (m []byte, first int) {
	t.Helper()
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	return m, int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) & (buffer.LargePage - 1)) //nolint:gosec // below 2 MiB
}

// takesAdvice reports whether this kernel does, and its pages are such that it is given.
func takesAdvice(t *testing.T) bool {
	t.Helper()
	m, _ := mapping(t, 2*buffer.LargePage)
	err := unix.Madvise(m, unix.MADV_HUGEPAGE)
	all, _ := advised(t, m)
	return err == nil && all && os.Getpagesize() == 4<<10
}

func TestWhatIsFilledIsInLargePages(t *testing.T) {
	want := takesAdvice(t)
	kept := make([]*[]byte, 8) // or the next one has the memory of the one before
	p := buffer.NewPool(512 << 10)
	for i := range kept {
		kept[i] = p.Get(true)
		if all, some := advised(t, *kept[i]); all != want || some != want {
			t.Errorf("large pages are advised for all of buffer %d: %t, for any: %t; want %t", i, all, some, want)
		}
	}
	runtime.KeepAlive(kept)
}

func TestAdviceIsForWholeLargePages(t *testing.T) {
	want := takesAdvice(t)
	for _, c := range []struct{ from, to, first, last int }{
		{2*buffer.LargePage + 4096, 2*buffer.LargePage + 8192, 2, 3},
		{buffer.LargePage, 2 * buffer.LargePage, 1, 2},
		{2*buffer.LargePage - 1, 2*buffer.LargePage + 1, 1, 3},
	} {
		m, begin := mapping(t, 6*buffer.LargePage)
		m = m[begin:]
		buffer.AdviseLarge(m[c.from:c.to])
		if all, _ := advised(t, m[c.first*buffer.LargePage:c.last*buffer.LargePage]); all != want {
			t.Errorf("%d to %d: advised for all of pages %d to %d: %t, want %t", c.from, c.to, c.first, c.last, all, want)
		}
		_, before := advised(t, m[:c.first*buffer.LargePage])
		_, after := advised(t, m[c.last*buffer.LargePage:])
		if before || after {
			t.Errorf("%d to %d: advised before page %d: %t, and from page %d: %t", c.from, c.to, c.first, before, c.last, after)
		}
	}
}

func TestAdviceIsNotGivenWhereLargePagesAreDisabled(t *testing.T) {
	t.Setenv("GODEBUG", "disablethp=1")
	m, _ := mapping(t, 4*buffer.LargePage)
	buffer.AdviseLarge(m)
	if _, some := advised(t, m); some {
		t.Error("large pages are advised with GODEBUG=disablethp=1")
	}
}

func TestWhatHoldsLittleIsNot(t *testing.T) {
	// Far more than other tests had before it in the same memory.
	b := buffer.NewPool(64 << 20).Get(false)
	if all, _ := advised(t, *b); all {
		t.Error("large pages are advised for a buffer of which little is used")
	}
	runtime.KeepAlive(b)
}
