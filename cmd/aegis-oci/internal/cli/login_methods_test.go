// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// verified is what verify says of the one signature.
func (r *loginRig) verified(got loginRun) map[string]any {
	r.t.Helper()
	var result struct {
		Verified   bool
		Signatures []struct {
			Claims map[string]any
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || !result.Verified || len(result.Signatures) != 1 {
		r.t.Fatalf("%v: %s\n%s", err, got.stdout, got.stderr)
	}
	return result.Signatures[0].Claims
}

func (r *loginRig) verify(env map[string]string, flags ...string) loginRun {
	r.t.Helper()
	return r.run(r.t.Context(), env, "", append([]string{"verify", "--key", r.key(), "--format", "json", r.ref()}, flags...)...)
}

// wantSignAndVerify asserts the requests of both: beside the login one to sign, one
// to verify and one to revoke. Sign asks two questions first, before the upload: may
// it read the key, and may it sign.
func (r *loginRig) wantSignAndVerify(sign, verify func() loginRun, login ...string) {
	r.t.Helper()
	r.ok(sign())
	before := len(login)
	r.wantRequests(append(login, "GET transit/keys/K", "PUT transit/sign/K", "PUT transit/sign/K", "PUT auth/token/revoke-self")...)
	r.ok(verify())
	r.wantRequests(append(login[:before:before], "PUT transit/verify/K", "PUT auth/token/revoke-self")...)
	r.ownTokenRevoked()
	for _, token := range r.tokens() {
		if status, _ := r.srv.Do(r.t, "PUT", "auth/token/lookup", r.srv.RootToken, map[string]any{"token": token}); status == 200 {
			r.t.Error("a token that was obtained lives on")
		}
	}
}

func TestLoginAsAGitHubJob(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(map[string]any{"bound_audiences": []string{"https://vault.example.com/?a=b&c"}})
	env := r.github(r.issuer.RequestURL())
	flags := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-audience", "https://vault.example.com/?a=b&c"}
	r.wantSignAndVerify(
		func() loginRun { return r.push(env, flags...) },
		func() loginRun { return r.verify(env, flags...) },
		"PUT auth/K/jwt/login",
	)
	r.secret(r.issuer.Issued()...)
	if n := len(r.issuer.Issued()); n != 2 {
		t.Errorf("%d identity tokens for two runs", n)
	}
	got := r.verify(env, flags...)
	r.secret(r.issuer.Issued()...)
	if !strings.Contains(got.stderr, `aegis-oci: Vault token: jwt login with the job's identity token, role "ci"`) {
		t.Errorf("what was picked is not said: %s", got.stderr)
	}
	builder, _ := r.verified(got)["builder"].(map[string]any)
	if len(builder) != 5 {
		t.Errorf("builder claims %v", builder)
	}
	for _, name := range []string{"repository", "ref", "sha", "run_id", "workflow_ref"} {
		if builder[name] != jobClaims[name] {
			t.Errorf("builder claim %s is %q, want %q", name, builder[name], jobClaims[name])
		}
	}
}

func TestNoBuilderSignsNoJob(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(nil)
	env := r.github(r.issuer.RequestURL())
	r.ok(r.push(env, "--vault-role", "ci", "--vault-auth-mount", mount, "--no-builder"))
	got := r.ok(r.verify(env, "--vault-role", "ci", "--vault-auth-mount", mount))
	r.secret(r.issuer.Issued()...)
	if claims := r.verified(got); claims["builder"] != nil {
		t.Errorf("claims %v", claims)
	}
}

// GitLab puts the token into a variable of the job's own choice, others into files.
func TestLoginWithATokenFromAVariableOrAFile(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(nil)
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	env := map[string]string{"VAULT_ID_TOKEN": jwt}
	variable := []string{"--vault-auth", "jwt", "--vault-role", "ci", "--vault-auth-mount", "/auth/" + mount + "/", "--vault-jwt-env", "VAULT_ID_TOKEN"}
	file := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-file", r.write("jwt", jwt+"\n")}
	r.wantSignAndVerify(
		func() loginRun { return r.push(env, variable...) },
		func() loginRun { return r.verify(nil, file...) },
		"PUT auth/K/jwt/login",
	)
}

func TestLoginAsAPod(t *testing.T) {
	r := newLoginRig(t)
	mount := r.kubernetesMount()
	// The kubelet replaces the file: each login reads it again.
	path := r.podToken("one", nil)
	flags := []string{"--vault-auth", "kubernetes", "--vault-role", "app", "--vault-auth-mount", mount, "--vault-k8s-token-path", path}
	r.wantSignAndVerify(
		func() loginRun { return r.push(nil, flags...) },
		func() loginRun { r.podToken("two", nil); return r.verify(nil, flags...) },
		"PUT auth/K/k8s/login",
	)
}

// kubernetesMount makes a kubernetes auth method with the role app.
func (r *loginRig) kubernetesMount() string {
	r.t.Helper()
	mount := r.id + "/k8s"
	r.srv.Write(r.t, "sys/auth/"+mount, map[string]any{"type": "kubernetes"})
	host, ca := servertest.TokenReviewStandIn(r.t, r.issuer)
	r.srv.Write(r.t, "auth/"+mount+"/config", map[string]any{
		"kubernetes_host": host, "kubernetes_ca_cert": ca, "disable_local_ca_jwt": true,
		"disable_iss_validation": true, "token_reviewer_jwt": r.issuer.PodToken(r.t, "vault", "reviewer", nil),
	})
	r.srv.Write(r.t, "auth/"+mount+"/role/app", r.role(map[string]any{
		"bound_service_account_names": "aegis-app", "bound_service_account_namespaces": "default", "audience": "vault",
	}))
	return mount
}

// podToken writes a service account token where the kubelet would.
func (r *loginRig) podToken(jti string, claims map[string]any) string {
	r.t.Helper()
	all := map[string]any{"jti": jti}
	for k, v := range claims {
		all[k] = v
	}
	jwt := r.issuer.PodToken(r.t, "default", "aegis-app", all)
	r.secret(jwt)
	return r.write("pod-token", jwt)
}

func TestLoginWithAnAppRole(t *testing.T) {
	r := newLoginRig(t)
	mount := r.id + "/legacy/approle"
	roleID := r.appRole(mount, nil)
	secretID := r.secretID(mount)
	flags := []string{"--vault-role-id", roleID, "--vault-auth-mount", mount}
	r.wantSignAndVerify(
		func() loginRun {
			return r.pushWith(t.Context(), nil, secretID+"\n", append(flags, "--vault-secret-id-file", "-")...)
		},
		func() loginRun {
			return r.verify(nil, append(flags, "--vault-secret-id-file", r.write("secret-id", secretID+"\n"))...)
		},
		"PUT auth/K/legacy/approle/login",
	)
	// A variable, and all by the twins.
	r.ok(r.verify(map[string]string{
		"AEGIS_VAULT_AUTH": "approle", "AEGIS_VAULT_ROLE_ID": roleID, "AEGIS_VAULT_AUTH_MOUNT": mount,
		"AEGIS_VAULT_SECRET_ID_FILE": "env://MY_SECRET_ID", "MY_SECRET_ID": secretID,
	}))
}

func TestLoginThroughAnAgentsFile(t *testing.T) {
	r := newLoginRig(t)
	first, second := r.limitedToken(nil), r.limitedToken(nil)
	path := r.write("token", first)
	flags := []string{"--vault-auth", "agent", "--vault-token-file", path}
	r.ok(r.push(nil, flags...))
	r.requests()
	// Between its lookup and its use the token dies, and the agent writes another,
	// which is looked up as the first was.
	var once sync.Once
	r.proxy.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.HasPrefix(q.URL.Path, "/v1/transit/verify/") {
			once.Do(func() {
				r.srv.Write(t, "auth/token/revoke", map[string]any{"token": first})
				r.write("token", second)
			})
		}
		return false
	})
	r.ok(r.verify(nil, flags...))
	r.wantRequests("GET auth/token/lookup-self", "PUT transit/verify/K", "GET auth/token/lookup-self", "PUT transit/verify/K")
	if status, _ := r.srv.Do(t, "PUT", "auth/token/lookup", r.srv.RootToken, map[string]any{"token": second}); status != 200 {
		t.Error("the agent's token was revoked: it is not ours")
	}
}

func (r *loginRig) limitedToken(more map[string]any) string {
	r.t.Helper()
	opts := map[string]any{"policies": []string{r.id}, "no_default_policy": true, "ttl": "10m"}
	for k, v := range more {
		opts[k] = v
	}
	token := r.srv.Token(r.t, opts)
	r.secret(token)
	return token
}
