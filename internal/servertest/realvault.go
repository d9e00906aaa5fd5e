// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// VaultOption changes how Vault starts a server.
type VaultOption string

// The options of Vault.
const (
	// VaultTLS serves TLS and takes client certificates; see Server.CAFile.
	VaultTLS VaultOption = "tls"
	// VaultFile keeps the data in files instead of memory.
	VaultFile VaultOption = "file"
)

// VaultProgram returns the path of HashiCorp's own vault program: server, CLI and
// agent in one. Building it takes 5 to 10 minutes from an empty cache, so that it
// is for the acceptance tests. Its licence is BUSL-1.1: it is never shipped.
func VaultProgram(t testing.TB) string {
	t.Helper()
	return binaryWith(t, "vault", "test/vault", recipe{env: []string{"CGO_ENABLED=0"}, flags: []string{"-ldflags=-s"}})
}

// TerraformParser returns the path of a program that reads Terraform with
// HashiCorp's own parser; see test/terraform.
func TerraformParser(t testing.TB) string {
	t.Helper()
	return binary(t, "terraform-parse", "test/terraform")
}

// Vault starts a real Vault server of the test's own, initialised, unsealed, with
// Transit at transit/ and a file audit device called file, as Stack has them. It
// has no registry.
func Vault(t testing.TB, options ...VaultOption) *Server {
	t.Helper()
	program := VaultProgram(t)
	s := &Server{Dir: t.TempDir(), client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	s.AuditLog = filepath.Join(s.Dir, "audit.log")
	if slices.Contains(options, VaultTLS) {
		s.issueCertificates(t)
	}
	var c *child
	// Another process may take the port between our choice and Vault's listening.
	for try := 1; ; try++ {
		var err error
		if c, err = s.startVault(t, program, slices.Contains(options, VaultFile)); err == nil {
			break
		}
		if try == 3 {
			t.Fatalf("servertest: starting vault: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("servertest: stopping vault: %v", err)
		}
		if t.Failed() && c.stderr.Len() > 0 {
			t.Logf("log of vault:\n%s", c.stderr.String())
		}
	})
	s.initialise(t)
	return s
}

// startVault runs a server on a free port and returns when it answers.
func (s *Server) startVault(t testing.TB, program string, keep bool) (*child, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.Dir, "vault.json")
	if err := os.WriteFile(config, s.vaultConfig(t, port, keep), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-exit-on-stdin-eof", "server", "-config="+config)
	// Nothing of a person's own Vault may reach this one.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "TMPDIR=" + s.Dir}
	c, err := startChild(cmd)
	if err != nil {
		return nil, err
	}
	go func() { _, _ = io.Copy(&c.stderr, c.stdout) }()
	s.VaultAddr = "http://" + port
	if s.CAFile != "" {
		s.VaultAddr = "https://" + port
	}
	deadline := time.After(startTimeout)
	for {
		if resp, err := s.client.Get(s.VaultAddr + "/v1/sys/seal-status"); err == nil {
			_ = resp.Body.Close()
			return c, nil
		}
		select {
		case <-c.exited:
			return nil, fmt.Errorf("it ended:\n%s", c.stderr.String())
		case <-deadline:
			_ = c.stop()
			return nil, fmt.Errorf("not ready after %s:\n%s", startTimeout, c.stderr.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *Server) vaultConfig(t testing.TB, address string, keep bool) []byte {
	t.Helper()
	listener, scheme := map[string]any{"address": address, "tls_disable": s.CAFile == ""}, "http://"
	if s.CAFile != "" {
		scheme = "https://"
		listener["tls_cert_file"], listener["tls_key_file"] = filepath.Join(s.Dir, "server.pem"), filepath.Join(s.Dir, "server-key.pem")
	}
	storage := map[string]any{"inmem": map[string]any{}}
	if keep {
		storage = map[string]any{"file": map[string]any{"path": filepath.Join(s.Dir, "data")}}
	}
	config, err := json.Marshal(map[string]any{
		"disable_mlock": true, "disable_clustering": true, "log_level": "warn", "ui": false, "api_addr": scheme + address,
		"storage": storage, "listener": map[string]any{"tcp": listener},
	})
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	return config
}

// initialise does over HTTP what an operator does once.
func (s *Server) initialise(t testing.TB) {
	t.Helper()
	status, answer := s.Do(t, http.MethodPut, "sys/init", "", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	keys, _ := answer["keys"].([]any)
	if status != http.StatusOK || len(keys) != 1 {
		t.Fatalf("servertest: initialising vault: status %d: %v", status, answer["errors"])
	}
	s.UnsealKey, _ = keys[0].(string)
	s.RootToken, _ = answer["root_token"].(string)
	s.Unseal(t)
	s.Write(t, "sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": s.AuditLog}})
	s.Write(t, "sys/mounts/transit", map[string]any{"type": "transit"})
}

// VaultEnv is an environment for programs that talk to this server: PATH, an empty
// home, the address and the CA. There is no token in it.
func (s *Server) VaultEnv(t testing.TB) []string {
	t.Helper()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "VAULT_ADDR=" + s.VaultAddr}
	if s.CAFile != "" {
		env = append(env, "VAULT_CACERT="+s.CAFile)
	}
	return env
}

// VaultCLI runs the vault program as root against the server and returns stdout. A
// failure fails the test.
func (s *Server) VaultCLI(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(VaultProgram(t), args...)
	cmd.Env = append(s.VaultEnv(t), "VAULT_TOKEN="+s.RootToken)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("servertest: vault %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// trust makes the server's client believe the CA in s.CAFile.
func (s *Server) trust() error {
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return fmt.Errorf("reading its CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("reading its CA: no certificate")
	}
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return nil
}
