// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package model

import (
	"math"
	"math/bits"

	"golang.org/x/sys/unix"
)

// freeSpace returns how many bytes a user who is not root may still write to the
// volume of dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	if st.Blocks == 0 {
		return math.MaxInt64, nil // a file system that does not count, such as a tmpfs without a limit
	}
	hi, lo := bits.Mul64(uint64(st.Bavail), uint64(st.Bsize))
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64, nil
	}
	return int64(lo), nil
}
