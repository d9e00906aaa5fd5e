// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// nothingPushed fails when the registry has been written to, or a signature file.
func (r *loginRig) nothingPushed() {
	r.t.Helper()
	if got := r.run(r.t.Context(), nil, "", "inspect", "--format", "json", r.ref()); got.code != 4 || !strings.Contains(got.stdout, "registry_not_found") {
		r.t.Errorf("something was pushed: exit code %d: %s", got.code, got.stdout)
	}
	if _, err := os.Stat(filepath.Join(r.out, "bundle.json")); !os.IsNotExist(err) {
		r.t.Errorf("a signature file is left: %v", err)
	}
}

// The commonest failure: the role is bound to something else than the token says.
// The error shows both sides' words, and the upload has not begun.
func TestARefusedJWTSaysWhatItClaims(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(nil)
	for name, tc := range map[string]struct {
		claims map[string]any
		texts  []string
	}{
		"repository": {map[string]any{"repository": "evil/fork\nsecond line", "ref": "refs/heads/x"}, []string{`repository="evil/fork second line"`, `ref="refs/heads/x"`, `aud="vault"`}},
		"audience":   {map[string]any{"repository": "acme/models", "aud": []string{"one", "two"}}, []string{`aud=["one","two"]`, `sub="test"`, r.issuer.URL}},
		"expired":    {map[string]any{"repository": "acme/models", "exp": 1700000000, "nbf": 1699999000, "iat": 1699999000}, []string{"exp=2023-11-14T22:13:20Z (", " ago)"}},
	} {
		t.Run(name, func(t *testing.T) {
			jwt := r.issuer.Token(t, tc.claims)
			r.secret(jwt)
			got := r.push(map[string]string{"JWT": jwt}, "--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT")
			r.refused(got, 4, "vault_login_refused", append(tc.texts, `auth/`+mount+` as role "ci"`, "unverified")...)
			if asked := r.requests(); !slices.Equal(asked, []string{"PUT auth/K/jwt/login"}) {
				t.Errorf("requests %q", asked)
			}
		})
	}
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	env := map[string]string{"JWT": jwt}
	r.refused(r.push(env, "--vault-role", "no-such-role", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT"), 4, "vault_login_refused", `"no-such-role"`, `repository="acme/models"`)
	r.refused(r.push(env, "--vault-role", "ci", "--vault-auth-mount", "no/such/mount", "--vault-jwt-env", "JWT"), 4, "vault_login_refused", "auth/no/such/mount")
	r.nothingPushed()
}

func TestARefusedPodSaysWhoItIs(t *testing.T) {
	r := newLoginRig(t)
	mount := r.kubernetesMount()
	flags := []string{"--vault-role", "app", "--vault-auth-mount", mount, "--vault-k8s-token-path"}
	other := r.issuer.PodToken(t, "default", "somebody-else", nil)
	r.secret(other)
	r.refused(r.push(nil, append(flags, r.write("other", other))...), 4, "vault_login_refused", `sub="system:serviceaccount:default:somebody-else"`, `aud=["vault"]`)
	wrong := r.podToken("a", map[string]any{"aud": []string{"https://kubernetes.default.svc"}})
	// Its path is given: it may be sent, and the role's audience refuses it.
	r.refused(r.push(nil, append(flags, wrong)...), 4, "vault_login_refused", `aud=["https://kubernetes.default.svc"]`)
}

// A pod whose volume was projected without an audience must not hand its API
// server's token to Vault.
func TestTheDefaultServiceAccountTokenIsNotSent(t *testing.T) {
	r := newLoginRig(t)
	r.kubernetesMount()
	legacy := r.podToken("a", map[string]any{"aud": nil})
	token := r.issuer.PodToken(t, "default", "aegis-app", map[string]any{"aud": []string{r.issuer.URL}})
	r.secret(token)
	dflt := r.write("default", token)
	for _, path := range []string{legacy, dflt} {
		v := &vaultFlags{}
		v.register(newFlagSet())
		v.role, v.k8sTokenPath = "app", path // as if it were the default path
		a := &app{env: environment{}}
		l, err := a.vaultLogin(v)
		if err != nil || !strings.Contains(l.what, "kubernetes login with "+path) {
			t.Fatalf("%+v: %v", l, err)
		}
		r.wantNoIdentity(l)
	}
	r.refused(r.push(map[string]string{"AEGIS_VAULT_ROLE": "app"}), 4, "vault_no_token")
}

func TestAWrongRoleIsFoundBeforeTheUpload(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(map[string]any{"token_policies": []string{"default"}})
	registry := servertest.FaultProxy(t, r.srv.Registry)
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	model := r.write("weights.bin", "weights")
	got := r.run(t.Context(), map[string]string{"JWT": jwt}, "", "push", "--sign", "--key", r.key(), "--format", "json",
		registry.Addr+"/"+r.id+":v1", model, "--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT")
	r.refused(got, 4, "vault_denied", "transit/sign/"+r.id)
	if n := registry.Count(""); n != 0 {
		t.Errorf("%d requests to the registry before the refusal", n)
	}
	r.wantRequests("PUT auth/K/jwt/login", "GET transit/keys/K", "PUT transit/sign/K", "PUT auth/token/revoke-self")
	r.nothingPushed()
}

func TestALongLivedLoginIsReportedOrRefused(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(map[string]any{"token_ttl": "24h"})
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	env := map[string]string{"JWT": jwt}
	flags := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT"}
	r.refused(r.push(env, append(flags, "--require-short-lived")...), 4, "vault_token_long_lived", "24h0m0s, more than 1h0m0s")
	r.wantRequests("PUT auth/K/jwt/login", "PUT auth/token/revoke-self")
	r.nothingPushed()
	if got := r.ok(r.push(env, flags...)); !strings.Contains(got.stderr, "warning: the Vault token from the jwt login at auth/"+mount+": it lives for another 24h0m0s") {
		t.Errorf("no warning: %s", got.stderr)
	}
	if got := r.ok(r.verify(env, append(flags, "--max-token-ttl", "25h", "--require-short-lived")...)); strings.Contains(got.stderr, "warning") {
		t.Errorf("a warning: %s", got.stderr)
	}
}

// Usage errors come with a hint, before anybody is asked anything.
func TestWhatALoginLacksIsAUsageError(t *testing.T) {
	r := newLoginRig(t)
	r.secret("6f1d9a35-0000-4b4b-8888-no-secret-id")
	for _, tc := range []struct {
		flags []string
		env   map[string]string
		text  string
	}{
		{[]string{"--vault-auth", "oidc"}, nil, "oidc"},
		{[]string{"--vault-auth", "jwt"}, r.github(r.issuer.RequestURL()), "needs --vault-role"},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci"}, nil, requestURL},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci", "--vault-jwt-env", "NOTHING"}, nil, "NOTHING"},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci", "--vault-jwt-env", "6f1d9a35-0000-4b4b-8888-no-secret-id"}, nil, "name of a variable"},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci", "--vault-jwt-env", "A", "--vault-jwt-file", "b"}, nil, "exclude"},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci", "--vault-jwt-audience", ""}, r.github("https://github.example.com/"), "--vault-jwt-audience"},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci"}, r.github("http://github.example.com/"), "plain HTTP to github.example.com"},
		{[]string{"--vault-auth", "jwt", "--vault-role", "ci"}, r.github("ftp://github.example.com/"), "request URL"},
		{[]string{"--vault-auth", "kubernetes"}, nil, "needs --vault-role"},
		{[]string{"--vault-auth", "approle"}, nil, "--vault-role-id"},
		{[]string{"--vault-auth", "approle", "--vault-role-id", "r"}, nil, "needs a secret_id"},
		{[]string{"--vault-auth", "approle", "--vault-role-id", "r", "--vault-secret-id-file", "a", "--vault-wrapped-secret-id-file", "b"}, nil, "exclude"},
		// The secret itself where its file's name belongs is not repeated.
		{[]string{"--vault-auth", "approle", "--vault-role-id", "r", "--vault-secret-id-file", "6f1d9a35-0000-4b4b-8888-no-secret-id"}, nil, "no such file"},
		{[]string{"--vault-auth", "approle", "--vault-role-id", "r", "--vault-secret-id-file", "env://NOTHING"}, nil, "empty or not set"},
		{[]string{"--vault-auth", "approle", "--vault-role-id", "r", "--vault-secret-id-file", "-"}, nil, "no secret"},
		{[]string{"--vault-auth", "cert"}, nil, "client certificate"},
		{[]string{"--vault-auth", "kubernetes", "--vault-role", "r", "--vault-auth-mount", "../sys"}, nil, "--vault-auth-mount"},
		{[]string{"--vault-auth", "kubernetes", "--vault-role", "r", "--vault-auth-mount", "a?b"}, nil, "--vault-auth-mount"},
	} {
		r.refused(r.push(tc.env, tc.flags...), 2, map[bool]string{true: "vault_insecure", false: "usage"}[strings.Contains(tc.text, "plain HTTP")], tc.text)
	}
	r.refused(r.verify(nil, "--vault-auth", "kubernetes"), 2, "usage", "needs --vault-role")
	if asked := r.requests(); len(asked) != 0 {
		t.Errorf("Vault was asked %q", asked)
	}
	if len(r.issuer.Issued()) != 0 {
		t.Error("an identity token was asked for")
	}
	r.nothingPushed()
}

