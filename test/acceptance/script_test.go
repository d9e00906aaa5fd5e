// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

var script = filepath.Join(root, "scripts", "vault_oidc_github_setup.sh")

// job is what GitHub says of a job on the main branch of acme/models.
func job(changes map[string]any) map[string]any {
	claims := map[string]any{
		"repository": "acme/models", "ref": "refs/heads/main",
		"workflow_ref": "acme/models/.github/workflows/sign.yml@refs/heads/main", "run_id": "77", "actor": "alice",
		"repository_id": "4711", "repository_owner_id": "42", "sub": "repo:acme@42/models@4711:ref:refs/heads/main",
	}
	for k, v := range changes {
		claims[k] = v
	}
	return claims
}

// TestSetupScriptLetsOneRepositorySign runs the script as an operator would, twice,
// with the real CLI on a real Vault, and then logs in as jobs do.
func TestSetupScriptLetsOneRepositorySign(t *testing.T) {
	t.Parallel()
	srv, issuer := servertest.Vault(t), servertest.OIDC(t)
	env := append(operator(t, srv, "vault"), "ISSUER="+issuer.URL)
	first := run(t, env, "", script, "aegis-transit-policy", "aegis-github-role", "acme/models")
	if first.code != 0 {
		t.Fatalf("exit code %d\n%s", first.code, first)
	}
	for _, want := range []string{
		"transit/keys/aegis-model-sign: made, type ecdsa-p256\n", "policy aegis-transit-policy: written\n", "auth/jwt: enabled\n",
		"auth/jwt/role/aegis-github-role: written\n", "Only jobs with ref=refs/heads/main, repository=acme/models can log in.\n",
	} {
		if !strings.Contains(first.stdout, want) {
			t.Errorf("it does not say %q:\n%s", want, first.stdout)
		}
	}
	before := len(srv.AuditEntries(t))
	second := run(t, env, "", script, "aegis-transit-policy", "aegis-github-role", "acme/models")
	if second.code != 0 || strings.Contains(second.stdout, "written") || strings.Contains(second.stdout, "made") {
		t.Errorf("the second run: exit code %d\n%s", second.code, second)
	}
	if got := changes(t, srv, before); len(got) > 0 {
		t.Errorf("the second run changed %v", got)
	}
	// The program agrees with the script.
	check := run(t, env, "", builtProgram(t), "vault", "setup", "github", "--repository", "acme/models", "--issuer", issuer.URL, "--check")
	if check.code != 0 || !strings.HasPrefix(check.stdout, "same: ") {
		t.Errorf("vault setup --check: exit code %d\n%s", check.code, check)
	}
	status, token := login(t, srv, "jwt", "aegis-github-role", issuer.Token(t, job(nil)))
	if status != http.StatusOK {
		t.Fatalf("the job cannot log in: status %d", status)
	}
	mayOnlySignAndVerify(t, srv, token)
	for name, claims := range map[string]map[string]any{
		"other repository":     {"repository": "acme/other"},
		"fork of the name":     {"repository": "acme/models-fork"},
		"other branch":         {"ref": "refs/heads/topic"},
		"pull request":         {"ref": "refs/pull/1/merge"},
		"other audience":       {"aud": "https://github.com/acme"},
		"no repository at all": {"repository": nil},
	} {
		if status, token := login(t, srv, "jwt", "aegis-github-role", issuer.Token(t, job(claims))); status == http.StatusOK || token != "" {
			t.Errorf("%s: it can log in (status %d)", name, status)
		}
	}
	other := servertest.OIDC(t)
	if status, _ := login(t, srv, "jwt", "aegis-github-role", other.Token(t, job(map[string]any{"iss": issuer.URL}))); status == http.StatusOK {
		t.Error("another issuer's token is accepted")
	}
}

