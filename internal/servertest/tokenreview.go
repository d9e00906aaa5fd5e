// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// TokenReviewStandIn stands in for the one call that Vault's kubernetes auth
// makes to an API server, and is the only double of this package. It checks
// signature, expiry and audience of the token, so that Vault's side and ours run
// for real; what a real API server makes of a pod's token is shown on a real node
// in test/kubernetes. It returns kubernetes_host and kubernetes_ca_cert for Vault's
// configuration.
func TokenReviewStandIn(t testing.TB, issuer *Issuer) (host, caCert string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token     string   `json:"token"`
				Audiences []string `json:"audiences"`
			} `json:"spec"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
		reply(w, map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": issuer.review(review.Spec.Token, review.Spec.Audiences),
		})
	})
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

// PodToken signs a token of the form that a projected service account token has,
// for the audience "vault" unless claims say otherwise.
func (i *Issuer) PodToken(t testing.TB, namespace, serviceAccount string, claims map[string]any) string {
	t.Helper()
	all := map[string]any{
		"aud": []string{"vault"},
		"sub": "system:serviceaccount:" + namespace + ":" + serviceAccount,
		"kubernetes.io": map[string]any{
			"namespace":      namespace,
			"serviceaccount": map[string]any{"name": serviceAccount, "uid": uidOf(serviceAccount)},
			"pod":            map[string]any{"name": "p", "uid": uidOf("p")},
		},
	}
	for k, v := range claims {
		all[k] = v
	}
	return i.Token(t, all)
}

func uidOf(name string) string { return "uid-of-" + name }

type reviewed struct {
	Audience   any    `json:"aud"`
	Exp        int64  `json:"exp"`
	Sub        string `json:"sub"`
	Kubernetes struct {
		ServiceAccount struct {
			UID string `json:"uid"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// review is a TokenReviewStatus. A token that was made for this API server has
// its issuer as audience; that is what a review without audiences asks for.
func (i *Issuer) review(token string, audiences []string) map[string]any {
	claims, err := i.open(token)
	if err != nil {
		return map[string]any{"authenticated": false, "error": err.Error()}
	}
	if len(audiences) == 0 {
		audiences = []string{i.URL}
	}
	has := []string{}
	switch aud := claims.Audience.(type) {
	case string:
		has = []string{aud}
	case []any:
		for _, a := range aud {
			s, _ := a.(string)
			has = append(has, s)
		}
	}
	common := slices.DeleteFunc(has, func(a string) bool { return !slices.Contains(audiences, a) })
	if len(common) == 0 {
		return map[string]any{"authenticated": false, "error": "the token is not meant for these audiences"}
	}
	groups := []string{"system:serviceaccounts", "system:authenticated"}
	return map[string]any{"authenticated": true, "audiences": common, "user": map[string]any{
		"username": claims.Sub, "uid": claims.Kubernetes.ServiceAccount.UID, "groups": groups,
	}}
}

// open checks an RS256 token of this issuer.
func (i *Issuer) open(token string) (reviewed, error) {
	var claims reviewed
	signed, encodedSig, _ := cutLast(token, ".")
	_, payload, _ := strings.Cut(signed, ".")
	sig, err := base64.RawURLEncoding.DecodeString(encodedSig)
	if err != nil {
		return claims, errors.New("not a token")
	}
	digest := sha256.Sum256([]byte(signed))
	if rsa.VerifyPKCS1v15(&i.rsa.PublicKey, crypto.SHA256, digest[:], sig) != nil {
		return claims, errors.New("invalid bearer token")
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(raw, &claims) != nil {
		return claims, errors.New("not a token")
	}
	if time.Now().Unix() > claims.Exp {
		return claims, errors.New("token has expired")
	}
	return claims, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
