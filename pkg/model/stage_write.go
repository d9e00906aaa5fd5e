// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "os"

const (
	// writeWindow is how much is written between two words to the kernel.
	writeWindow = 16 << 20
	// memoryStep is how much of a file in memory is written at a time, whose folios are
	// pages (but on a tmpfs that was mounted with huge=). A system call can take 3 µs in a
	// virtual machine, and in steps of 32 KiB there are 98,000 for 3 GiB. With more than
	// this a pull was no faster.
	memoryStep = 64 << 10
)

// stagedWriter appends to a staged file so that the disk works while the network
// does: what would be left to the fsync at the end is under way long before. With
// drop, no more than two windows of it are in the page cache at a time.
type stagedWriter struct {
	f    *os.File
	drop bool
	// inMemory says that f is on a tmpfs; steps is for other files.
	inMemory bool
	steps    stepper
	// end is where the next byte goes, begun up to where the disk was told.
	end, begun int64
}

// newStagedWriter writes f from offset on, where its position is, up to size. The blocks
// are reserved, so that a full disk is found before the download and the file is laid
// out in one piece. Those of a file in memory are pages, which have no layout: there has
// to be room for them, and a write takes them in less time than it takes to reserve them
// and find them again.
func newStagedWriter(f *os.File, offset, size int64, drop bool) (*stagedWriter, error) {
	inMemory, err := memoryFor(f, size-offset)
	if err == nil && !inMemory {
		err = preallocate(f, size)
	}
	if err != nil {
		return nil, err
	}
	return &stagedWriter{f: f, drop: drop, inMemory: inMemory, steps: newStepper(), end: offset, begun: offset}, nil
}

func (w *stagedWriter) Write(p []byte) (int, error) {
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

func (w *stagedWriter) write(p []byte) (int, error) {
	if w.inMemory {
		return writeInSteps(w.f, w.end, p, memoryStep)
	}
	return w.steps.write(w.f, w.end, p)
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
