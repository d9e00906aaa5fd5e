// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
)

// TestVaultAcceptsTheIssuersTokens is the judge of issuer and key set: Vault's own
// jwt auth fetches both and takes one token of each algorithm, and no other.
func TestVaultAcceptsTheIssuersTokens(t *testing.T) {
	srv, issuer, other := SharedStack(t), OIDC(t), OIDC(t)
	srv.Write(t, "sys/auth/servertest-jwt", map[string]any{"type": "jwt"})
	srv.Write(t, "auth/servertest-jwt/config", map[string]any{"oidc_discovery_url": issuer.URL, "jwt_supported_algs": []string{"RS256", "ES256"}})
	srv.Write(t, "auth/servertest-jwt/role/ci", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_ttl": "5m",
		"bound_claims": map[string]any{"repository": "acme/models"},
	})
	login := func(jwt string) int {
		status, _ := srv.Do(t, http.MethodPut, "auth/servertest-jwt/login", "", map[string]any{"role": "ci", "jwt": jwt})
		return status
	}
	claims := map[string]any{"repository": "acme/models"}
	for name, tc := range map[string]struct {
		jwt  string
		want int
	}{
		"RS256":         {issuer.Token(t, claims), 200},
		"ES256":         {issuer.TokenES256(t, claims), 200},
		"audience":      {issuer.Token(t, map[string]any{"repository": "acme/models", "aud": "other"}), 400},
		"claim":         {issuer.Token(t, map[string]any{"repository": "acme/other"}), 400},
		"expired":       {issuer.Token(t, map[string]any{"repository": "acme/models", "exp": 1000, "nbf": 900, "iat": 900}), 400},
		"other issuer":  {other.Token(t, map[string]any{"repository": "acme/models", "iss": issuer.URL}), 400},
		"no repository": {issuer.Token(t, nil), 400},
	} {
		if got := login(tc.jwt); got != tc.want {
			t.Errorf("%s: status %d, want %d", name, got, tc.want)
		}
	}
}

func TestTheRequestURLWantsItsToken(t *testing.T) {
	issuer := OIDC(t)
	issuer.JobClaims(map[string]any{"repository": "acme/models"})
	ask := func(query, authorization string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, issuer.RequestURL()+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body struct{ Value string }
		if resp.StatusCode == http.StatusOK {
			if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode, body.Value
	}
	if status, token := ask("&audience="+url.QueryEscape("https://vault.example.com/?a=b&c"), "bearer "+issuer.RequestToken); status != 200 || token == "" || issuer.Issued()[0] != token {
		t.Errorf("status %d", status)
	}
	if status, _ := ask("&audience=vault", "bearer other"); status != 401 {
		t.Errorf("with another token: status %d", status)
	}
	if len(issuer.Issued()) != 1 {
		t.Error("a refused request was given a token")
	}
}
