// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package notation lends the plugin's program what the command line has: the
// ways to log in to Vault.
package notation

import "github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/cli"

// Main answers one invocation by notation and returns the exit code.
func Main() int { return cli.PluginMain() }
