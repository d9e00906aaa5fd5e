// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"strings"
	"testing"
)

// TestTheAuditLogExplainsCosignsSignatures ties what cosign has signed with a
// Transit key, and left no hint of, to Vault's audit log by value.
func TestTheAuditLogExplainsCosignsSignatures(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			if !typ.cosignSigns {
				continue
			}
			t.Run(typ.name, func(t *testing.T) {
				key, _ := r.key(t, "", typ.name)
				ref := r.push(t, r.repo(t, "")+":v1")
				accepts(t, "cosign sign", r.cosignSign(t, key, ref))
				args := []string{"vault", "audit", "--key", key, "--repo", ref, "--log", r.vault.AuditLog}
				got := r.aegis(t, exitOK, args...)
				if !strings.Contains(got.stdout, "  proven  "+ref) || strings.Contains(got.stdout, "(hint)") {
					t.Errorf("cosign's signature is not proven:\n%s", got.stdout)
				}
				// Its sign request is what nothing explains without the signature.
				r.aegis(t, exitRejected, "vault", "audit", "--key", key, "--log", r.vault.AuditLog)
			})
		}
	})
}
