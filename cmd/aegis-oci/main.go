// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command aegis-oci signs, verifies and moves models in OCI registries.
package main

import (
	"os"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/cli"
)

func main() { os.Exit(cli.Main()) }
