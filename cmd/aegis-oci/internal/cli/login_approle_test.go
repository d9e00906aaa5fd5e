// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// wrap writes body to path as root and returns the wrapping token of the answer.
func (r *loginRig) wrap(path string, body map[string]any) string {
	r.t.Helper()
	status, answer := r.srv.DoWith(r.t, http.MethodPut, path, r.srv.RootToken, body, http.Header{"X-Vault-Wrap-TTL": {"60s"}})
	info, _ := answer["wrap_info"].(map[string]any)
	token, _ := info["token"].(string)
	if status != http.StatusOK || token == "" {
		r.t.Fatalf("status %d: %v", status, answer)
	}
	r.secret(token)
	return token
}

// wrapped is an AppRole, a wrapped secret_id of it and the flags to use it.
func (r *loginRig) wrapped() (mount, token string, flags []string) {
	r.t.Helper()
	mount = r.id + "/approle"
	roleID := r.appRole(mount, nil)
	token = r.wrap("auth/"+mount+"/role/ci/secret-id", nil)
	return mount, token, []string{
		"--vault-auth", "approle", "--vault-role", "ci", "--vault-role-id", roleID, "--vault-auth-mount", mount,
		"--vault-wrapped-secret-id-file", r.write("wrapped", token+"\n"),
	}
}

func TestAWrappedSecretIDIsLookedUpUnwrappedAndUsedOnce(t *testing.T) {
	r := newLoginRig(t)
	_, _, flags := r.wrapped()
	r.ok(r.push(nil, flags...))
	r.wantRequests("PUT sys/wrapping/lookup", "PUT sys/wrapping/unwrap", "PUT auth/K/approle/login",
		"GET transit/keys/K", "PUT transit/sign/K", "PUT transit/sign/K", "PUT auth/token/revoke-self")
	r.ownTokenRevoked()
	// A second run of the same host, or somebody who copied the file.
	r.refused(r.verify(nil, flags...), 4, "vault_wrapping_token_used", "somebody else has")
	r.wantRequests("PUT sys/wrapping/lookup")
}

func TestAWrappingTokenThatIsNotOneIsPossibleTheft(t *testing.T) {
	r := newLoginRig(t)
	_, _, flags := r.wrapped()
	flags[len(flags)-1] = r.write("wrapped", "s.neverexisted12345678901234")
	r.secret("s.neverexisted12345678901234")
	got := r.push(nil, flags...)
	r.refused(got, 4, "vault_wrapping_token_used")
	if !strings.Contains(got.stderr, "aegis-oci: hint: possible theft") {
		t.Errorf("%s", got.stderr)
	}
	r.nothingPushed()
}

// A thief who unwrapped the secret_id may leave another wrapping token in its
// place, so that nobody notices. It is looked at, and not unwrapped.
func TestAnExchangedWrappingTokenIsNotUnwrapped(t *testing.T) {
	r := newLoginRig(t)
	mount, _, flags := r.wrapped()
	r.appRole(r.id+"/other", nil)
	r.srv.Write(t, "auth/"+mount+"/role/cousin", r.role(nil))
	for name, token := range map[string]string{
		"sys/wrapping/wrap":                         r.wrap("sys/wrapping/wrap", map[string]any{"secret_id": "stolen"}),
		"auth/" + r.id + "/other/role/ci/secret-id": r.wrap("auth/"+r.id+"/other/role/ci/secret-id", nil),
		"auth/" + mount + "/role/cousin/secret-id":  r.wrap("auth/"+mount+"/role/cousin/secret-id", nil),
	} {
		r.requests()
		flags[len(flags)-1] = r.write("wrapped", token)
		r.refused(r.push(nil, flags...), 4, "vault_wrapping_token_foreign", "made by "+name, "not by auth/"+mount+"/role/ci/secret-id")
		r.wantRequests("PUT sys/wrapping/lookup")
		// It was left whole: whoever looks into the matter can still unwrap it.
		if status, _ := r.srv.Do(t, "PUT", "sys/wrapping/unwrap", token, map[string]any{}); status != 200 {
			t.Errorf("%s: unwrapping afterwards: status %d", name, status)
		}
	}
	r.nothingPushed()
}

// The answer to unwrap is lost: the secret_id may be out, and a second try would
// look like a thief's.
func TestALostAnswerToUnwrapIsNotATheft(t *testing.T) {
	for name, fault := range map[string]servertest.Fault{
		"cut":         {Path: "/wrapping/unwrap", Cut: true},
		"cut halfway": {Path: "/wrapping/unwrap", Cut: true, CutAfter: 20},
		"gateway":     {Path: "/wrapping/unwrap", Status: 504},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLoginRig(t)
			_, _, flags := r.wrapped()
			r.proxy.Reset()
			fault.Replace = r.record
			r.proxy.Fail(fault)
			r.refused(r.push(nil, flags...), 4, "vault_outcome_unknown", "unwrap the secret_id", "not repeated")
			r.wantRequests("PUT sys/wrapping/lookup", "PUT sys/wrapping/unwrap")
			r.nothingPushed()
		})
	}
}

// The answer to the login is lost: a secret_id for one use may be spent.
func TestALostAnswerToAnAppRoleLoginIsNotRepeated(t *testing.T) {
	for name, fault := range map[string]servertest.Fault{
		"cut":         {Path: "/login", Cut: true},
		"cut halfway": {Path: "/login", Cut: true, CutAfter: 20},
		"gateway":     {Path: "/login", Status: 502},
		"no JSON":     {Path: "/login", Status: 200, Body: "<html>"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLoginRig(t)
			mount := r.id + "/approle"
			roleID := r.appRole(mount, map[string]any{"secret_id_num_uses": 1})
			flags := []string{"--vault-role-id", roleID, "--vault-auth-mount", mount, "--vault-secret-id-file", r.write("secret-id", r.secretID(mount))}
			r.proxy.Reset()
			fault.Replace = r.record
			r.proxy.Fail(fault)
			r.refused(r.push(nil, flags...), 4, "vault_outcome_unknown", "not repeated")
			r.wantRequests("PUT auth/K/approle/login")
			r.nothingPushed()
		})
	}
}

// Nothing was sent while nobody listened: waiting is safe, and a pod that starts
// before its Vault comes up.
func TestALoginWaitsForAVaultThatIsDown(t *testing.T) {
	r := newLoginRig(t)
	mount := r.id + "/approle"
	roleID := r.appRole(mount, map[string]any{"secret_id_num_uses": 1})
	flags := []string{"--vault-role-id", roleID, "--vault-auth-mount", mount, "--vault-secret-id-file", r.write("secret-id", r.secretID(mount))}
	r.proxy.Down()
	done := make(chan loginRun)
	go func() { done <- r.push(nil, append(flags, "--retry-timeout", "30s")...) }()
	if got, ok := r.early(done); ok {
		t.Fatalf("exit code %d while Vault was down: %s", got.code, got.stderr)
	}
	r.proxy.Up(t)
	r.ok(<-done)
	r.ownTokenRevoked()
}

func TestARefusedSecretID(t *testing.T) {
	r := newLoginRig(t)
	mount := r.id + "/approle"
	roleID := r.appRole(mount, map[string]any{"secret_id_num_uses": 1})
	flags := []string{"--vault-role-id", roleID, "--vault-auth-mount", mount, "--vault-secret-id-file", r.write("secret-id", r.secretID(mount))}
	r.ok(r.push(nil, flags...))
	r.requests()
	r.refused(r.verify(nil, flags...), 4, "vault_login_refused", "approle at auth/"+mount)
	r.wantRequests("PUT auth/K/approle/login")
}
