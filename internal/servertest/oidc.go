// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Issuer is an OpenID Connect issuer on loopback. It serves what a relying party
// such as Vault's jwt auth asks for, a discovery document and a key set, signs
// tokens with whatever claims a test wants, and answers GitHub's request URL, by
// which a job gets its identity token.
type Issuer struct {
	URL string // the iss claim, and Vault's oidc_discovery_url
	// RequestToken is what the request URL wants as bearer
	// (ACTIONS_ID_TOKEN_REQUEST_TOKEN).
	RequestToken string

	rsa   *rsa.PrivateKey
	ecdsa *ecdsa.PrivateKey

	mu     sync.Mutex
	claims map[string]any
	issued []string
}

// OIDC starts an issuer, which ends with the test.
func OIDC(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{RequestToken: "ghs-" + rand.Text()}
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatalf("servertest: %v", err)
	}
	if i.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatalf("servertest: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET /jwks", i.jwks)
	mux.HandleFunc("GET /idtoken", i.idToken)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	i.URL = srv.URL
	return i
}

// RequestURL is GitHub's contract (ACTIONS_ID_TOKEN_REQUEST_URL): it has a query
// already, the caller adds the audience, and the answer is {"value": TOKEN}.
func (i *Issuer) RequestURL() string { return i.URL + "/idtoken?api-version=2.0" }

// JobClaims sets what tokens from the request URL say beside iss, aud, iat, nbf
// and exp.
func (i *Issuer) JobClaims(claims map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims = maps.Clone(claims)
}

// Issued returns the tokens that the request URL has given out.
func (i *Issuer) Issued() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.issued...)
}

// Token signs a token with RS256. It lives for five minutes; claims may override
// iss, aud (default "vault"), iat, nbf and exp, and a nil value leaves one out.
func (i *Issuer) Token(t testing.TB, claims map[string]any) string {
	t.Helper()
	token, err := i.sign("RS256", i.complete("vault", claims))
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	return token
}

// TokenES256 is Token with ES256.
func (i *Issuer) TokenES256(t testing.TB, claims map[string]any) string {
	t.Helper()
	token, err := i.sign("ES256", i.complete("vault", claims))
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	return token
}

func (i *Issuer) complete(audience string, claims map[string]any) map[string]any {
	now := time.Now().Unix()
	all := map[string]any{"iss": i.URL, "aud": audience, "sub": "test", "iat": now, "nbf": now - 5, "exp": now + 300, "jti": rand.Text()}
	for k, v := range claims {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	return all
}

// sign makes a JWS in compact form (RFC 7515, section 7.1).
func (i *Issuer) sign(alg string, claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": alg, "typ": "JWT", "kid": alg})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed := encode(header) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	var sig []byte
	if alg == "ES256" {
		r, s, err := ecdsa.Sign(rand.Reader, i.ecdsa, digest[:])
		if err != nil {
			return "", err
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
	} else if sig, err = rsa.SignPKCS1v15(rand.Reader, i.rsa, crypto.SHA256, digest[:]); err != nil {
		return "", err
	}
	return signed + "." + encode(sig), nil
}

// PublicKeyPEM is the RS256 key, for relying parties that fetch none.
func (i *Issuer) PublicKeyPEM(t testing.TB) string {
	t.Helper()
	return publicPEM(t, i.rsa.Public())
}

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]any{
		"issuer": i.URL, "jwks_uri": i.URL + "/jwks", "authorization_endpoint": i.URL + "/authorize",
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "ES256"},
	})
}

func (i *Issuer) jwks(w http.ResponseWriter, _ *http.Request) {
	point, err := i.ecdsa.PublicKey.Bytes() // 0x04, X, Y
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, map[string]any{"keys": []map[string]string{
		{"kty": "RSA", "kid": "RS256", "use": "sig", "alg": "RS256", "n": encode(i.rsa.N.Bytes()), "e": encode(big.NewInt(int64(i.rsa.E)).Bytes())},
		{"kty": "EC", "kid": "ES256", "use": "sig", "alg": "ES256", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])},
	}})
}

// idToken demands what GitHub's endpoint demands: the request token as bearer.
// Without an audience GitHub names the repository's owner; a caller that forgets
// it gets a token that no role of a test accepts.
func (i *Issuer) idToken(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "bearer "+i.RequestToken && r.Header.Get("Authorization") != "Bearer "+i.RequestToken {
		http.Error(w, `{"message":"the request token is not valid"}`, http.StatusUnauthorized)
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || query.Get("api-version") != "2.0" {
		http.Error(w, `{"message":"the query is not that of the request URL"}`, http.StatusBadRequest)
		return
	}
	audience := query.Get("audience")
	if audience == "" {
		audience = "https://github.com/acme"
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	token, err := i.sign("RS256", i.complete(audience, i.claims))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	i.issued = append(i.issued, token)
	reply(w, map[string]any{"count": len(token), "value": token})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
