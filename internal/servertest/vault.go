// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Do sends a request to the Vault API and returns the status and the whole answer
// decoded, which is nil when the body is empty. path comes without /v1/; a
// namespace goes before it ("team/transit/keys/k"). It fails the test only when
// there is no answer.
func (s *Server) Do(t testing.TB, method, path, token string, body any) (status int, answer map[string]any) {
	t.Helper()
	return s.DoWith(t, method, path, token, body, nil)
}

// DoWith is Do with headers, such as X-Vault-Wrap-TTL.
func (s *Server) DoWith(t testing.TB, method, path, token string, body any, header http.Header) (status int, answer map[string]any) {
	t.Helper()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			t.Fatalf("servertest: encoding the request to %s: %v", path, err)
		}
	}
	req, err := http.NewRequest(method, s.VaultAddr+"/v1/"+strings.TrimPrefix(path, "/"), bytes.NewReader(content))
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	setHeader(req.Header, header)
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("servertest: %s %s: %v", method, path, err)
	}
	if len(raw) == 0 {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("servertest: %s %s: status %d, not JSON: %q", method, path, resp.StatusCode, raw)
	}
	return resp.StatusCode, answer
}

// asRoot is Do as root; an error status fails the test.
func (s *Server) asRoot(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	status, answer := s.Do(t, method, path, s.RootToken, body)
	if status >= 300 {
		t.Fatalf("servertest: %s %s: status %d: %v", method, path, status, answer["errors"])
	}
	return answer
}

// Write puts body, any JSON value, to path as root and returns the whole answer:
// ["data"], or ["auth"] of a login; nil when the server answers with nothing.
func (s *Server) Write(t testing.TB, path string, body any) map[string]any {
	t.Helper()
	return s.asRoot(t, http.MethodPut, path, body)
}

// Read gets path as root and returns the whole answer.
func (s *Server) Read(t testing.TB, path string) map[string]any {
	t.Helper()
	return s.asRoot(t, http.MethodGet, path, nil)
}

// Delete deletes path as root.
func (s *Server) Delete(t testing.TB, path string) {
	t.Helper()
	s.asRoot(t, http.MethodDelete, path, nil)
}

// Policy writes an ACL policy in HCL.
func (s *Server) Policy(t testing.TB, name, hcl string) {
	t.Helper()
	s.Write(t, "sys/policies/acl/"+name, map[string]any{"policy": hcl})
}

// Token makes a token and returns it. opts are those of auth/token/create, such
// as policies, ttl, type, num_uses, no_default_policy.
func (s *Server) Token(t testing.TB, opts map[string]any) string {
	t.Helper()
	auth, _ := s.Write(t, "auth/token/create", opts)["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if token == "" {
		t.Fatal("servertest: auth/token/create gave no token")
	}
	return token
}

// TransitKey makes a key of the given type, such as ecdsa-p256, in transit/.
func (s *Server) TransitKey(t testing.TB, name, typ string) {
	t.Helper()
	s.Write(t, "transit/keys/"+name, map[string]any{"type": typ})
}

// RotateKey adds a version to a key in transit/.
func (s *Server) RotateKey(t testing.TB, name string) {
	t.Helper()
	s.Write(t, "transit/keys/"+name+"/rotate", nil)
}

// PublicKeyPEM returns one version of a public key in transit/ as PKIX PEM; 0 is
// the latest. Transit gives Ed25519 keys as bare base64, which this wraps.
func (s *Server) PublicKeyPEM(t testing.TB, name string, version int) []byte {
	t.Helper()
	data, _ := s.Read(t, "transit/keys/"+name)["data"].(map[string]any)
	if version == 0 {
		latest, _ := data["latest_version"].(float64)
		version = int(latest)
	}
	versions, _ := data["keys"].(map[string]any)
	key, _ := versions[strconv.Itoa(version)].(map[string]any)
	public, _ := key["public_key"].(string)
	if public == "" {
		t.Fatalf("servertest: transit key %s has no public key for version %d", name, version)
	}
	if strings.HasPrefix(public, "-----BEGIN") {
		return []byte(strings.TrimSpace(public) + "\n")
	}
	raw, err := base64.StdEncoding.DecodeString(public)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		t.Fatalf("servertest: transit key %s: neither PEM nor an Ed25519 key: %q", name, public)
	}
	return []byte(publicPEM(t, ed25519.PublicKey(raw)))
}

func publicPEM(t testing.TB, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Seal seals the core: it then answers 503 to everything.
func (s *Server) Seal(t testing.TB) {
	t.Helper()
	s.Write(t, "sys/seal", nil)
}

// Unseal unseals the core and waits until it serves.
func (s *Server) Unseal(t testing.TB) {
	t.Helper()
	s.Write(t, "sys/unseal", map[string]any{"key": s.UnsealKey})
	deadline := time.Now().Add(startTimeout)
	for {
		status, _ := s.Do(t, http.MethodGet, "sys/health", "", nil)
		if status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("servertest: unsealed, yet sys/health answers %d", status)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// AuditEntries returns what the file audit device has written, oldest first: for
// each call an entry of type "request" and one of type "response". Paths and
// request IDs are plain, tokens and bodies are HMACs.
func (s *Server) AuditEntries(t testing.TB) []map[string]any {
	t.Helper()
	entries, err := readAudit(s.AuditLog)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	return entries
}

func readAudit(path string) ([]map[string]any, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	defer f.Close()
	var entries []map[string]any
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			// A line without its end is still being written.
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		var entry map[string]any
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		entries = append(entries, entry)
	}
}
