// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package digestcache

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

const supported = true

// openFlags: no link is followed, and a pipe in a file's place does not block.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

func keyOf(info fs.FileInfo) (Key, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	changed, told := rootfile.Changed(info)
	if !ok || !told {
		return Key{}, false
	}
	// The types of these fields differ between systems.
	return Key{
		Device: uint64(st.Dev), Inode: uint64(st.Ino), Size: info.Size(), //nolint:unconvert
		Modified: info.ModTime().UnixNano(), Changed: changed,
	}, true
}

func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
