// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"os"

	"golang.org/x/sys/unix"
)

// TempOnDisk is for a TestMain: temporary directories are made on a disk where there is
// one, though the system has them in memory. The digest cache remembers nothing there.
func TempOnDisk() {
	const disk = "/var/tmp"
	if inMemory(os.TempDir()) && !inMemory(disk) {
		_ = os.Setenv("TMPDIR", disk) // an invalid name only
	}
}

func inMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(uint32(st.Type)) == unix.TMPFS_MAGIC //nolint:gosec // its size and sign differ
}
