// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// client is one that nobody answers, lending its clock.
func client(t *testing.T, w *world) *Client {
	t.Helper()
	c, err := newClient(w.config("http://127.0.0.1:1").withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func job(i *servertest.Issuer, url string) JobIdentity {
	return JobIdentity{URL: url, RequestToken: NewSecret(i.RequestToken), Audience: "vault", Client: &http.Client{}}
}

// GitHub's endpoint is known to fail now and then.
func TestTheJobsIdentityIsAskedForAgain(t *testing.T) {
	issuer := servertest.OIDC(t)
	proxy := servertest.FaultProxy(t, issuer.URL)
	for _, f := range []servertest.Fault{{Status: 500}, {Status: 503}, {Status: 429}, {Cut: true}, {Cut: true, CutAfter: 20}} {
		proxy.Reset()
		f.Path, f.Times = "/idtoken", 3
		proxy.Fail(f)
		w := &world{}
		jwt, err := job(issuer, proxy.URL+"/idtoken?api-version=2.0").JWT(t.Context(), client(t, w))
		issued := issuer.Issued()
		// net/http repeats a GET by itself where a kept connection was closed.
		if err != nil || jwt != issued[len(issued)-1] || proxy.Count("/idtoken") != 4 || len(w.clock.waits) < 2 {
			t.Errorf("%+v: %d requests, %d waits: %v", f, proxy.Count("/idtoken"), len(w.clock.waits), err)
		}
		if strings.Contains(w.log.String(), issuer.RequestToken) || strings.Contains(w.log.String(), jwt) {
			t.Errorf("a secret is in the log: %s", w.log.String())
		}
	}
	proxy.Reset()
	proxy.Fail(servertest.Fault{Path: "/idtoken", Status: 503})
	w := &world{}
	_, err := job(issuer, proxy.URL+"/idtoken?api-version=2.0").JWT(t.Context(), client(t, w))
	wantKind(t, err, NoIdentity, issuer.RequestToken)
	if n := proxy.Count(""); n < 5 {
		t.Errorf("given up after %d requests", n)
	}
}

// A redirect would carry the request token, and with it the job's identity, to
// where an answer points.
func TestTheJobsIdentityDoesNotFollowARedirect(t *testing.T) {
	issuer := servertest.OIDC(t)
	proxy, elsewhere := servertest.FaultProxy(t, issuer.URL), servertest.FaultProxy(t, issuer.URL)
	proxy.Fail(servertest.Fault{Path: "/idtoken", Status: 302, Header: http.Header{"Location": {elsewhere.URL + "/idtoken?api-version=2.0"}}})
	_, err := job(issuer, proxy.URL+"/idtoken?api-version=2.0").JWT(t.Context(), client(t, &world{}))
	wantKind(t, err, NoIdentity, issuer.RequestToken)
	if elsewhere.Count("") != 0 || proxy.Count("") != 1 {
		t.Errorf("%d requests followed it, %d were made", elsewhere.Count(""), proxy.Count(""))
	}
}

func TestAnswersThatHoldNoIdentity(t *testing.T) {
	issuer := servertest.OIDC(t)
	proxy := servertest.FaultProxy(t, issuer.URL)
	for _, body := range []string{"", "<html>", `{"value":""}`, `{"value":"` + issuer.RequestToken + `"}`, `{"value":"a.b"}`, `{"value":"` + strings.Repeat("x", maxJWT) + `"}`} {
		proxy.Reset()
		proxy.Fail(servertest.Fault{Path: "/idtoken", Status: 200, Body: body})
		_, err := job(issuer, proxy.URL+"/idtoken?api-version=2.0").JWT(t.Context(), client(t, &world{}))
		wantKind(t, err, NoIdentity, issuer.RequestToken)
	}
}

func TestWhereTheJobsIdentityMayBeAskedFor(t *testing.T) {
	for url, kind := range map[string]Kind{
		"": BadConfig, "github.example.com": BadConfig, "file:///etc/passwd": BadConfig, "https://user:pass@github.example.com/": BadConfig,
		"http://github.example.com/": Insecure, "http://127.0.0.1.example.com/": Insecure,
	} {
		j := JobIdentity{URL: url, RequestToken: NewSecret("ghs-secret"), Audience: "vault", Client: &http.Client{}}
		_, err := j.JWT(t.Context(), client(t, &world{}))
		wantKind(t, err, kind, "ghs-secret", "user:pass")
	}
	j := JobIdentity{URL: "https://github.example.com/a?x=1", Audience: "https://v/?a=b&c#d e"}
	if u, err := j.address(); err != nil || u.RawQuery != "x=1&audience=https%3A%2F%2Fv%2F%3Fa%3Db%26c%23d+e" {
		t.Errorf("%v: %v", u, err)
	}
	j.URL = "https://github.example.com/a"
	if u, err := j.address(); err != nil || u.RawQuery == "" || strings.HasPrefix(u.RawQuery, "&") {
		t.Errorf("%v: %v", u, err)
	}
}

func TestIdentityFiles(t *testing.T) {
	dir := t.TempDir()
	for content, ok := range map[string]bool{"": false, "hvs.secret": false, "a.b.c": false, jwtOf(map[string]any{"iss": "x"}) + "\n": true, strings.Repeat("x", maxJWT+1): false} {
		path := filepath.Join(dir, "jwt")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := IdentityFile(path).JWT(t.Context(), nil)
		if ok {
			if err != nil || got != strings.TrimSpace(content) {
				t.Errorf("%q: %v", got, err)
			}
			continue
		}
		wantKind(t, err, NoIdentity, content)
	}
	_, err := IdentityFile(filepath.Join(dir, "none")).JWT(t.Context(), nil)
	wantKind(t, err, NoIdentity)
}

// jwtOf is a token whose signature nobody checks.
func jwtOf(claims map[string]any) string {
	raw, _ := json.Marshal(claims)
	return "e30." + base64.RawURLEncoding.EncodeToString(raw) + ".c2ln"
}

// What is shown of a token is one bounded line, and no claim can pass for another.
func TestDescribeShowsOneBoundedLine(t *testing.T) {
	now := time.Unix(1700000100, 0)
	hostile := strings.Repeat("\x1b[31m\n\u202eevil ", 1000)
	for _, tc := range []struct {
		claims map[string]any
		want   string
	}{
		{map[string]any{"iss": "https://x", "aud": "vault", "exp": 1700000000}, `its token says, unverified: iss="https://x" aud="vault" exp=2023-11-14T22:13:20Z (1m40s ago)`},
		{map[string]any{"exp": 1700000200}, `its token says, unverified: exp=2023-11-14T22:16:40Z`},
		{map[string]any{"exp": 1e300}, `its token says, unverified: exp=1e+300`},
		{map[string]any{"exp": "never"}, `its token says, unverified: exp="never"`},
		{map[string]any{"sub": `x" repository="acme/models`}, `its token says, unverified: sub="x\" repository=\"acme/models"`},
		{map[string]any{"aud": []any{"a", 1, "c", "d", "e", "f"}}, `its token says, unverified: aud=["a","","c","d","e",...]`},
		{map[string]any{"aud": map[string]any{"x": 1}}, `its token says, unverified: aud=(not a text)`},
		{map[string]any{"actor": "somebody"}, `its token has none of the usual claims`},
	} {
		if got := describe(jwtOf(tc.claims), now); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.claims, got, tc.want)
		}
	}
	all := map[string]any{}
	for _, name := range shownClaims {
		all[name] = hostile
	}
	if got := describe(jwtOf(all), now); len(got) > 2000 || strings.ContainsAny(got, "\n\x1b\u202e") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func TestBuilderClaimsAreAFixedList(t *testing.T) {
	got := builderClaims(jwtOf(map[string]any{
		"repository": "acme/models", "ref": "refs/heads/main\n", "sha": strings.Repeat("a", 500), "run_id": int64(12345678901234567), "workflow_ref": []string{"x"},
		"actor": "somebody", "email": "a@b", "jti": "x",
	}))
	want := map[string]string{"repository": "acme/models", "ref": "refs/heads/main", "sha": strings.Repeat("a", maxClaim) + "...", "run_id": "12345678901234567"}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := builderClaims("no token"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestTheAPIServersOwnTokensAreKnown(t *testing.T) {
	for _, tc := range []struct {
		claims map[string]any
		want   bool
	}{
		{map[string]any{"iss": "https://oidc.example.com/id", "aud": []string{"vault"}}, false},
		{map[string]any{"iss": "https://oidc.example.com/id", "aud": "vault"}, false},
		{map[string]any{"iss": "https://oidc.example.com/id", "aud": []string{"vault", "https://oidc.example.com/id"}}, true},
		{map[string]any{"iss": "https://oidc.example.com/id", "aud": "https://kubernetes.default.svc.cluster.local"}, true},
		{map[string]any{"iss": "kubernetes/serviceaccount"}, true}, // of a Secret, good for ever
		{map[string]any{"aud": []string{"vault"}}, false},
	} {
		if got := meantForAPIServer(jwtOf(tc.claims)); got != tc.want {
			t.Errorf("%v: %v", tc.claims, got)
		}
	}
}

// A hostile server repeats what it was sent, in its errors and as request ID.
func TestARefusalDoesNotRepeatTheSecret(t *testing.T) {
	srv := servertest.SharedStack(t)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	secretID := "0b2d6a3c-1111-4222-8333-944455556666"
	proxy.Fail(servertest.Fault{Path: "/login", Status: 400, Body: fmt.Sprintf(`{"request_id":%q,"errors":["no secret_id %s here"]}`, secretID, secretID)})
	w := &world{}
	_, err := Open(t.Context(), w.config(proxy.URL), AppRole{RoleID: "role", SecretID: NewSecret(secretID)})
	e := wantKind(t, err, LoginRefused, secretID)
	if e.RequestID != "" || strings.Contains(w.log.String(), secretID) {
		t.Errorf("request ID %q, log %s", e.RequestID, w.log.String())
	}
	jwt := jwtOf(map[string]any{"iss": "x"})
	proxy.Reset()
	proxy.Fail(servertest.Fault{Path: "/login", Status: 403, Body: fmt.Sprintf(`{"errors":["bad jwt %s"]}`, jwt)})
	_, err = Open(t.Context(), w.config(proxy.URL), NewJWT(Login{Role: "ci"}, IdentityValue(jwt, "JWT")))
	wantKind(t, err, LoginRefused, jwt)
}

func TestSecretsDoNotPrint(t *testing.T) {
	for _, v := range []any{
		NewSecret("hush"), AppRole{SecretID: NewSecret("hush"), Wrapping: NewSecret("hush")}, IdentityValue("hush", "JWT"),
		JobIdentity{RequestToken: NewSecret("hush")}, NewJWT(Login{}, IdentityValue("hush", "JWT")),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "hush") {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
	}
}

func TestMounts(t *testing.T) {
	for _, mount := range []string{"jwt", "a/b/c", "team-1/jwt.x"} {
		if err := CheckMount(mount); err != nil {
			t.Errorf("%s: %v", mount, err)
		}
	}
	for _, mount := range []string{"", "/", "a//b", "..", "a/../sys", "a?x", "a#x", "a b", "a%2fb", "ä"} {
		wantKind(t, CheckMount(mount), BadConfig)
	}
}

// The lifetime that a login states may be nonsense.
func TestALoginsLifetimeIsBounded(t *testing.T) {
	tok, err := obtained(answer{Auth: &authAnswer{ClientToken: "hvs.x", LeaseDuration: 1 << 62}}, "test")
	if err != nil || tok.TTL <= 0 {
		t.Errorf("%v: %v", tok.TTL, err)
	}
}
