// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package layout

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// oSafe keeps an open from following a link and from waiting for a pipe's writer.
const oSafe = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// locksIngest: a lock keeps nobody from writing.
const locksIngest = true

// ownerOf is negative where it is not known.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// groupOf is negative where it is not known.
func groupOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}

// lockOpen locks by the file that is written itself, for as long as what it returns is open:
// SMB keeps every other handle from writing.
func lockOpen(f *os.File) (lock io.Closer, others bool) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	held := os.NewFile(uintptr(fd), f.Name())
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return held, false
	}
	held.Close()
	return nil, errors.Is(err, unix.EWOULDBLOCK)
}
