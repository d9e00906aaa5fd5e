// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package layout

import "os"

// hasACL knows of none.
func hasACL(*os.File) bool { return false }