// mayOnlySignAndVerify probes what a token of aegis-transit-policy may do.
func mayOnlySignAndVerify(t *testing.T, srv *servertest.Server, token string) {
	t.Helper()
	status, answer := srv.Do(t, http.MethodPut, "transit/sign/aegis-model-sign", token, map[string]any{"input": "bW9kZWw="})
	data, _ := answer["data"].(map[string]any)
	if status != http.StatusOK {
		t.Fatalf("it cannot sign: status %d: %v", status, answer["errors"])
	}
	_, answer = srv.Do(t, http.MethodPut, "transit/verify/aegis-model-sign", token, map[string]any{"input": "bW9kZWw=", "signature": data["signature"]})
	if data, _ = answer["data"].(map[string]any); data["valid"] != true {
		t.Errorf("it cannot verify what it signed: %v", answer)
	}
	denied := deniedEverywhereElse(t, srv, token, "sign", "verify")
	status, answer = srv.Do(t, http.MethodGet, "auth/token/lookup-self", token, nil)
	data, _ = answer["data"].(map[string]any)
	if ttl, _ := data["creation_ttl"].(float64); status != http.StatusOK || ttl < 60 || ttl > 3600 {
		t.Errorf("lookup-self: status %d, creation_ttl %v", status, data["creation_ttl"])
	}
	if status, _ := srv.Do(t, http.MethodPut, "auth/token/revoke-self", token, nil); status != http.StatusNoContent {
		t.Errorf("it cannot revoke itself: status %d", status)
	}
	if status, _ := srv.Do(t, http.MethodPut, "transit/sign/aegis-model-sign", token, map[string]any{"input": "bW9kZWw="}); status != http.StatusForbidden {
		t.Errorf("revoked, it signs: status %d", status)
	}
	prove(t, onlyOneKey, "sign, verify, lookup-self and revoke-self of a job's token work; %d other requests are denied: every path that this Vault says it has, and what its description leaves out", denied)
}

// TestSetupScriptWithABranchOfItsOwn uses every variable, under the name bao.
func TestSetupScriptWithABranchOfItsOwn(t *testing.T) {
	t.Parallel()
	srv, issuer := servertest.Vault(t, servertest.VaultTLS), servertest.OIDC(t)
	env := append(operator(t, srv, "bao"), "ISSUER="+issuer.URL, "VAULT_CLI=bao", "ENVIRONMENT=Production model",
		"REPOSITORY_ID=4711", "REPOSITORY_OWNER_ID=42", "AUDIENCE=https://vault.example.com", "TOKEN_TTL=120",
		"KEY=release", "TRANSIT_MOUNT=team/transit", "AUTH_MOUNT=jwt-github")
	for n, wantChanges := range []bool{true, false} {
		before := len(srv.AuditEntries(t))
		if r := run(t, env, "", script, "release-policy", "release", "acme/models"); r.code != 0 {
			t.Fatalf("run %d: exit code %d\n%s", n+1, r.code, r)
		}
		if got := changes(t, srv, before); len(got) > 0 != wantChanges {
			t.Errorf("run %d changed %v", n+1, got)
		}
	}
	claims := map[string]any{"environment": "Production model", "aud": "https://vault.example.com", "ref": "refs/tags/v1"}
	if status, _ := login(t, srv, "jwt-github", "release", issuer.Token(t, job(claims))); status != http.StatusOK {
		t.Errorf("the job cannot log in: status %d", status)
	}
	for name, value := range map[string]string{"environment": "Production model 2", "repository_id": "4712", "repository_owner_id": "43"} {
		wrong := map[string]any{name: value}
		for k, v := range claims {
			if k != name {
				wrong[k] = v
			}
		}
		if status, _ := login(t, srv, "jwt-github", "release", issuer.Token(t, job(wrong))); status == http.StatusOK {
			t.Errorf("%s=%s: it can log in", name, value)
		}
	}
}

