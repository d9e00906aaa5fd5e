// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// largePage is what a page table's entry one level up maps where pages have 4 KiB. Where
// they are larger the advice has no effect, and a large page would be too large.
const largePage = 2 << 20

// adviseLarge asks for the pages that b lies in to be large (madvise(2), MADV_HUGEPAGE).
// That includes what is beside b in the first and the last of them, or four buffers of
// half a megabyte would never make a page: the heap is mapped in units of 4 MiB, and
// the advice changes the contents of nothing. It is no more than advice, so its error,
// of a kernel without large pages, is of no interest.
func adviseLarge(b []byte) {
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	end := (begin + uintptr(len(b)) + largePage - 1) &^ (largePage - 1)
	begin &^= largePage - 1
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_HUGEPAGE)
}
