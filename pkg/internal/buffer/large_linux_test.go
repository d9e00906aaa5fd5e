// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// flags are those that the kernel has of the mapping of each of a buffer's ends
// (proc_pid_smaps(5), VmFlags).
func flags(t *testing.T, b []byte) (first, last []string) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	end := begin + uintptr(len(b)) - 1
	var from, to uintptr
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok {
			if from <= begin && begin < to {
				first = strings.Fields(value)
			}
			if from <= end && end < to {
				last = strings.Fields(value)
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
	if first == nil || last == nil {
		t.Fatalf("no mapping has %#x to %#x", begin, end)
	}
	return first, last
}

func TestWhatIsFilledIsInLargePages(t *testing.T) {
	const advised = "hg"
	_, err := os.Stat("/sys/kernel/mm/transparent_hugepage")
	want := err == nil
	kept := make([]*[]byte, 8) // or the next one has the memory of the one before
	p := buffer.NewPool(512 << 10)
	for i := range kept {
		kept[i] = p.Get(true)
		first, last := flags(t, *kept[i])
		if slices.Contains(first, advised) != want || slices.Contains(last, advised) != want {
			t.Errorf("buffer %d is in mappings with %s and %s; large pages are advised: %t", i, first, last, want)
		}
	}
}

func TestWhatHoldsLittleIsNot(t *testing.T) {
	// Larger than what is advised beside the buffers of other tests.
	b := buffer.NewPool(64 << 20).Get(false)
	if _, last := flags(t, *b); slices.Contains(last, "hg") {
		t.Errorf("a buffer of which little is used is in a mapping with %s", last)
	}
}
