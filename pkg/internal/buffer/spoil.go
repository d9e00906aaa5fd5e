// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package buffer

func spoil([]byte) {}
