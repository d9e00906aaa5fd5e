// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// The race detector sees what is in the heap.
//go:build (linux || darwin || freebsd) && !race

package buffer

import "golang.org/x/sys/unix"

// mmap is replaced by a test.
var mmap = unix.Mmap

// mapRegion returns n bytes of memory outside the heap, or in it when the system has none:
// then the process is not the one to end for that.
func mapRegion(n int) []byte {
	m, err := mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]byte, n)
	}
	adviseLarge(m)
	return m
}

func unmapRegion(m []byte) {
	// EINVAL is what was made by make.
	_ = unix.Munmap(m)
}
