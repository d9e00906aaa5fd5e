// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command registry is the CNCF distribution registry at a pinned version: the
// registry without the referrers API, on which signatures go by the tag fallback.
//
// It is distribution's own command with the local storage drivers only, because
// the cloud ones would double the build. With -exit-on-stdin-eof as its first
// argument it ends when stdin is closed, so that it cannot outlive its parent.
package main

import (
	"io"
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/proxy"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
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
	registry.RootCmd.SetArgs(args)
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
