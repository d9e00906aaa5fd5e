// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// setups are the command lines of vault setup that the tests run.
func setups(t *testing.T, issuer string) map[string][]string {
	t.Helper()
	return map[string][]string{
		"github": {"--repository", "acme/models", "--issuer", issuer, "--repository-id", "4711", "--repository-owner-id", "42"},
		"jwt": {"--issuer", issuer, "--audience", "vault", "--bound-claim", "project_path=acme/models", "--bound-claim", "ref_protected=true",
			"--user-claim", "project_path"},
		"kubernetes": {"--kubernetes-host", "https://127.0.0.1:6443", "--kubernetes-ca", caFile(t)},
		"approle":    {"--bound-cidr", "127.0.0.0/8", "--secret-id-ttl", "5m"},
	}
}

// caFile is a certificate authority, which Vault wants to parse.
func caFile(t *testing.T) string {
	t.Helper()
	return servertest.Vault(t, servertest.VaultTLS).CAFile
}

// TestSetupOutputMakesWhatCheckExpects runs the shell script that vault setup
// prints, twice, with the real CLI; --check then finds nothing else.
func TestSetupOutputMakesWhatCheckExpects(t *testing.T) {
	t.Parallel()
	issuer := servertest.OIDC(t)
	for method, flags := range setups(t, issuer.URL) {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			srv := servertest.Vault(t)
			env := operator(t, srv, "vault")
			setup := append([]string{"vault", "setup", method}, flags...)
			empty := run(t, env, "", builtProgram(t), append(setup, "--check")...)
			if empty.code != 3 || !strings.Contains(empty.stdout, "missing  transit/keys/aegis-model-sign") {
				t.Errorf("--check of an empty Vault: exit code %d\n%s", empty.code, empty)
			}
			printed := run(t, env, "", builtProgram(t), setup...)
			if printed.code != 0 {
				t.Fatalf("exit code %d\n%s", printed.code, printed)
			}
			for range 2 {
				if r := run(t, env, printed.stdout, "sh"); r.code != 0 {
					t.Fatalf("the script ends with %d\n%s\n%s", r.code, printed.stdout, r)
				}
			}
			before := len(srv.AuditEntries(t))
			check := run(t, env, "", builtProgram(t), append(setup, "--check")...)
			if check.code != 0 || !strings.HasPrefix(check.stdout, "same: ") {
				t.Errorf("--check: exit code %d\n%s", check.code, check)
			}
			if got := changes(t, srv, before); len(got) > 0 {
				t.Errorf("--check changed %v", got)
			}
		})
	}
}

// TestSetupPolicyIsHCL gives the policy to vault policy write.
func TestSetupPolicyIsHCL(t *testing.T) {
	t.Parallel()
	srv := servertest.Vault(t)
	env := operator(t, srv, "vault")
	r := run(t, env, "", builtProgram(t), "vault", "setup", "approle", "--verify-only", "--output", "hcl")
	if w := run(t, env, r.stdout, servertest.VaultProgram(t), "policy", "write", "p", "-"); w.code != 0 {
		t.Fatalf("exit code %d\n%s", w.code, w)
	}
	token := srv.Token(t, map[string]any{"policies": []string{"p"}, "no_default_policy": true, "ttl": "5m"})
	srv.TransitKey(t, "aegis-model-sign", "ecdsa-p256")
	for path, want := range map[string]int{"transit/sign/aegis-model-sign": 403, "transit/verify/aegis-model-sign": 400} {
		if status, _ := srv.Do(t, http.MethodPut, path, token, map[string]any{"input": "bW9kZWw="}); status != want {
			t.Errorf("%s: status %d, want %d", path, status, want)
		}
	}
}

type resource struct {
	Kind       string
	Attributes map[string]any
	References map[string]string
}

// TestSetupTerraformSaysTheSame parses the configuration and writes what its
// resources say where the provider would; --check then finds nothing else.
func TestSetupTerraformSaysTheSame(t *testing.T) {
	t.Parallel()
	issuer := servertest.OIDC(t)
	for method, flags := range setups(t, issuer.URL) {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			srv := servertest.Vault(t)
			srv.Delete(t, "sys/mounts/transit")
			env := operator(t, srv, "vault")
			setup := append([]string{"vault", "setup", method}, flags...)
			printed := run(t, env, "", builtProgram(t), append(setup, "--output", "terraform")...)
			parsed := run(t, env, printed.stdout, servertest.TerraformParser(t))
			if parsed.code != 0 {
				t.Fatalf("it is no Terraform: %s\n%s", parsed.stderr, printed.stdout)
			}
			decoder := json.NewDecoder(strings.NewReader(parsed.stdout))
			for {
				var r resource
				if err := decoder.Decode(&r); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				apply(t, srv, method, r)
			}
			if check := run(t, env, "", builtProgram(t), append(setup, "--check")...); check.code != 0 {
				t.Errorf("--check: exit code %d\n%s\n%s", check.code, check, printed.stdout)
			}
		})
	}
}

