// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"math"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// local lists the file systems whose times this kernel writes. NFS, SMB, 9p, FUSE
// and what else is not here take theirs from another machine, or keep none. A tmpfs does
// not see a write through a mapping to a page that was read first.
var local = map[int64]bool{
	unix.EXT4_SUPER_MAGIC:      true, // ext2 and ext3 too
	unix.XFS_SUPER_MAGIC:       true,
	unix.BTRFS_SUPER_MAGIC:     true,
	unix.F2FS_SUPER_MAGIC:      true,
	unix.OVERLAYFS_SUPER_MAGIC: true,
	0x2fc12fc1:                 true, // ZFS
	0xca451a4e:                 true, // bcachefs
}

// leavesTraces reports that whatever changes f from now on changes its ctime. A lease is
// given only where nobody has the file open for writing or mapped (fcntl(2), F_SETLEASE),
// and the first write through a new mapping changes the ctime. On an overlay a mapping is
// the upper file's, and a lease says nothing of it: it is flushed, which takes the right
// to write out of the mappings' pages, where a flush is one.
func leavesTraces(f *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil {
		return false
	}
	if kindOf(&st) == unix.OVERLAYFS_SUPER_MAGIC {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && overlaysFlush(string(mounts)) && hasExtents(f) && unix.Fdatasync(int(f.Fd())) == nil
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}

// overlaysFlush reports that no overlay of these mounts (proc(5), mountinfo) is volatile,
// which flushes nothing.
func overlaysFlush(mounts string) bool {
	for line := range strings.Lines(mounts) {
		_, about, ok := strings.Cut(line, " - overlay ")
		if !ok {
			continue
		}
		options := strings.FieldsFunc(about, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
		if slices.Contains(options, "volatile") {
			return false
		}
	}
	return true
}

// hasExtents reports that f is on a file system that has places on a disk, which a tmpfs
// has not. An overlay asks the one below, whose directory need not be seen from here: that of a
// container is not.
func hasExtents(f *os.File) bool {
	// Documentation/filesystems/fiemap.rst. Without room for extents they are counted.
	const fiemap = 0xc020660b
	request := struct {
		start, length                  uint64
		flags, mapped, count, reserved uint32
	}{length: math.MaxUint64}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemap, uintptr(unsafe.Pointer(&request)))
	return errno == 0
}

func isLocal(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(name, &st) == nil && local[kindOf(&st)]
}

// kindOf is a file system's magic, 32 bits wide in a field whose size and sign differ.
func kindOf(st *unix.Statfs_t) int64 { return int64(uint32(st.Type)) }
