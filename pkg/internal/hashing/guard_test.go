// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64 && !purego

package hashing

import (
	"os"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded is a page between two that must not be touched.
func guarded(t *testing.T) []byte {
	t.Helper()
	size := os.Getpagesize()
	all, err := unix.Mmap(-1, 0, 3*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(all) })
	for _, guard := range [][]byte{all[:size], all[2*size:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return all[size : 2*size : 2*size]
}

// Neither reads a byte before its blocks or after them: what is there may be no memory.
func TestBlocksKeepToTheirBlocks(t *testing.T) {
	t.Parallel()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	p, q := guarded(t), guarded(t)
	copy(p, text(1, len(p)))
	copy(q, text(2, len(q)))
	for name, blocks := range allBlocks() {
		for n := range len(p)/64 + 1 {
			// At the beginning of the page, and at its end.
			for _, from := range []int{0, min(len(p)-64*n, len(p)-1)} {
				var a, b [8]uint32
				func() {
					defer func() {
						if r := recover(); r != nil {
							t.Fatalf("%s of %d blocks from %d on: %v", name, n, from, r)
						}
					}()
					blocks(&a, &b, &p[from], &q[from], n)
				}()
				if n > 0 && (a == [8]uint32{} || b == [8]uint32{}) {
					t.Fatalf("%s of %d blocks from %d on did nothing", name, n, from)
				}
			}
		}
	}
}
