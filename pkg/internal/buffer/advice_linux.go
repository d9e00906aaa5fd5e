// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package buffer

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// adviseLarge asks for the large pages that lie in b to be large (madvise(2),
// MADV_HUGEPAGE): a page's first use can take longer than all else that is done with what
// is in it. An error, as of a kernel without large pages, is of no interest. Where pages
// have more than 4 KiB a large one may be far too large.
//
// A fault may then wait for the kernel to make room for a large page, which is why Go's
// runtime does not do that for the heap (golang/go issues 61718 and 55328, with other
// reasons). This is about tens of megabytes that are all used.
func adviseLarge(b []byte) {
	if os.Getpagesize() != 4<<10 || strings.Contains(os.Getenv("GODEBUG"), "disablethp=1") {
		return
	}
	_ = unix.Madvise(wholePages(b), unix.MADV_HUGEPAGE)
}