// Nothing to log in with is exit code 4: it may be there later.
func TestNoIdentity(t *testing.T) {
	r := newLoginRig(t)
	gone := filepath.Join(r.in, "gone")
	r.refused(r.push(nil, "--vault-role", "app", "--vault-k8s-token-path", gone), 4, "vault_no_identity", gone)
	r.refused(r.push(nil, "--vault-role", "ci", "--vault-jwt-file", r.write("jwt", "hvs.not-a-jwt")), 4, "vault_no_identity", "holds no JWT")
	r.secret("hvs.not-a-jwt")
	// The request token is refused once and not asked about again.
	proxy := servertest.FaultProxy(t, r.issuer.URL)
	env := map[string]string{requestURL: proxy.URL + "/idtoken?api-version=2.0", requestToken: "ghs-expired"}
	r.refused(r.push(env, "--vault-role", "ci"), 4, "vault_no_identity", "status 401")
	if proxy.Count("/idtoken") != 1 {
		t.Errorf("%d requests", proxy.Count("/idtoken"))
	}
	// In a job without a role the job's identity is passed over, and named.
	r.refused(r.push(env), 4, "vault_no_token", "could log in, and --vault-role is not given")
	if asked := r.requests(); len(asked) != 0 {
		t.Errorf("Vault was asked %q", asked)
	}
}