// apply is what the provider does with a resource.
func apply(t *testing.T, srv *servertest.Server, method string, r resource) {
	t.Helper()
	mount := map[string]string{"github": "jwt"}[method]
	if mount == "" {
		mount = method
	}
	take := func(name string) string {
		v, _ := r.Attributes[name].(string)
		delete(r.Attributes, name)
		return v
	}
	if r.References["token_policies"] == "[vault_policy.aegis.name]" {
		r.Attributes["token_policies"] = []string{"aegis-transit-policy"}
	}
	switch r.Kind {
	case "vault_mount":
		srv.Write(t, "sys/mounts/"+take("path"), r.Attributes)
	case "vault_transit_secret_backend_key":
		name := take("name")
		srv.Write(t, "transit/keys/"+name, r.Attributes)
		srv.Write(t, "transit/keys/"+name+"/config", map[string]any{"deletion_allowed": r.Attributes["deletion_allowed"]})
	case "vault_policy":
		srv.Write(t, "sys/policies/acl/"+take("name"), r.Attributes)
	case "vault_auth_backend":
		srv.Write(t, "sys/auth/"+take("path"), r.Attributes)
	case "vault_jwt_auth_backend":
		path := take("path")
		srv.Write(t, "sys/auth/"+path, map[string]any{"type": take("type")})
		srv.Write(t, "auth/"+path+"/config", r.Attributes)
	case "vault_kubernetes_auth_backend_config":
		srv.Write(t, "auth/"+mount+"/config", r.Attributes)
	case "vault_jwt_auth_backend_role", "vault_kubernetes_auth_backend_role", "vault_approle_auth_backend_role":
		srv.Write(t, "auth/"+mount+"/role/"+take("role_name"), r.Attributes)
	default:
		t.Errorf("resource of kind %s", r.Kind)
	}
}

// deviation is a write, and the path and field of each difference that it makes.
type deviation struct {
	name, path string
	body       map[string]any
	want       []string
}

const role, policy = "auth/jwt/role/aegis-github-role", "sys/policies/acl/aegis-transit-policy"

func deviations(otherIssuer string) []deviation {
	return []deviation{
		{"any branch", role, map[string]any{"bound_claims": map[string]any{"repository": "acme/models"}},
			[]string{role + " bound_claims"}},
		{"globs", role, map[string]any{"bound_claims_type": "glob"},
			[]string{role + " bound_claims_type"}},
		{"a day", role, map[string]any{"token_ttl": "24h", "token_max_ttl": "24h"}, []string{role + " token_ttl", role + " token_max_ttl"}},
		{"for ever", role, map[string]any{"token_period": "1h"}, []string{role + " token_period"}},
		{"root's friend", role, map[string]any{"token_policies": []string{"aegis-transit-policy", "admin"}}, []string{role + " token_policies"}},
		{"default policy", role, map[string]any{"token_no_default_policy": false}, []string{role + " token_no_default_policy"}},
		{"wider policy", policy, map[string]any{"policy": `path "transit/*" { capabilities = ["update"] }`}, []string{policy + " policy"}},
		{"one path more", policy, map[string]any{"policy": `path "transit/sign/aegis-model-sign" { capabilities = ["update"] }
path "transit/verify/aegis-model-sign" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "transit/keys/aegis-model-sign" { capabilities = ["read"] }`}, []string{policy + " policy"}},
		{"other issuer", "auth/jwt/config", map[string]any{"oidc_discovery_url": otherIssuer}, []string{"auth/jwt/config oidc_discovery_url", "auth/jwt/config bound_issuer"}},
		{"deletable key", "transit/keys/aegis-model-sign/config", map[string]any{"deletion_allowed": true}, []string{"transit/keys/aegis-model-sign deletion_allowed"}},
		{"exportable key", "transit/keys/aegis-model-sign/config", map[string]any{"exportable": true}, []string{"transit/keys/aegis-model-sign exportable"}},
	}
}

