// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package layout

import "syscall"

// oSafe keeps an open from following a link and from waiting for a pipe's writer.
const oSafe = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// locksIngest: a lock keeps nobody from writing.
const locksIngest = true
