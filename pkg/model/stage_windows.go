// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// sameVolume compares drives; a volume that is mounted in a directory passes for
// the drive's.
func sameVolume(a, b string) bool {
	return strings.EqualFold(filepath.VolumeName(a), filepath.VolumeName(b))
}

// sameDevice is not told: what is mounted below is judged as if it were not.
func sameDevice(_, _ fs.FileInfo) bool { return true }

func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// isNotDir reports that a name is below something that is no directory.
func isNotDir(err error) bool { return errors.Is(err, windows.ERROR_PATH_NOT_FOUND) }
