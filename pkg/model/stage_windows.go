// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// os.Root opens with FILE_FLAG_OPEN_REPARSE_POINT by itself.
const oNoFollow = 0

// The staging directory inherits the access list of the destination's volume:
// Windows has no counterpart that os.FileInfo shows.
func ownedByUs(fs.FileInfo) bool { return true }

func linkCount(fs.FileInfo) uint64 { return 1 }

// sameVolume compares drives; a volume that is mounted in a directory passes for
// the drive's.
func sameVolume(a, b string) bool {
	return strings.EqualFold(filepath.VolumeName(a), filepath.VolumeName(b))
}

// syncDir does nothing: NTFS journals directory entries by itself.
func syncDir(*os.Root, string) error { return nil }

func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func isReadOnly(err error) bool {
	return errors.Is(err, windows.ERROR_WRITE_PROTECT) || errors.Is(err, fs.ErrPermission)
}

// isNotDir reports that a name is below something that is no directory.
func isNotDir(err error) bool { return errors.Is(err, windows.ERROR_PATH_NOT_FOUND) }
