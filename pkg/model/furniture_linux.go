// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// isMount reports a mount point. Of another device are also the subvolumes of Btrfs, which
// everybody can make.
func isMount(root *os.Root, name string) (bool, error) {
	var st unix.Statx_t
	dir, base := path.Split(name)
	d, err := root.Open(path.Clean(dir))
	if err != nil {
		return false, err
	}
	defer d.Close()
	if err := unix.Statx(int(d.Fd()), base, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
		return false, err
	}
	return st.Attributes_mask&st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
