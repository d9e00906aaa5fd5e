// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build (darwin || freebsd) && !race

package buffer

func adviseLarge([]byte) {}
