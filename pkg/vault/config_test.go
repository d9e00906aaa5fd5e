// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

func TestInsecureConnectionsAreRefusedBeforeAnythingIsSent(t *testing.T) {
	sent := func(*http.Request) (*url.URL, error) {
		t.Error("a request was made")
		return nil, nil
	}
	for _, cfg := range []Config{
		{Address: "http://vault.example:8200"},
		{Address: "http://192.0.2.7:8200"},
		{Address: "http://127.0.0.1.example:8200"},
		{Address: "http://0.0.0.0:8200"},
		{Address: "http://[2001:db8::1]:8200"},
		{Address: "https://127.0.0.1:8200", SkipVerify: true},
	} {
		cfg.Proxy = sent
		s, err := Open(t.Context(), cfg, StaticToken("hvs.mustnotbesent", "VAULT_TOKEN"))
		wantKind(t, err, Insecure, "hvs.mustnotbesent")
		if s != nil {
			t.Errorf("%s: a session", cfg.Address)
		}
		cfg.InsecureVault = true
		if _, err := cfg.parseAddress(); err != nil {
			t.Errorf("%s, insecure by choice: %v", cfg.Address, err)
		}
	}
	for _, addr := range []string{"http://127.0.0.1:8200", "http://localhost", "http://[::1]:8200", "http://127.9.9.9", "http://[::ffff:127.0.0.1]", "https://vault.example", "unix:///run/agent.sock"} {
		if _, err := (Config{Address: addr}).parseAddress(); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	for _, cfg := range []Config{
		{}, {Address: "vault.example:8200"}, {Address: "ftp://vault.example"}, {Address: "https://"}, {Address: "://"},
		{Address: "https://user:hvs.mustnotbesent@vault.example"}, {Address: "https://vault.example?x=hvs.mustnotbesent"},
		{Address: "https://vault.example", CAFile: filepath.Join(t.TempDir(), "none")},
		{Address: "https://vault.example", CertFile: "only-one"},
	} {
		_, err := Open(t.Context(), cfg, StaticToken("hvs.mustnotbesent", "VAULT_TOKEN"))
		wantKind(t, err, BadConfig, "hvs.mustnotbesent")
	}
}

func TestTLS(t *testing.T) {
	srv := servertest.Stack(t, "-tls", "-no-registry")
	plain := servertest.SharedStack(t)
	dir := t.TempDir()
	pem, err := os.ReadFile(srv.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), pem, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, mod := range map[string]func(*Config){
		"CA file":      func(c *Config) { c.CAFile = srv.CAFile },
		"CA directory": func(c *Config) { c.CAPath = dir },
		"insecure":     func(c *Config) { c.SkipVerify, c.InsecureVault = true, true },
		"client certificate": func(c *Config) {
			c.CAFile, c.CertFile, c.KeyFile = srv.CAFile, srv.ClientCert, srv.ClientKey
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, srv.VaultAddr, srv.RootToken, mod)
			if s.Requests() != 1 {
				t.Errorf("%d requests", s.Requests())
			}
		})
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(srv.VaultAddr, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, addr, ca, server string }{
		{"unknown authority", srv.VaultAddr, "", ""},
		{"another name", srv.VaultAddr, srv.CAFile, "vault.example"},
		{"plain HTTP behind https", strings.Replace(plain.VaultAddr, "http://", "https://", 1), srv.CAFile, ""},
		{"TLS behind http", "http://127.0.0.1:" + port, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &world{}
			cfg := w.config(tc.addr)
			cfg.CAFile, cfg.TLSServerName = tc.ca, tc.server
			_, err := Open(t.Context(), cfg, StaticToken(srv.RootToken, "VAULT_TOKEN"))
			wantKind(t, err, TLS, srv.RootToken)
			if len(w.clock.waits) != 0 {
				t.Errorf("repeated %d times what cannot succeed", len(w.clock.waits))
			}
		})
	}
}

func TestProxyIsUsed(t *testing.T) {
	srv := servertest.SharedStack(t)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	to, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	// A host that does not exist: only the proxy can have answered.
	s, _ := open(t, "http://vault.invalid:8200", srv.RootToken, func(c *Config) {
		c.InsecureVault, c.Proxy = true, http.ProxyURL(to)
	})
	if s.Requests() != 1 || proxy.Count("") != 1 {
		t.Errorf("%d requests, %d through the proxy", s.Requests(), proxy.Count(""))
	}
}

func TestAgentSocket(t *testing.T) {
	srv := servertest.SharedStack(t)
	to, err := url.Parse(srv.VaultAddr)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "a") // a socket's path may have 104 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(to)}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	s, _ := open(t, "unix://"+filepath.Join(dir, "s"), srv.RootToken)
	if s.Requests() != 1 {
		t.Errorf("%d requests", s.Requests())
	}
}

// An address below a path, as behind an ingress, keeps the path.
func TestAddressWithAPrefix(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	to, err := url.Parse(srv.VaultAddr)
	if err != nil {
		t.Fatal(err)
	}
	strip := http.StripPrefix("/infra/vault", httputil.NewSingleHostReverseProxy(to))
	proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		strip.ServeHTTP(w, r)
		return true
	})
	s, _ := open(t, proxy.URL+"/infra/vault", srv.RootToken)
	if _, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: name(t)}); err != nil {
		t.Error(err)
	}
}
