// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func changed(st *syscall.Stat_t) int64 { return st.Ctimespec.Nano() }

func isLocal(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(name, &st) == nil && st.Flags&unix.MNT_LOCAL != 0
}
