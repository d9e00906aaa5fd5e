// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package model

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// sameVolume reports that two directories are on one file system.
func sameVolume(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && sameDevice(infoA, infoB)
}

func sameDevice(a, b fs.FileInfo) bool {
	stA, okA := a.Sys().(*syscall.Stat_t)
	stB, okB := b.Sys().(*syscall.Stat_t)
	return okA && okB && stA.Dev == stB.Dev
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isNotDir reports that a name is below something that is no directory.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