// TestSetupScriptStopsAndTakesNothingAway: what others use stays as it was.
func TestSetupScriptStopsAndTakesNothingAway(t *testing.T) {
	t.Parallel()
	srv, issuer, other := servertest.Vault(t), servertest.OIDC(t), servertest.OIDC(t)
	env := append(operator(t, srv, "vault"), "ISSUER="+issuer.URL)
	stops := func(t *testing.T, reason string, env ...string) {
		t.Helper()
		before := len(srv.AuditEntries(t))
		r := run(t, env, "", script, "aegis-transit-policy", "ci", "acme/models")
		if r.code != 1 || !strings.Contains(r.stderr, reason) {
			t.Errorf("exit code %d, want 1 and %q:\n%s", r.code, reason, r)
		}
		for _, path := range changes(t, srv, before) {
			if strings.Contains(path, "delete") || strings.HasSuffix(path, "transit/keys/aegis-model-sign") || strings.Contains(path, "aegis-model-sign/config") || strings.Contains(path, "auth/taken/") {
				t.Errorf("it did %s", path)
			}
		}
	}
	// What step 1 of many notes makes: vault write -f transit/keys/NAME.
	srv.VaultCLI(t, "write", "-f", "transit/keys/aegis-model-sign")
	sealed := srv.VaultCLI(t, "write", "-field=ciphertext", "transit/encrypt/aegis-model-sign", "plaintext=c2VjcmV0")
	stops(t, "is of type aes256-gcm96, which cannot sign", env...)
	if got := srv.VaultCLI(t, "write", "-field=plaintext", "transit/decrypt/aegis-model-sign", "ciphertext="+sealed); got != "c2VjcmV0" {
		t.Errorf("what the key had encrypted now opens as %q", got)
	}
	signing := append(env, "KEY=aegis-model-sign-signing")
	srv.Write(t, "sys/auth/taken", map[string]any{"type": "jwt"})
	srv.Write(t, "auth/taken/config", map[string]any{"oidc_discovery_url": other.URL})
	stops(t, "auth/taken is in use for something else", append(signing, "AUTH_MOUNT=taken")...)
	srv.Write(t, "sys/auth/userpass", map[string]any{"type": "userpass"})
	stops(t, "auth/userpass is of type userpass", append(signing, "AUTH_MOUNT=userpass")...)
	stops(t, "cannot use Vault", append(signing, "VAULT_TOKEN=hvs.wrong")...)
	// A policy of somebody's own stays, and is said to differ.
	srv.Policy(t, "own", `path "transit/*" { capabilities = ["update"] }`)
	r := run(t, signing, "", script, "own", "ci", "acme/models")
	if r.code != 0 || !strings.Contains(r.stdout, "policy own: there, left alone, and not what this script would write") {
		t.Errorf("exit code %d\n%s", r.code, r)
	}
	data, _ := srv.Read(t, "sys/policies/acl/own")["data"].(map[string]any)
	if data["policy"] != `path "transit/*" { capabilities = ["update"] }` {
		t.Errorf("the policy is now %v", data["policy"])
	}
}

// TestSetupScriptChecksItsArguments: nothing is sent before they are right.
func TestSetupScriptChecksItsArguments(t *testing.T) {
	t.Parallel()
	srv := servertest.Vault(t)
	env := operator(t, srv, "vault")
	before := len(srv.AuditEntries(t))
	for name, tc := range map[string]struct {
		args []string
		env  string
	}{
		"none":              {nil, ""},
		"two":               {[]string{"p", "r"}, ""},
		"no owner":          {[]string{"p", "r", "models"}, ""},
		"glob":              {[]string{"p", "r", "acme/*"}, ""},
		"quote":             {[]string{"p", "r", `acme/x"y`}, ""},
		"two lines":         {[]string{"p", "r", "acme/x\nacme/y"}, ""},
		"root":              {[]string{"root", "r", "acme/models"}, ""},
		"short ref":         {[]string{"p", "r", "acme/models"}, "REF=main"},
		"glob ref":          {[]string{"p", "r", "acme/models"}, "REF=refs/heads/*"},
		"long life":         {[]string{"p", "r", "acme/models"}, "TOKEN_TTL=7200"},
		"plain HTTP":        {[]string{"p", "r", "acme/models"}, "ISSUER=http://issuer.example.com"},
		"substitution":      {[]string{"p", "$(id)", "acme/models"}, ""},
		"repository number": {[]string{"p", "r", "acme/models"}, "REPOSITORY_ID=1 2"},
	} {
		r := run(t, append(env, tc.env), "", script, tc.args...)
		if r.code != 2 || !strings.Contains(r.stderr, "usage: vault_oidc_github_setup.sh POLICY ROLE OWNER/REPOSITORY") {
			t.Errorf("%s: exit code %d\n%s", name, r.code, r)
		}
	}
	if got := srv.AuditEntries(t)[before:]; len(got) > 0 {
		t.Errorf("%d requests were sent", len(got))
	}
}

func TestScriptsPassShellcheck(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "scripts", "*.sh"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	r := run(t, os.Environ(), "", debian(t, "shellcheck", "shellcheck"), files...)
	if r.code != 0 {
		t.Errorf("%s", r)
	}
}
