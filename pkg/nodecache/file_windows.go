// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"errors"
	"io/fs"
	"os"
)

const oNoFollow = 0

// Windows has access control lists in place of these, and a cache there is as safe
// as the directory's list makes it: what is in it is hashed in any case.

func ownedByUs(fs.FileInfo) bool     { return true }
func linkCount(fs.FileInfo) uint64   { return 1 }
func allocated(fs.FileInfo) int64    { return 0 }
func openToAll(fs.FileInfo) bool     { return false }
func isReadOnly(err error) bool      { return errors.Is(err, fs.ErrPermission) }
func syncDir(*os.Root, string) error { return nil }
