// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package rootfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// NoFollow refuses to open a link.
const NoFollow = syscall.O_NOFOLLOW

// NoWait keeps a named pipe that took a file's place from blocking the open.
const NoWait = syscall.O_NONBLOCK

// OwnedByUs reports that a file belongs to the effective user.
func OwnedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// LinkCount is how many names a file has.
func LinkCount(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Nlink)
}

// Allocated is what a file takes on the disk, in bytes, and no less than its length: one
// that is being fetched has all its blocks from the beginning, but on a tmpfs.
func Allocated(info fs.FileInfo) int64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Size()
	}
	return max(info.Size(), st.Blocks*512)
}

// SyncDir flushes a directory's entries. File systems that cannot are let be.
func SyncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// MayChange fails when we may not add names to a directory or remove some, or it is on a
// volume that is read-only.
func MayChange(root *os.Root, dir string) error {
	d, err := root.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|NoFollow, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Faccessat(int(d.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write", Path: dir, Err: err}
	}
	return nil
}

// IsReadOnly reports that a volume cannot be written by us at all.
func IsReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}
