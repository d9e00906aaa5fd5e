// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package model

import (
	"errors"
	"os"
)

// preallocate is a hint that this system does not take.
func preallocate(*os.File, int64) error { return nil }

// memoryFor is only of use before preallocate.
func memoryFor(*os.File, int64) (bool, error) { return false, nil }

// dropCache is a hint that this system does not take.
func dropCache(*os.File, int64, int64) error { return nil }

// startWriting is a hint that this system does not take.
func startWriting(*os.File, int64, int64) error { return nil }

// awaitWriting is only of use before dropCache.
func awaitWriting(*os.File, int64, int64) error { return nil }

// cloneFile is not known here.
func cloneFile(_, _ *os.File) error { return errors.ErrUnsupported }
