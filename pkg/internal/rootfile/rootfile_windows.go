// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package rootfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// NoFollow is nothing here: os.Root opens with FILE_FLAG_OPEN_REPARSE_POINT by
// itself.
const NoFollow = 0

// NoWait is nothing here: there are no named pipes in a directory.
const NoWait = 0

// OwnedByUs knows no better: a file inherits the access list of its directory, and
// Windows has no counterpart that os.FileInfo shows.
func OwnedByUs(fs.FileInfo) bool { return true }

// LinkCount is not known here.
func LinkCount(fs.FileInfo) uint64 { return 1 }

// Allocated is a file's length: how much more it takes is not known here.
func Allocated(info fs.FileInfo) int64 { return info.Size() }

// SyncDir does nothing: NTFS journals directory entries by itself.
func SyncDir(*os.Root, string) error { return nil }

// MayChange knows nothing against it: Windows tells by trying.
func MayChange(*os.Root, string) error { return nil }

// IsReadOnly reports that a volume cannot be written by us at all.
func IsReadOnly(err error) bool {
	return errors.Is(err, windows.ERROR_WRITE_PROTECT) || errors.Is(err, fs.ErrPermission)
}
