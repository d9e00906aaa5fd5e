// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package signature holds what every signature format shares: the Subject that
// is signed, the Key that judges, the Signer that signs, and the Envelope, which
// stays closed until a key has accepted it.
//
// An Envelope has no accessor for its payload. Open asks a key about a batch of
// envelopes and yields a Statement for each that the key accepts; there is no
// other way to learn what an envelope says, so nothing can act on a claim that
// nobody signed. Which algorithm belongs to a key type in a format is decided by
// one table (Algorithms), never by a field of the envelope.
//
// The package talks to no network and reads no file. Formats live in
// subpackages; keys that a server holds live elsewhere and implement Key and
// Signer.
package signature
