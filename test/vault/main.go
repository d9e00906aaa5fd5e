// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command vault is HashiCorp's Vault at a pinned version, whole: server, CLI and
// agent. Its licence is BUSL-1.1, so it serves the tests only: it is a module of
// its own, no other module imports it, and nothing built from it is shipped.
//
// With -exit-on-stdin-eof as its first argument it ends when stdin is closed, so
// that a server or an agent cannot outlive the test that started it.
package main

import (
	"io"
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "-exit-on-stdin-eof" {
		args = args[1:]
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	os.Exit(command.Run(args))
}
