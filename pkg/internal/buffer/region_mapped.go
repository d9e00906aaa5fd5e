// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// The race detector sees what is in the heap.
//go:build (linux || darwin || freebsd) && !race

package buffer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmap is replaced by a test.
var mmap = unix.Mmap

// mapRegion returns n bytes of memory outside the heap, and the large pages of it; or in the
// heap when the system has none: then the process is not the one to end for that.
func mapRegion(n int) (memory, whole []byte) {
	memory, err := mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		memory = make([]byte, n)
		return memory, memory
	}
	adviseLarge(memory)
	return memory, wholePages(memory)
}

func unmapRegion(m []byte) {
	// EINVAL is what was made by make.
	_ = unix.Munmap(m)
}

// wholePages is the part of b that is large pages from its first byte to its last.
func wholePages(b []byte) []byte {
	before := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (largePage - 1)) //nolint:gosec // below 2 MiB
	b = b[min(before, len(b)):]
	return b[:len(b)&^(largePage-1)]
}

// largePage is the size of a large page where pages have 4 KiB.
const largePage = 2 << 20
