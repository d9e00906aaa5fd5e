// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TokenService is a token endpoint as the distribution spec's "Token Authentication"
// describes it, whose tokens a real registry checks. As at Quay a repository is made when
// a token is asked for that may push to it, and until then there is nothing to pull.
type TokenService struct {
	URL string
	// Section belongs into the registry's configuration: see Distribution.
	Section string
	// User, Password and IdentityToken are what it takes.
	User, Password, IdentityToken string

	key  *ecdsa.PrivateKey
	cert []byte

	mu     sync.Mutex
	denied string // the repository that no token is for
	made   map[string]bool
	grants []string
	scopes []string
	asked  []Request
	issued []string
}

// Tokens starts a token endpoint. It ends with the test.
func Tokens(t testing.TB, user, password, identityToken string) *TokenService {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tokens"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	k := &TokenService{User: user, Password: password, IdentityToken: identityToken, key: key, cert: cert, made: make(map[string]bool)}
	srv := httptest.NewServer(k)
	t.Cleanup(srv.Close)
	bundle := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
		t.Fatalf("servertest: %v", err)
	}
	k.URL = srv.URL
	k.Section = fmt.Sprintf("auth:\n  token:\n    realm: %q\n    service: registry\n    issuer: tokens\n    rootcertbundle: %q\n", srv.URL+"/token", bundle)
	return k
}

// Grants is how each token was asked for: "anonymous", "basic", or a grant_type.
func (k *TokenService) Grants() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.grants...)
}

// Scopes is what they were asked for.
func (k *TokenService) Scopes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.scopes...)
}

// Issued are the tokens that were made.
func (k *TokenService) Issued() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.issued...)
}

// Requests are those seen, the refused ones too; a form is in their Path.
func (k *TokenService) Requests() []Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Request(nil), k.asked...)
}

// Deny has no token made for a repository from now on; "" ends that.
func (k *TokenService) Deny(repository string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denied = repository
}

// Reset forgets what was seen.
func (k *TokenService) Reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grants, k.scopes, k.asked, k.issued = nil, nil, nil, nil
}

// ServeHTTP makes a token, or refuses.
func (k *TokenService) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_ = req.ParseForm()
	k.mu.Lock()
	k.asked = append(k.asked, Request{Method: req.Method, Path: req.URL.Path + "?" + req.Form.Encode(), Header: req.Header.Clone()})
	k.mu.Unlock()
	grant := "anonymous"
	if u, p, ok := req.BasicAuth(); ok {
		if grant = "basic"; u != k.User || p != k.Password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	if req.Method == http.MethodPost {
		if grant = req.Form.Get("grant_type"); grant == "refresh_token" && req.Form.Get("refresh_token") != k.IdentityToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	k.mu.Lock()
	k.grants = append(k.grants, grant)
	k.scopes = append(k.scopes, req.Form["scope"]...)
	denied := k.denied
	k.mu.Unlock()
	var access []map[string]any
	for _, scope := range strings.Fields(strings.Join(req.Form["scope"], " ")) {
		if parts := strings.Split(scope, ":"); len(parts) == 3 && grant != "anonymous" && parts[1] != denied && k.may(parts[1], parts[2]) {
			access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": strings.Split(parts[2], ",")})
		}
	}
	token := k.sign(map[string]any{"iss": "tokens", "aud": "registry", "sub": grant, "exp": time.Now().Add(time.Hour).Unix(),
		"nbf": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Unix(), "jti": rand.Text(), "access": access})
	k.mu.Lock()
	k.issued = append(k.issued, token)
	k.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 3600})
}

func (k *TokenService) may(repository, actions string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if strings.Contains(actions, "push") {
		k.made[repository] = true
	}
	return k.made[repository]
}

func (k *TokenService) sign(claims map[string]any) string {
	part := func(v any) string {
		raw, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(k.cert)}}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.key, sum[:])
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}
