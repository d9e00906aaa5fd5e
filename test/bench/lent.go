// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	// keptMemory is as much as the data on the tmpfs and a model on the disk need.
	keptMemory = 8 << 30
	// keptPiece is half of the least that Linux reports as free (page_reporting_order,
	// 2 MiB on amd64).
	keptPiece = 1 << 20
)

// keepMemory keeps memory that is free from being lent to the host of a virtual machine,
// until the function returned is called.
//
// A guest with free page reporting (virtio 1.3, 5.5.6.7) tells its host which large blocks
// are free, Linux those of 2 MiB and more, and the host takes the memory behind them.
// Whoever is given such a block next waits for each of its pages: half a second and more
// for 256 MiB, where writing them takes 0.07 s. Which program that is depends on what was
// freed before, and on the sizes it asks for: the kernel gives out the smallest piece
// that is large enough. So all of it is used once, and then one page of each MiB stays, so
// that hardly any block between them is large enough to be reported. Where nothing is
// reported, the memory of a virtual machine that was never used may still be its host's:
// it is used once, and no more.
func keepMemory(ctx context.Context) (release func(), err error) {
	nothing := func() {}
	reports, err := reportsFreePages()
	if err != nil {
		return nothing, err
	}
	available, err := availableMemory()
	if err != nil {
		return nothing, err
	}
	size := min(keptMemory, available/2) / keptPiece * keptPiece
	memory, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nothing, os.NewSyscallError("mmap", err)
	}
	release = func() { _ = syscall.Munmap(memory) }
	err = useOnce(ctx, memory)
	if err == nil && reports {
		err = leaveOnePage(memory)
	}
	if err != nil || !reports {
		release()
		return nothing, err
	}
	fmt.Printf("%d MiB of free memory are kept from the host of this virtual machine\n", size>>20)
	return release, nil
}

// useOnce writes to every page of memory.
func useOnce(ctx context.Context, memory []byte) error {
	const noHugepage, populateWrite = 15, 23 // of madvise(2)
	// Large pages would be used whole. A kernel that has none says EINVAL.
	if err := syscall.Madvise(memory, noHugepage); err != nil && !errors.Is(err, syscall.EINVAL) {
		return os.NewSyscallError("madvise", err)
	}
	for part := range slices.Chunk(memory, 256<<20) {
		if err := ctx.Err(); err != nil {
			return err
		}
		// It takes a fourth of the time that the loop does.
		err := syscall.Madvise(part, populateWrite)
		if errors.Is(err, syscall.EINVAL) { // before Linux 5.14
			for i := 0; i < len(part); i += os.Getpagesize() {
				part[i] = 1
			}
		} else if err != nil {
			return os.NewSyscallError("madvise", err)
		}
	}
	return nil
}

// leaveOnePage frees all of each piece but its first page.
func leaveOnePage(memory []byte) error {
	page := os.Getpagesize()
	for piece := range slices.Chunk(memory, keptPiece) {
		if err := syscall.Madvise(piece[page:], syscall.MADV_DONTNEED); err != nil {
			return os.NewSyscallError("madvise", err)
		}
	}
	return nil
}

// reportsFreePages reports whether a balloon device has this machine's free pages
// (VIRTIO_BALLOON_F_PAGE_REPORTING).
func reportsFreePages() (bool, error) {
	const reporting = 5
	devices, err := filepath.Glob("/sys/bus/virtio/drivers/virtio_balloon/*/features")
	if err != nil {
		return false, err
	}
	for _, name := range devices {
		// A digit for each feature, that of bit 0 first.
		features, err := os.ReadFile(name)
		if err != nil {
			return false, err
		}
		if len(features) > reporting && features[reporting] == '1' {
			return true, nil
		}
	}
	return false, nil
}

// availableMemory is how many bytes can be used without paging anything out.
func availableMemory() (int64, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