// TestCheckFindsEachChange makes one change at a time, as a colleague might.
func TestCheckFindsEachChange(t *testing.T) {
	t.Parallel()
	srv, issuer, other := servertest.Vault(t), servertest.OIDC(t), servertest.OIDC(t)
	env := operator(t, srv, "vault")
	setup := []string{"vault", "setup", "github", "--repository", "acme/models", "--issuer", issuer.URL}
	script := run(t, env, "", builtProgram(t), setup...).stdout
	for _, tc := range deviations(other.URL) {
		t.Run(tc.name, func(t *testing.T) {
			srv.Write(t, "sys/auth/jwt", map[string]any{"type": "jwt"})
			if r := run(t, env, script, "sh"); r.code != 0 {
				t.Fatalf("the script ends with %d\n%s", r.code, r)
			}
			if tc.path == role { // written in part, a role keeps the rest; these two it wants each time
				tc.body["role_type"], tc.body["user_claim"] = "jwt", "repository"
			}
			srv.Write(t, tc.path, tc.body)
			r := run(t, env, "", builtProgram(t), append(setup, "--check", "--format", "json")...)
			var said struct {
				Verdict string
				Checks  []struct{ Path, Field, Status string }
			}
			if err := json.Unmarshal([]byte(r.stdout), &said); err != nil || r.code != 3 || said.Verdict != "differs" {
				t.Fatalf("exit code %d, %v\n%s", r.code, err, r)
			}
			var found []string
			for _, c := range said.Checks {
				if c.Status != "same" {
					found = append(found, c.Path+" "+c.Field)
				}
			}
			for _, want := range tc.want {
				if !slices.Contains(found, want) {
					t.Errorf("%s is not among %v", want, found)
				}
			}
			srv.Delete(t, "sys/auth/jwt")
			srv.Write(t, "transit/keys/aegis-model-sign/config", map[string]any{"deletion_allowed": true})
			srv.Delete(t, "transit/keys/aegis-model-sign")
		})
	}
	// A policy that grants the same in other words is no difference.
	srv.Write(t, "sys/auth/jwt", map[string]any{"type": "jwt"})
	run(t, env, script, "sh")
	srv.Policy(t, "aegis-transit-policy", `path "auth/token/revoke-self" { capabilities = ["update"] } # ends
path "auth/token/lookup-self" { capabilities = [ "read" ] }
path "transit/verify/aegis-model-sign" { capabilities = ["update"] }
path "transit/sign/aegis-model-sign" { capabilities = ["update"] }`)
	if r := run(t, env, "", builtProgram(t), append(setup, "--check")...); r.code != 0 {
		t.Errorf("exit code %d\n%s", r.code, r)
	}
	// Who may read nothing can tell nothing.
	blind := slices.Concat(env, []string{"VAULT_TOKEN=" + srv.Token(t, map[string]any{"policies": []string{"default"}, "ttl": "5m"})})
	if r := run(t, blind, "", builtProgram(t), append(setup, "--check")...); r.code != 4 || !strings.Contains(r.stdout, "unknown  transit/keys/aegis-model-sign") {
		t.Errorf("exit code %d\n%s", r.code, r)
	}
}

// TestCheckJWTSaysWhatVaultWouldRefuse compares tokens with the role, and the
// answer with Vault's own.
func TestCheckJWTSaysWhatVaultWouldRefuse(t *testing.T) {
	t.Parallel()
	srv, issuer := servertest.Vault(t), servertest.OIDC(t)
	env := operator(t, srv, "vault")
	setup := []string{"vault", "setup", "github", "--repository", "acme/models", "--issuer", issuer.URL}
	if r := run(t, env, run(t, env, "", builtProgram(t), setup...).stdout, "sh"); r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r)
	}
	for name, tc := range map[string]struct {
		claims map[string]any
		want   string
	}{
		"right":            {nil, "same: "},
		"other repository": {map[string]any{"repository": "acme/other"}, "differs  token repository"},
		"case":             {map[string]any{"repository": "Acme/models"}, "upper and lower case count"},
		"other ref":        {map[string]any{"ref": "refs/heads/dev"}, "differs  token ref"},
		"no ref":           {map[string]any{"ref": nil}, "missing  token ref"},
		"other audience":   {map[string]any{"aud": "sts.amazonaws.com"}, "differs  token aud"},
		"two audiences":    {map[string]any{"aud": []string{"x", "vault"}}, "same: "},
		"other issuer":     {map[string]any{"iss": "https://eve.example.com"}, "differs  token iss"},
		"expired":          {map[string]any{"exp": 1000, "iat": 900, "nbf": 900}, "it expired"},
	} {
		token := issuer.Token(t, job(tc.claims))
		file := filepath.Join(t.TempDir(), "token.jwt")
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(srv.AuditEntries(t))
		r := run(t, srv.VaultEnv(t), "", builtProgram(t), append(setup, "--check-jwt", file)...)
		if got := len(srv.AuditEntries(t)); got != before {
			t.Errorf("%s: --check-jwt asked Vault", name)
		}
		status, _ := login(t, srv, "jwt", "aegis-github-role", token)
		if (r.code == 0) != (status == http.StatusOK) || r.code != 0 && r.code != 3 || !strings.Contains(r.stdout, tc.want) {
			t.Errorf("%s: exit code %d, Vault's status %d; want %q in\n%s", name, r.code, status, tc.want, r)
		}
		if signature := token[strings.LastIndex(token, ".")+1:]; strings.Contains(r.String(), signature) {
			t.Errorf("%s: the token is in the output", name)
		}
	}
	if r := run(t, srv.VaultEnv(t), "hvs.secret-that-is-no-jwt", builtProgram(t), append(setup, "--check-jwt", "-")...); r.code != 2 || strings.Contains(r.String(), "hvs.secret") {
		t.Errorf("no token at all: exit code %d\n%s", r.code, r)
	}
}
