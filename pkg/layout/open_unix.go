// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package layout

import (
	"io/fs"
	"syscall"
)

// oSafe keeps an open from following a link and from waiting for a pipe's writer.
const oSafe = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// locksIngest: a lock keeps nobody from writing.
const locksIngest = true

// groupOf is negative where it is not known.
func groupOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}
