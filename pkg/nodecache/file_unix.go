// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package nodecache

import (
	"io/fs"
	"syscall"
)

// allocated is what a file takes on the disk, in bytes: one that is being fetched
// has all its blocks from the beginning, but on a tmpfs.
func allocated(info fs.FileInfo) int64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Blocks * 512
}

// openToAll reports a directory in which anybody can replace anybody's files.
func openToAll(info fs.FileInfo) bool {
	return info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0
}
