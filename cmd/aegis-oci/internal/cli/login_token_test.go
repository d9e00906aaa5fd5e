// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// allRevoked fails when a token that a login gave out is still alive.
func (r *loginRig) allRevoked() {
	r.t.Helper()
	tokens := r.tokens()
	if len(tokens) == 0 {
		r.t.Error("no login has given a token")
	}
	for _, token := range tokens {
		if status, _ := r.srv.Do(r.t, "PUT", "auth/token/lookup", r.srv.RootToken, map[string]any{"token": token}); status == 200 {
			r.t.Error("a token that was obtained lives on")
		}
	}
}

// Each role limits its tokens to so many uses: both jobs are done all the same,
// with as few logins as the uses allow, and no token is left.
func TestTokensWithFewUsesDoTheirJob(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(nil)
	for uses, want := range map[int]struct{ logins, reads, revokes int }{
		1: {2, 0, 0}, // one to ask whether it may, one to sign
		2: {1, 0, 0}, // Vault revokes a token with its last use
		3: {1, 0, 1},
		4: {1, 0, 1},
		5: {1, 1, 1}, // enough to look at the key too
	} {
		role := r.role(map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "token_num_uses": uses})
		r.srv.Write(t, "auth/"+mount+"/role/ci", role)
		jwt := r.issuer.Token(t, jobClaims)
		r.secret(jwt)
		env := map[string]string{"JWT": jwt}
		flags := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT"}
		r.requests()
		if got := r.ok(r.push(env, flags...)); strings.Contains(got.stderr, "aegis-oci: warning") {
			t.Errorf("%d uses: %s", uses, got.stderr)
		}
		asked := strings.Join(r.requests(), "\n")
		if l, g, v := strings.Count(asked, "/login"), strings.Count(asked, "GET transit/keys"), strings.Count(asked, "revoke-self"); l != want.logins || g != want.reads || v != want.revokes || strings.Count(asked, "transit/sign") != 2 {
			t.Errorf("%d uses: %d logins, %d reads, %d revocations, want %+v:\n%s", uses, l, g, v, want, asked)
		}
		r.ok(r.verify(env, flags...))
		if l := strings.Count(strings.Join(r.requests(), "\n"), "/login"); l != 1 {
			t.Errorf("%d uses: %d logins to verify", uses, l)
		}
		r.allRevoked()
	}
}

// Without a public key the new signature is checked by Vault, which takes a use.
func TestFewUsesAndACheckByVault(t *testing.T) {
	r := newLoginRig(t)
	mount := r.id + "/approle"
	roleID := r.appRole(mount, map[string]any{"token_num_uses": 1})
	model := r.write("weights.bin", "weights")
	push := func(token string) loginRun {
		return r.run(t.Context(), nil, "", "push", "--sign", "--key", r.key(), r.ref(), model, "--vault-role-id", roleID,
			"--vault-auth-mount", mount, "--vault-wrapped-secret-id-file", r.write("wrapped", token))
	}
	// A wrapped secret_id cannot log in twice: the one use goes to signing.
	got := r.ok(push(r.wrap("auth/"+mount+"/role/ci/secret-id", nil)))
	if !strings.Contains(got.stderr, "was not checked") || !strings.Contains(got.stderr, "uses") {
		t.Errorf("%s", got.stderr)
	}
	r.srv.Write(t, "auth/"+mount+"/role/ci", r.role(map[string]any{"token_num_uses": 2}))
	r.requests()
	got = r.ok(push(r.wrap("auth/"+mount+"/role/ci/secret-id", nil)))
	if strings.Contains(got.stderr, "was not checked") {
		t.Errorf("%s", got.stderr)
	}
	r.wantRequests("PUT sys/wrapping/lookup", "PUT sys/wrapping/unwrap", "PUT auth/K/approle/login", "PUT transit/sign/K", "PUT transit/verify/K")
	r.allRevoked()
}

