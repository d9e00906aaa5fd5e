// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package buffer

import "bytes"

var rubbish = bytes.Repeat([]byte{0xa5}, Large)

// spoil writes over what is given back, so that the race detector, or a digest, finds whoever
// still uses it.
func spoil(b []byte) { copy(b, rubbish) }
