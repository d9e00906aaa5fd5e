// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"os"

	"golang.org/x/sys/unix"
)

// local lists the file systems whose times this kernel writes. NFS, SMB, 9p, FUSE
// and what else is not here take theirs from another machine, or keep none.
var local = map[int64]bool{
	unix.EXT4_SUPER_MAGIC:      true, // ext2 and ext3 too
	unix.XFS_SUPER_MAGIC:       true,
	unix.BTRFS_SUPER_MAGIC:     true,
	unix.F2FS_SUPER_MAGIC:      true,
	unix.TMPFS_MAGIC:           true,
	unix.OVERLAYFS_SUPER_MAGIC: true,
	0x2fc12fc1:                 true, // ZFS
	0xca451a4e:                 true, // bcachefs
}

// leavesTraces reports that whatever changes f from now on changes its ctime. A lease is
// given only where nobody has the file open for writing or mapped (fcntl(2), F_SETLEASE),
// and the first write through a new mapping changes the ctime. Where there is somebody,
// or the file is another user's, it is flushed: that takes the right to write out of the
// mappings' pages. A tmpfs has nothing to flush to. On an overlay a mapping is the lower
// file's, and a lease says nothing of it.
func leavesTraces(f *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil {
		return false
	}
	kind := int64(uint32(st.Type))
	if kind != unix.OVERLAYFS_SUPER_MAGIC {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err == nil {
			_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
			return err == nil
		}
	}
	return kind != unix.TMPFS_MAGIC && unix.Fdatasync(int(f.Fd())) == nil
}

func isLocal(name string) bool {
	var st unix.Statfs_t
	// The magic is 32 bits wide in a field whose size and sign differ.
	return unix.Statfs(name, &st) == nil && local[int64(uint32(st.Type))]
}
