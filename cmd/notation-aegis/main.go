// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command notation-aegis is a plugin of notation that signs with keys in Vault
// Transit.
package main

import (
	"os"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/notation"
)

func main() { os.Exit(notation.Main()) }
