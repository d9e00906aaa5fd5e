// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package trustpolicy reads a trust policy: which keys may vouch for which
// repositories. It judges no signature; it says whose signature is asked for.
//
// A Policy comes only from Parse, and Parse is strict: what it does not know, or
// what two readers could understand differently, is an error with its line.
// Ignoring a field would mean that somebody wrote a requirement and nobody
// enforces it. A repository that no statement covers is allowed nothing.
//
// The package opens no file and no connection: PublicKeyFile and Transit are
// handed back as they were written.
package trustpolicy
