// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"os"

	"golang.org/x/sys/unix"
)

// leavesTraces flushes what was written through mappings.
func leavesTraces(f *os.File) bool { return unix.Fsync(int(f.Fd())) == nil }

func isLocal(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(name, &st) == nil && st.Flags&unix.MNT_LOCAL != 0
}
