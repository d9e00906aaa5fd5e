// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package auditlog ties signatures to the requests in a Vault or OpenBao audit
// log that made them.
//
// An audit device writes an HMAC of every text in a request and in its answer,
// under a salt of its own. The signature in the answer of transit/sign is the
// text vault:vN:BASE64, and it can be built again from the signature's bytes and
// the version of the key. Hashed as the device does it, it is the very text in
// the log: no two signatures share it, and nobody who cannot ask the device's
// Vault can make it. That is a proof by value. The request ID beside a signature
// in a registry is a hint that anybody may copy; it proves nothing.
//
// A Matcher holds the signatures, reads logs of any length in constant memory,
// and reports what explains what.
package auditlog
