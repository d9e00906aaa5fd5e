// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

func TestStackServesAnUnsealedCore(t *testing.T) {
	s := servertest.Stack(t)
	status, health := s.Do(t, http.MethodGet, "sys/health", "", nil)
	if status != http.StatusOK || health["initialized"] != true || health["sealed"] != false || health["version"] != "2.4.0" {
		t.Errorf("sys/health answers %d %v", status, health)
	}
}

func TestStackServesHTTPSWithItsOwnCA(t *testing.T) {
	s := servertest.Stack(t, "-tls")
	if !strings.HasPrefix(s.VaultAddr, "https://") || !strings.HasPrefix(s.RegistryURL(), "https://") {
		t.Fatalf("addresses without TLS: %s %s", s.VaultAddr, s.RegistryURL())
	}
	if status, _ := s.Do(t, http.MethodGet, "sys/health", "", nil); status != http.StatusOK {
		t.Errorf("sys/health answers %d", status)
	}
	for _, address := range []string{s.VaultAddr + "/v1/sys/health", s.RegistryURL() + "/v2/"} {
		if got := get(t, s.HTTPClient(), address).StatusCode; got != http.StatusOK {
			t.Errorf("%s answers %d", address, got)
		}
		resp, err := http.Get(address)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s is trusted without its CA", address)
		}
	}
}

func TestStackEndsWithItsTest(t *testing.T) {
	var addresses []string
	t.Run("running", func(t *testing.T) {
		s := servertest.Stack(t)
		vault, err := url.Parse(s.VaultAddr)
		if err != nil {
			t.Fatal(err)
		}
		addresses = []string{vault.Host, s.Registry}
	})
	for _, address := range addresses {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = conn.Close()
			t.Errorf("%s still accepts connections", address)
		}
	}
}

func TestSharedStackIsOneServer(t *testing.T) {
	if a, b := servertest.SharedStack(t), servertest.SharedStack(t); a != b {
		t.Error("two servers")
	}
}

func TestTransitSignsWhatItsPublicKeyVerifies(t *testing.T) {
	s := servertest.SharedStack(t)
	message := []byte("sha256:0000")
	digest := sha256.Sum256(message)
	verify := map[string]func(key any, signature []byte) bool{
		"ecdsa-p256": func(key any, sig []byte) bool { return ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), digest[:], sig) },
		"ed25519":    func(key any, sig []byte) bool { return ed25519.Verify(key.(ed25519.PublicKey), message, sig) },
	}
	for typ, accepts := range verify {
		t.Run(typ, func(t *testing.T) {
			name := "roundtrip-" + typ
			s.TransitKey(t, name, typ)
			old := s.PublicKeyPEM(t, name, 1)
			s.RotateKey(t, name)

			input := base64.StdEncoding.EncodeToString(message)
			signed := data(t, s.Write(t, "transit/sign/"+name, map[string]any{"input": input}))["signature"].(string)
			encoded, isLatest := strings.CutPrefix(signed, "vault:v2:")
			if !isLatest {
				t.Fatalf("signed by another version: %s", signed)
			}
			signature, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if !accepts(parsePEM(t, s.PublicKeyPEM(t, name, 0)), signature) {
				t.Error("the latest public key rejects the signature")
			}
			if accepts(parsePEM(t, old), signature) {
				t.Error("the first public key accepts a signature of the second")
			}
			for content, want := range map[string]bool{input: true, base64.StdEncoding.EncodeToString([]byte("another")): false} {
				answer := data(t, s.Write(t, "transit/verify/"+name, map[string]any{"input": content, "signature": signed}))
				if answer["valid"] != want {
					t.Errorf("transit/verify says %v, want %v", answer["valid"], want)
				}
			}
		})
	}
}

func TestTokenMayDoWhatItsPolicySays(t *testing.T) {
	s := servertest.SharedStack(t)
	s.TransitKey(t, "limited", "ecdsa-p256")
	s.Policy(t, "limited-sign", `path "transit/sign/limited" { capabilities = ["update"] }`)
	token := s.Token(t, map[string]any{"policies": []string{"limited-sign"}, "no_default_policy": true, "ttl": "1m"})

	body := map[string]any{"input": "aGVsbG8="}
	if status, answer := s.Do(t, http.MethodPut, "transit/sign/limited", token, body); status != http.StatusOK {
		t.Errorf("signing: %d %v", status, answer)
	}
	if status, _ := s.Do(t, http.MethodGet, "transit/keys/limited", token, nil); status != http.StatusForbidden {
		t.Errorf("reading the key: %d, want 403", status)
	}
}

func TestAuditLogShowsTheCallAndHidesTheToken(t *testing.T) {
	s := servertest.SharedStack(t)
	s.TransitKey(t, "audited", "ecdsa-p256")
	answer := s.Write(t, "transit/sign/audited", map[string]any{"input": "aGVsbG8="})
	found := slices.ContainsFunc(s.AuditEntries(t), func(entry map[string]any) bool {
		request, _ := entry["request"].(map[string]any)
		return entry["type"] == "response" && request["path"] == "transit/sign/audited" && request["id"] == answer["request_id"]
	})
	if !found {
		t.Errorf("no response with path transit/sign/audited and id %v", answer["request_id"])
	}
	raw, err := os.ReadFile(s.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), s.RootToken) {
		t.Error("the root token is in the audit log")
	}
}

func TestSealedCoreAnswers503UntilUnsealed(t *testing.T) {
	s := servertest.Stack(t)
	s.TransitKey(t, "kept", "ecdsa-p256")
	before := s.PublicKeyPEM(t, "kept", 0)
	s.Seal(t)
	if status, _ := s.Do(t, http.MethodGet, "transit/keys/kept", s.RootToken, nil); status != http.StatusServiceUnavailable {
		t.Errorf("sealed: %d, want 503", status)
	}
	s.Unseal(t)
	if after := s.PublicKeyPEM(t, "kept", 0); string(after) != string(before) {
		t.Error("another key after unsealing")
	}
}

func TestStackKeepsItsDataInGivenDirectories(t *testing.T) {
	args := []string{"-vault-storage", t.TempDir(), "-registry-dir", t.TempDir()}
	var key []byte
	var dgst string
	t.Run("first", func(t *testing.T) {
		s := servertest.Stack(t, args...)
		s.TransitKey(t, "kept", "ed25519")
		key = s.PublicKeyPEM(t, "kept", 0)
		dgst = pushArtifact(t, s.HTTPClient(), s.RegistryURL(), "kept", nil)
	})
	t.Run("second", func(t *testing.T) {
		s := servertest.Stack(t, args...)
		if again := s.PublicKeyPEM(t, "kept", 0); string(again) != string(key) {
			t.Error("another key after a restart")
		}
		if got := get(t, s.HTTPClient(), s.RegistryURL()+"/v2/kept/manifests/"+dgst).StatusCode; got != http.StatusOK {
			t.Errorf("the manifest after a restart: %d", got)
		}
		if len(s.AuditEntries(t)) == 0 {
			t.Error("no audit entries after a restart")
		}
	})
}

func data(t *testing.T, answer map[string]any) map[string]any {
	t.Helper()
	d, ok := answer["data"].(map[string]any)
	if !ok {
		t.Fatalf("no data in %v", answer)
	}
	return d
}

func parsePEM(t *testing.T, content []byte) any {
	t.Helper()
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatalf("not PEM: %q", content)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