// A given token is looked up, which takes a use too; what is optional is left out.
func TestAGivenTokenWithFewUses(t *testing.T) {
	r := newLoginRig(t)
	r.srv.Policy(t, r.id, fmt.Sprintf(`
		path "transit/sign/%[1]s" { capabilities = ["update"] }
		path "auth/token/lookup-self" { capabilities = ["read"] }`, r.id))
	r.ok(r.push(map[string]string{"VAULT_TOKEN": r.limitedToken(map[string]any{"num_uses": 2})}))
	r.wantRequests("GET auth/token/lookup-self", "PUT transit/sign/K")
	r.ok(r.push(map[string]string{"VAULT_TOKEN": r.limitedToken(map[string]any{"num_uses": 10})}))
	r.wantRequests("GET auth/token/lookup-self", "GET transit/keys/K", "PUT transit/sign/K", "PUT transit/sign/K")
	r.refused(r.push(map[string]string{"VAULT_TOKEN": r.limitedToken(map[string]any{"num_uses": 1})}), 4, "vault_token_invalid")
}

func TestABatchTokenIsUsedAndNotRevoked(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(map[string]any{"token_type": "batch"})
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	flags := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT", "--require-short-lived"}
	if got := r.ok(r.push(map[string]string{"JWT": jwt}, flags...)); strings.Contains(got.stderr, "aegis-oci: warning") {
		t.Errorf("%s", got.stderr)
	}
	r.wantRequests("PUT auth/K/jwt/login", "GET transit/keys/K", "PUT transit/sign/K", "PUT transit/sign/K")
	tokens := r.tokens()
	if len(tokens) != 1 || !strings.HasPrefix(tokens[0], "b.") && !strings.HasPrefix(tokens[0], "hvb.") {
		t.Errorf("%d tokens, not one batch token", len(tokens))
	}
}

// An agent with auto-auth adds its token to what has none: that is all a proxy in
// front of Vault does here. A real agent runs in the heavier suites.
func TestLoginThroughAnAgentsListener(t *testing.T) {
	r := newLoginRig(t)
	agent := servertest.FaultProxy(t, r.srv.VaultAddr)
	token := r.limitedToken(nil)
	sent := 0
	agent.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		sent += len(q.Header.Values("X-Vault-Token"))
		q.Header.Set("X-Vault-Token", token)
		return false
	})
	env := map[string]string{"VAULT_AGENT_ADDR": agent.URL, "VAULT_TOKEN": r.limitedToken(nil)}
	r.ok(r.push(env, "--vault-auth", "agent"))
	r.ok(r.verify(env, "--vault-auth", "agent"))
	if sent != 0 {
		t.Errorf("%d requests had a token of ours", sent)
	}
	var asked []string
	for _, q := range agent.Requests() {
		asked = append(asked, q.Method+" "+strings.TrimPrefix(q.Path, "/v1/"))
	}
	want := "GET transit/keys/" + r.id + " PUT transit/sign/" + r.id + " PUT transit/sign/" + r.id + " PUT transit/verify/" + r.id
	if got := strings.Join(asked, " "); got != want || len(r.requests()) != 0 {
		t.Errorf("the agent was asked %s", got)
	}
	// With RequireShortLived the agent's token is looked at.
	agent.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		q.Header.Set("X-Vault-Token", r.srv.RootToken)
		return false
	})
	r.refused(r.verify(env, "--vault-auth", "agent", "--require-short-lived"), 4, "vault_token_long_lived", "root token")
	// An agent without auto-auth adds nothing.
	agent.Intercept(nil)
	got := r.push(env, "--vault-auth", "agent")
	r.refused(got, 4, "vault_no_token", "the listener added none")
	if !strings.Contains(got.stderr, "use_auto_auth_token") {
		t.Errorf("%s", got.stderr)
	}
}

