// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// preallocate reserves size bytes of f. The file's length stays what was written: it
// tells the next run how much there is. File systems that cannot are let be.
func preallocate(f *os.File, size int64) error {
	if size <= 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
	}
	return nil
}

// memoryFor reports whether f is on a tmpfs, whose blocks are pages of memory, and
// fails when size bytes more do not fit there.
func memoryFor(f *os.File, size int64) (bool, error) {
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) != nil || s.Type != unix.TMPFS_MAGIC {
		return false, nil
	}
	// Without a limit of its own a tmpfs has no number of blocks.
	if s.Blocks > 0 && uint64(size)/uint64(s.Bsize) > s.Bfree {
		return true, &os.PathError{Op: "allocate", Path: f.Name(), Err: unix.ENOSPC}
	}
	return true, nil
}

// dropCache takes size bytes of a file that were flushed out of the page cache:
// dirty pages would stay. A size of zero is all from offset on. File systems that
// have no such cache are let be.
func dropCache(f *os.File, offset, size int64) error {
	err := unix.Fadvise(int(f.Fd()), offset, size, unix.FADV_DONTNEED)
	return os.NewSyscallError("fadvise", unlessUnsupported(err))
}

// startWriting has the kernel begin to write size bytes of f to the disk, and does
// not wait. It is no flush: fsync(2) comes all the same, and reports errors.
func startWriting(f *os.File, offset, size int64) error {
	err := unix.SyncFileRange(int(f.Fd()), offset, size, unix.SYNC_FILE_RANGE_WRITE)
	return os.NewSyscallError("sync_file_range", unlessUnsupported(err))
}

// awaitWriting waits until size bytes of f are on their way out of the page cache
// for good.
func awaitWriting(f *os.File, offset, size int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := unix.SyncFileRange(int(f.Fd()), offset, size, all)
	return os.NewSyscallError("sync_file_range", unlessUnsupported(err))
}

// unlessUnsupported takes an error for none when it says that there is no such call
// here: what it would have done is a matter of speed.
func unlessUnsupported(err error) error {
	for _, e := range []error{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.ESPIPE, unix.EPERM} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// cloneFile makes dst share the blocks of src: btrfs and XFS can, and others
// refuse.
func cloneFile(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}
