// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// TestTheServerIsVaultItself asks the server, over HTTP and by its own command
// line, with each way it can be started.
func TestTheServerIsVaultItself(t *testing.T) {
	for name, options := range map[string][]servertest.VaultOption{
		"memory":       nil,
		"file and TLS": {servertest.VaultFile, servertest.VaultTLS},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := servertest.Vault(t, options...)
			if out := srv.VaultCLI(t, "version"); !strings.HasPrefix(out, "Vault v1.21.0") {
				t.Errorf("vault version says %q", out)
			}
			_, health := srv.Do(t, http.MethodGet, "sys/health", "", nil)
			if v, _ := health["version"].(string); v != "1.21.0" || health["enterprise"] != false {
				t.Errorf("sys/health says %v", health)
			}
			srv.VaultCLI(t, "write", "transit/keys/k", "type=ecdsa-p256")
			signature := srv.VaultCLI(t, "write", "-field=signature", "transit/sign/k", "input="+base64.StdEncoding.EncodeToString([]byte("model")))
			if !strings.HasPrefix(signature, "vault:v1:") {
				t.Errorf("transit/sign gave %q", signature)
			}
			srv.Seal(t)
			if status, _ := srv.Do(t, http.MethodGet, "transit/keys/k", srv.RootToken, nil); status != http.StatusServiceUnavailable {
				t.Errorf("sealed, it answers %d", status)
			}
			srv.Unseal(t)
			signs := 0
			for _, e := range srv.AuditEntries(t) {
				if request, _ := e["request"].(map[string]any); e["type"] == "response" && request["path"] == "transit/sign/k" {
					signs++
				}
			}
			if signs != 1 {
				t.Errorf("the audit log has %d answers to transit/sign/k, want 1", signs)
			}
		})
	}
}