func TestLoginWithACertificate(t *testing.T) {
	r := newLoginRig(t)
	tls := servertest.Stack(t, "-tls")
	r.secret(tls.RootToken)
	tls.TransitKey(t, r.id, "ecdsa-p256")
	tls.Policy(t, r.id, fmt.Sprintf(`
		path "transit/sign/%[1]s" { capabilities = ["update"] }
		path "transit/verify/%[1]s" { capabilities = ["update"] }
		path "auth/token/revoke-self" { capabilities = ["update"] }`, r.id))
	r.pub = r.write("tls.pub", string(tls.PublicKeyPEM(t, r.id, 0)))
	tls.Write(t, "sys/auth/cert", map[string]any{"type": "cert"})
	tls.Write(t, "auth/cert/certs/host", r.role(map[string]any{"certificate": readAll(t, tls.CAFile)}))
	env := map[string]string{"VAULT_ADDR": tls.VaultAddr, "VAULT_CACERT": tls.CAFile, "VAULT_CLIENT_CERT": tls.ClientCert, "VAULT_CLIENT_KEY": tls.ClientKey}
	before := len(tls.AuditEntries(t))
	r.ok(r.push(env, "--vault-auth", "cert"))
	r.ok(r.verify(env, "--vault-auth", "cert", "--vault-role", "host"))
	var paths []string
	for _, e := range tls.AuditEntries(t)[before:] {
		if request, _ := e["request"].(map[string]any); e["type"] == "response" {
			paths = append(paths, strings.ReplaceAll(request["path"].(string), r.id, "K"))
		}
	}
	want := "auth/cert/login transit/keys/K transit/sign/K transit/sign/K auth/token/revoke-self auth/cert/login transit/verify/K auth/token/revoke-self"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("requests %s\nwant %s", got, want)
	}
	r.refused(r.verify(env, "--vault-auth", "cert", "--vault-role", "other"), 4, "vault_login_refused", "cert")
	env["VAULT_ADDR"] = r.srv.VaultAddr
	r.refused(r.verify(env, "--vault-auth", "cert"), 2, "usage", "https")
}

// The key lives in one namespace and the auth method in another, or in the same.
func TestNamespaces(t *testing.T) {
	r := newLoginRig(t)
	ns := r.id + "-ns"
	r.srv.Write(t, "sys/namespaces/"+ns, map[string]any{})
	r.srv.Write(t, ns+"/sys/mounts/transit", map[string]any{"type": "transit"})
	r.srv.Write(t, ns+"/transit/keys/"+r.id, map[string]any{"type": "ecdsa-p256"})
	rules := func(prefix string) string {
		return fmt.Sprintf(`path "%[1]stransit/+/%[2]s" { capabilities = ["update"] }
			path "auth/token/revoke-self" { capabilities = ["update"] }`, prefix, r.id)
	}
	// In the root namespace, for the key in the other one.
	r.srv.Policy(t, r.id, rules(ns+"/"))
	mount := r.jwtMount(nil)
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	env := map[string]string{"JWT": jwt, "VAULT_NAMESPACE": ns}
	r.pub = "" // checked by Vault, in the key's namespace
	root := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT", "--vault-auth-namespace", "root"}
	r.ok(r.push(env, root...))
	r.ok(r.verify(env, root...))
	r.allRevoked()
	if got := r.verify(env, root[:len(root)-2]...); got.code != 4 || !strings.Contains(got.stdout, "vault_login_refused") {
		t.Errorf("the login was looked for in the key's namespace, and found: exit code %d", got.code)
	}
	// In the key's own namespace, with a wrapped secret_id.
	r.srv.Write(t, ns+"/sys/policies/acl/"+r.id, map[string]any{"policy": rules("")})
	r.srv.Write(t, ns+"/sys/auth/approle", map[string]any{"type": "approle"})
	r.srv.Write(t, ns+"/auth/approle/role/ci", r.role(nil))
	data, _ := r.srv.Read(t, ns+"/auth/approle/role/ci/role-id")["data"].(map[string]any)
	token := r.wrap(ns+"/auth/approle/role/ci/secret-id", nil)
	r.requests()
	r.ok(r.verify(map[string]string{"VAULT_NAMESPACE": ns}, "--vault-role-id", data["role_id"].(string), "--vault-role", "ci",
		"--vault-wrapped-secret-id-file", r.write("wrapped", token)))
	r.wantRequests("PUT sys/wrapping/lookup", "PUT sys/wrapping/unwrap", "PUT auth/approle/login", "PUT transit/verify/K", "PUT auth/token/revoke-self")
	r.allRevoked()
}
