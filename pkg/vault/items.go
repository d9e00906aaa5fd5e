// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import "strings"

// outcome is what one item of a batch came to.
type outcome int

const (
	accepted outcome = iota
	refused          // the key says no, or the version exists and the signature is not one
	tooNew           // the key has no such version, and none above it
	failed           // the question was not answered
)

// judgeItem reads a result of transit/verify. The texts are those of keysutil in
// Vault 1.21 and OpenBao 2.4; an unknown one is no answer, which fails closed.
func judgeItem(r batchResult) outcome {
	if r.Error == "" {
		if r.Valid {
			return accepted
		}
		return refused
	}
	text := strings.ToLower(r.Error)
	switch {
	case strings.Contains(text, "version is too new"):
		return tooNew
	case strings.Contains(text, "(too old)"), strings.Contains(text, "no such key version"),
		strings.Contains(text, "supplied signature is invalid"), strings.Contains(text, "supplied signature contains extra data"),
		strings.Contains(text, "invalid base64 signature"):
		return refused
	}
	return failed
}

// itemKind classifies the error of an item that got no answer, of sign or verify.
func itemKind(text string) Kind {
	text = strings.ToLower(text)
	switch {
	case strings.Contains(text, "permission denied"):
		return Denied
	case strings.Contains(text, "version for signing is higher"), strings.Contains(text, "no such key version"):
		return KeyNotFound
	case strings.Contains(text, "key derivation"), strings.Contains(text, "not supported for key type"),
		strings.Contains(text, "soft-deleted"), strings.Contains(text, "private part"),
		strings.Contains(text, "minimum encryption key version"), strings.Contains(text, "no prefix"):
		return KeyUnsuitable
	}
	return BadRequest
}
