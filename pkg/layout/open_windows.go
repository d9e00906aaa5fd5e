// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

// oSafe keeps an open from following a link and from waiting for a pipe's writer.
const oSafe = 0

// locksIngest: a lock would keep the writer, who has another handle, from writing.
const locksIngest = false
