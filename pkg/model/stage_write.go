// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "os"

const (
	// writeWindow is how much is written between two words to the kernel.
	writeWindow = 16 << 20
	// writeStep is how much is handed to the kernel at a time. File systems take a folio
	// of that size for the page cache, and 32 KiB is the largest that Linux keeps ready
	// for each core (PAGE_ALLOC_COSTLY_ORDER). Larger ones have to be found and are often
	// memory that a virtual machine has given back to its host: with 64 KiB the kernel
	// took between as long and four times as long, depending on who wrote before.
	writeStep = 32 << 10
)

// stagedWriter appends to a staged file so that the disk works while the network
// does: what would be left to the fsync at the end is under way long before. With
// drop, no more than two windows of it are in the page cache at a time.
type stagedWriter struct {
	f    *os.File
	drop bool
	// end is where the next byte goes, begun up to where the disk was told, reserved up
	// to where there are blocks and size where the file will end.
	end, begun, reserved, size int64
}

// newStagedWriter writes f from offset on, where its position is, up to size. The blocks
// are reserved, so that a full disk is found before the download and the file is laid
// out in one piece. A file in memory gets its pages window by window, if there are
// enough now: all of them at once are half a second of a core for a file of 2 GiB, which
// begins that much later than the others, to be hashed alone at the end.
func newStagedWriter(f *os.File, offset, size int64, drop bool) (*stagedWriter, error) {
	w := &stagedWriter{f: f, drop: drop, end: offset, begun: offset, reserved: offset, size: size}
	inMemory, err := memoryFor(f, size-offset)
	if err != nil {
		return nil, err
	}
	if inMemory {
		return w, w.reserve(0)
	}
	w.reserved = size
	return w, preallocate(f, 0, size)
}

// reserve sees to the blocks of n bytes to come.
func (w *stagedWriter) reserve(n int) error {
	if w.end+int64(n) < w.reserved || w.reserved >= w.size {
		return nil
	}
	next := min(w.size, max(w.end+int64(n), w.reserved)+writeWindow)
	if err := preallocate(w.f, w.reserved, next-w.reserved); err != nil {
		return err
	}
	w.reserved = next
	return nil
}

func (w *stagedWriter) Write(p []byte) (int, error) {
	if err := w.reserve(len(p)); err != nil {
		return 0, err
	}
	n, err := w.write(p)
	w.end += int64(n)
	if err != nil || w.end-w.begun < writeWindow {
		return n, err
	}
	if err := startWriting(w.f, w.begun, w.end-w.begun); err != nil {
		return n, err
	}
	if w.drop {
		err = w.dropBefore(w.begun)
	}
	w.begun = w.end
	return n, err
}

func (w *stagedWriter) write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = w.f.Write(p[n:min(len(p), n+writeStep)])
		n += k
	}
	return n, err
}

// dropBefore takes the window that ends at end out of the page cache, which waits
// for the disk: a pull that leaves no trace in memory is as fast as that.
func (w *stagedWriter) dropBefore(end int64) error {
	from := max(0, end-2*writeWindow)
	if from == end {
		return nil
	}
	if err := awaitWriting(w.f, from, end-from); err != nil {
		return err
	}
	return dropCache(w.f, from, end-from)
}
