// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package servertest

// TempOnDisk does nothing here.
func TempOnDisk() {}
