// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// syncFiles writes what the volume of dir has in memory only.
func syncFiles(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	number := uintptr(267) // of syncfs(2), but for the systems that are older than its table
	if runtime.GOARCH == "amd64" {
		number = 306
	}
	if _, _, errno := syscall.Syscall(number, d.Fd(), 0, 0); errno != 0 {
		return os.NewSyscallError("syncfs", errno)
	}
	return nil
}

// removeAttributes removes the user's extended attributes of a file.
func removeAttributes(name string) error {
	buf := make([]byte, 64<<10)
	n, err := syscall.Listxattr(name, buf)
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "listxattr", Path: name, Err: err}
	}
	for len(buf[:n]) > 0 {
		attr := cString(buf[:n])
		if err := syscall.Removexattr(name, attr); err != nil {
			return &os.PathError{Op: "removexattr " + attr, Path: name, Err: err}
		}
		buf, n = buf[len(attr)+1:], n-len(attr)-1
	}
	return nil
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// openTun makes a network device whose packets this program reads and writes.
func openTun(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	// struct ifreq of linux/if.h: the name, then the flags.
	const tunSetIff, iffTun, iffNoPI = 0x400454ca, 0x0001, 0x1000
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:15], name)
	req.flags = iffTun | iffNoPI
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&req))); errno != 0 {
		syscall.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", errno)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
