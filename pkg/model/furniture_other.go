// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package model

import "os"

// isMount goes by the device.
func isMount(root *os.Root, name string) (bool, error) {
	base, err := root.Lstat(".")
	if err != nil {
		return false, err
	}
	info, err := root.Lstat(name)
	return err == nil && !sameDevice(base, info), err
}
