// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin

package digestcache

import (
	"io/fs"
	"os"
)

const (
	supported = false
	openFlags = 0
)

func keyOf(fs.FileInfo) (Key, bool) { return Key{}, false }
func leavesTraces(*os.File) bool    { return false }
func isLocal(string) bool           { return false }
func ownerOf(fs.FileInfo) int       { return -1 }
