// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(linux || darwin || freebsd) || race

package buffer

func mapRegion(n int) (memory, whole []byte) {
	memory = make([]byte, n)
	return memory, memory
}

func unmapRegion([]byte) {}
