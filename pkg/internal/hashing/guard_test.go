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
	if !canPair() {
		return // there are no such instructions, and nothing calls them
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	p, q := guarded(t), guarded(t)
	copy(p, text(1, len(p)))
	copy(q, text(2, len(q)))
	for name, blocks := range map[string]func(a, b *[8]uint32, p, q *byte, n int){"narrow": blocksNarrow, "wide": blocksWide} {
		if name == "wide" && !canWide() {
			continue
		}
		for n := range len(p)/64 + 1 {
			for _, atEnd := range []bool{false, true} {
				reads(t, name, n, atEnd, func(a, b *[8]uint32) {
					from := 0
					if atEnd && n > 0 {
						from = len(p) - 64*n
					}
					blocks(a, b, &p[from], &q[from], n)
				})
			}
		}
	}
}

func reads(t *testing.T, name string, n int, atEnd bool, hash func(a, b *[8]uint32)) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("%s of %d blocks, at the end of the page: %v: %v", name, n, atEnd, r)
		}
	}()
	var a, b [8]uint32
	if hash(&a, &b); n > 0 && (a == [8]uint32{} || b == [8]uint32{}) {
		t.Fatalf("%s of %d blocks did nothing", name, n)
	}
}
