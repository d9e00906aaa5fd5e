// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package model

import "os"

// preallocate is a hint that this system does not take.
func preallocate(*os.File, int64) error { return nil }

// dropCache is a hint that this system does not take.
func dropCache(*os.File) error { return nil }
