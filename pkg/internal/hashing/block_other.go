// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 || purego

package hashing

func canPair() bool { return false }

func blocks(_, _ *[8]uint32, _, _ *byte, _ int) { panic("hashing: no instructions for two states") }
