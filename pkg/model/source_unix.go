// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package model

import "golang.org/x/sys/unix"

// openNonblock keeps a named pipe that took a file's place from blocking the open.
const openNonblock = unix.O_NONBLOCK
