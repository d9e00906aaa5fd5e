// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package rootfile

import (
	"io/fs"
	"syscall"
)

// Changed is a file's ctime in nanoseconds since 1970, which nobody can set, and false
// where there is none.
func Changed(info fs.FileInfo) (int64, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Ctimespec.Nano(), true
}
