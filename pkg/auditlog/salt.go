// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Salt hashes as an audit device with this salt does (Vault sdk, helper/salt,
// GetIdentifiedHMAC): HMAC-SHA256, in hex, with its name before it.
func Salt(salt string) Hasher {
	return func(_ context.Context, value string) (string, error) {
		h := hmac.New(sha256.New, []byte(salt))
		h.Write([]byte(value))
		return "hmac-sha256:" + hex.EncodeToString(h.Sum(nil)), nil
	}
}
