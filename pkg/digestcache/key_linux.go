// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func changed(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }

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

func isLocal(name string) bool {
	var st unix.Statfs_t
	// The magic is 32 bits wide in a field whose size and sign differ.
	return unix.Statfs(name, &st) == nil && local[int64(uint32(st.Type))]
}
