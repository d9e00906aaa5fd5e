// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package model

const openNonblock = 0
