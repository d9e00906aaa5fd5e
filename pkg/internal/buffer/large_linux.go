// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// largePage is the size of a large page where pages have 4 KiB. Where they are larger, it
// may be far too large for the heap.
const largePage = 2 << 20

// adviseLarge asks for the pages that b lies in to be large (madvise(2), MADV_HUGEPAGE).
// That includes what is beside b in the first and the last of them: a page is large or not
// when it is first touched, and the first of four buffers of half a megabyte is touched
// before the last is made. The heap is mapped in units of 4 MiB, and advice changes no
// contents. An error, as of a kernel without large pages, is of no interest.
//
// The runtime does not do that for the heap because a fault may then wait for the kernel to
// make room for a large page, and because khugepaged may give back what the runtime has
// returned (golang/go issues 61718 and 55328). This is about tens of megabytes that are
// all used.
func adviseLarge(b []byte) {
	if os.Getpagesize() != 4<<10 || strings.Contains(os.Getenv("GODEBUG"), "disablethp=1") {
		return
	}
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	end := (begin + uintptr(len(b)) + largePage - 1) &^ (largePage - 1)
	begin &^= largePage - 1
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_HUGEPAGE)
}
