// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/aegis-oci/aegis-oci/pkg/vaultsetup"
)

// plans is one plan for each method.
func plans(t testing.TB) []vaultsetup.Plan {
	t.Helper()
	var all []vaultsetup.Plan
	for method, o := range options("https://issuer.example.com") {
		if method == vaultsetup.Kubernetes {
			o.KubernetesHost = "https://k8s.example.com:6443"
		}
		p, err := vaultsetup.New(method, o)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func shown(t *testing.T, checks []vaultsetup.Check, secret string) {
	t.Helper()
	for _, c := range checks {
		for _, s := range []string{c.Path, c.Field, c.Want, c.Have, c.Detail} {
			if strings.ContainsFunc(s, unicode.IsControl) || len(s) > 4000 || secret != "" && strings.Contains(s, secret) {
				t.Fatalf("shown: %q", s)
			}
		}
	}
}

// FuzzCheckToken compares any token with what each role wants: what is shown of
// it is one line each, and never its signature.
func FuzzCheckToken(f *testing.F) {
	for _, claims := range []string{
		`{"iss":"https://issuer.example.com","aud":"vault","sub":"x","exp":1800000300,"repository":"acme/models","project_path":"acme/models","ref":"refs/heads/main"}`,
		`{"aud":["a","vault"],"exp":"x","nbf":1900000000}`, `{"aud":{"a":[1e999]},"exp":1e400}`, `{"repository":"ACME/models\u001b[2J\n"}`, `null`, `[]`,
	} {
		f.Add([]byte(claims), "c2ln")
	}
	all, now := plans(f), time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, claims []byte, signature string) {
		token := "e30." + base64.RawURLEncoding.EncodeToString(claims) + "." + signature
		for _, p := range all {
			checks, err := p.CheckToken(token, now)
			var refused *vaultsetup.OptionError
			if err != nil && !errors.Is(err, vaultsetup.ErrNoToken) && !errors.As(err, &refused) || err != nil && len(checks) > 0 {
				t.Fatalf("%+v, %v (%T)", checks, err, err)
			}
			if len(signature) > 12 && !strings.Contains(string(claims), signature) {
				shown(t, checks, signature)
			} else {
				shown(t, checks, "")
			}
		}
	})
}

// answers is a Vault that says the same of every path.
type answers map[string]any

func (a answers) Read(context.Context, string) (map[string]any, bool, error) { return a, a != nil, nil }

// FuzzCheck compares what a server says of itself with each plan.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		`{"type":"ecdsa-p256","policy":"path \"transit/sign/k\" {\n capabilities = [\"update\"]\n}","bound_claims":{"repository":"acme/models"},"token_ttl":600}`,
		`{"policy":"path {{{","token_ttl":"10m","bound_audiences":[1,null,{}]}`, `{"type":1,"transit/":{"type":"transit"},"jwt/":{"type":"jwt\u001b"}}`, `{}`, `null`,
	} {
		f.Add([]byte(s))
	}
	all := plans(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		dec := json.NewDecoder(strings.NewReader(string(raw)))
		dec.UseNumber()
		var data answers
		if dec.Decode(&data) != nil {
			return
		}
		for _, p := range all {
			checks, err := p.Check(t.Context(), data)
			if err != nil {
				t.Fatal(err)
			}
			shown(t, checks, "")
			if err := vaultsetup.Verdict(checks); data == nil && !errors.Is(err, vaultsetup.ErrDiffers) {
				t.Fatalf("nothing is there, and the verdict is %v", err)
			}
		}
	})
}
