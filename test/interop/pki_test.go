// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// TestVaultsPKICertifiesTheKey has Vault's own authority certify a Transit key by a
// request that the key has signed: under a role as docs/cli.md demands it notation
// and aegis-oci trust what the key signs by the authority alone, under Vault's
// default usages the certificate is refused before it is stored.
func TestVaultsPKICertifiesTheKey(t *testing.T) {
	vault := servertest.Vault(t)
	registry := servertest.SharedStack(t).Registry
	for _, typ := range []string{"ecdsa-p256", "rsa-3072"} {
		t.Run(typ, func(t *testing.T) {
			r := &rig{vault: vault, registry: registry, home: t.TempDir()}
			uri, _ := r.key(t, "", typ)
			mount := "pki-" + typ
			vault.VaultCLI(t, "secrets", "enable", "-path="+mount, "pki")
			root := vault.Write(t, mount+"/root/generate/internal", map[string]any{"common_name": "Acme models", "key_type": "ec", "key_bits": 256})
			demanded := map[string]any{"allow_any_name": true, "enforce_hostnames": false, "key_type": "any",
				"country": "US", "province": "WA", "organization": "Acme",
				"key_usage": "DigitalSignature", "code_signing_flag": true, "server_flag": false, "client_flag": false}
			vault.Write(t, mount+"/roles/models", demanded)
			vault.Write(t, mount+"/roles/default", map[string]any{"allow_any_name": true, "enforce_hostnames": false, "key_type": "any",
				"country": "US", "province": "WA", "organization": "Acme"})

			csr := r.aegis(t, exitOK, "key", "csr", "--subject", "C=US, ST=WA, O=Acme, CN=models", uri).stdout
			var leaf string // the one issued last
			issue := func(role string) string {
				answer := vault.Write(t, mount+"/sign/"+role, map[string]any{"csr": csr, "common_name": "models", "ttl": "1h", "exclude_cn_from_sans": true})
				leaf = field(t, answer, "certificate") + "\n"
				chain := filepath.Join(r.home, role+".pem")
				write(t, chain, []byte(leaf+field(t, root, "certificate")+"\n"))
				return chain
			}
			authority := filepath.Join(r.home, "authority.pem")
			write(t, authority, []byte(field(t, root, "certificate")+"\n"))

			refuses(t, "a certificate for TLS", r.aegis(t, 2, "key", "certificate", "--cert-chain", issue("default"), "--install", uri), "key usage")
			chain := issue("models")
			r.aegis(t, exitOK, "key", "certificate", "--cert-chain", chain, "--install", uri)

			ref := r.push(t, r.repo(t, "")+":v1")
			r.aegis(t, exitOK, "sign", "--quiet", "--key", uri, "--signature-format", "notary,notary-cose", ref)
			r.notary(t, authority, acme, nil)
			accepts(t, "notation", r.notationVerify(t, ref))
			policy := filepath.Join(r.home, "policy.yaml")
			write(t, policy, []byte("version: 1\npolicies:\n- name: pki\n  scopes: [\"*\"]\n  keys:\n  - {name: pki, certificatesFile: authority.pem, identities: [\""+acme+"\"]}\n"))
			r.aegis(t, exitOK, "verify", "--policy", policy, ref)

			// The certificate alone, completed from notation's store.
			alone := filepath.Join(r.home, "leaf.pem")
			write(t, alone, []byte(leaf))
			ref = r.push(t, r.repo(t, "-store")+":v1")
			refuses(t, "a chain without its root", r.aegis(t, 2, "sign", "--quiet", "--key", uri, "--signature-format", "notary", "--cert-chain", alone, ref), "self-signed")
			r.aegis(t, exitOK, "sign", "--quiet", "--key", uri, "--signature-format", "notary", "--cert-chain", alone, "--trust-store", "acme", ref)
			accepts(t, "notation, by the store", r.notationVerify(t, ref))
		})
	}
}

// field is a field of an answer's data.
func field(t *testing.T, answer map[string]any, name string) string {
	t.Helper()
	if data, ok := answer["data"].(map[string]any); ok {
		answer = data
	}
	s, ok := answer[name].(string)
	if !ok {
		t.Fatalf("no %s in %v", name, answer)
	}
	return strings.TrimSpace(s)
}
