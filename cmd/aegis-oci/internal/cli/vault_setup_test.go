// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/vaultsetup"
)

// TestVaultSetupPrintsWithoutAVault: what is printed depends on flags alone.
func TestVaultSetupPrintsWithoutAVault(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{
		"cli":       "vault write auth/jwt/role/aegis-github-role - <<'JSON'",
		"hcl":       "path \"transit/sign/aegis-model-sign\" {\n  capabilities = [\"update\"]\n}",
		"terraform": `resource "vault_jwt_auth_backend_role" "aegis" {`,
	} {
		r := runCLI(t, nil, "", "vault", "setup", "github", "--repository", "acme/models", "--output", output, "--format", "json")
		wantExit(t, r, exitOK, "only jobs of ref=refs/heads/main, repository=acme/models can log in")
		got := decode[vaultSetupResult](t, r)
		if got.Output != output || !strings.Contains(got.Document, want) || got.Verdict != "" || got.Method != "github" {
			t.Errorf("%s: %+v", output, got)
		}
	}
	// The text on stdout is the document alone, to be piped.
	r := runCLI(t, map[string]string{"AEGIS_REPOSITORY": "acme/models", "AEGIS_ENVIRONMENT": "production"}, "", "vault", "setup", "github")
	wantExit(t, r, exitOK, `"bound_claims": {"environment":"production","repository":"acme/models"}`)
	if !strings.HasPrefix(r.stdout, "#!/bin/sh\n") || strings.Contains(r.stdout, "refs/heads/main") {
		t.Errorf("stdout:\n%s", r.stdout)
	}
}

func TestVaultSetupRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`"oidc" is no method`:                        {"oidc"},
		"--service-account does not go with github":  {"github", "--repository", "acme/models", "--service-account", "x"},
		"--repository: \"acme/*\" is not":            {"github", "--repository", "acme/*"},
		"--output must be cli, hcl or terraform":     {"approle", "--output", "yaml"},
		"--bound-claim ref: give NAME=VALUE":         {"jwt", "--issuer", "https://gitlab.example.com", "--audience", "vault", "--bound-claim", "ref"},
		"--bound-claim ref=b: give NAME=VALUE, each": {"jwt", "--issuer", "https://gitlab.example.com", "--audience", "vault", "--bound-claim", "ref=a", "--bound-claim", "ref=b"},
		"--check-jwt: open no-such-file":             {"kubernetes", "--check-jwt", "no-such-file"},
		"it is not a JSON Web Token":                 {"kubernetes", "--check-jwt", "-"},
		"AppRole takes no identity token":            {"approle", "--check-jwt", "-"},
	} {
		r := runCLI(t, nil, "not.a-token", append([]string{"vault", "setup"}, args...)...)
		wantExit(t, r, exitUsage, want)
		if r.stdout != "" {
			t.Errorf("%s: stdout:\n%s", want, r.stdout)
		}
	}
}

// TestVaultSetupCheckHasThreeOutcomes, and each names what it is about.
func TestVaultSetupCheckHasThreeOutcomes(t *testing.T) {
	t.Parallel()
	srv := servertest.Stack(t)
	root := map[string]string{"VAULT_ADDR": srv.VaultAddr, "VAULT_TOKEN": srv.RootToken}
	check := []string{"vault", "setup", "approle", "--check", "--format", "json"}
	r := runCLI(t, root, "", check...)
	wantExit(t, r, exitRejected, "settings are not as planned")
	if got := decode[vaultSetupResult](t, r); got.Verdict != "differs" || got.Checks[0].Status != vaultsetup.Same || got.Checks[1].Status != vaultsetup.Missing {
		t.Errorf("%+v", got)
	}
	plan, err := vaultsetup.New(vaultsetup.AppRole, vaultsetup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range plan.Resources[1:] {
		body := make(map[string]any)
		for _, f := range res.Fields {
			if d, ok := f.Value.(time.Duration); ok {
				f.Value = d.String()
			}
			body[f.Name] = f.Value
		}
		srv.Write(t, res.Path, body)
	}
	r = runCLI(t, root, "", check...)
	wantExit(t, r, exitOK)
	if got := decode[vaultSetupResult](t, r); got.Verdict != "same" || len(got.Checks) < 15 {
		t.Errorf("%+v", got)
	}
	// To read them is all it needs; Vault wants sudo for looking at one auth mount.
	var rules []string
	for _, res := range plan.Resources {
		capability := "read"
		if res.Kind == vaultsetup.Auth {
			capability = "read\", \"sudo"
		}
		rules = append(rules, res.Path, capability)
	}
	auditor := map[string]string{"VAULT_ADDR": srv.VaultAddr, "VAULT_TOKEN": limitedToken(t, srv, "setup-auditor", rules...)}
	wantExit(t, runCLI(t, auditor, "", check...), exitOK)
	blind := map[string]string{"VAULT_ADDR": srv.VaultAddr, "VAULT_TOKEN": limitedToken(t, srv, "setup-blind", rules[:4]...)}
	r = runCLI(t, blind, "", check...)
	wantExit(t, r, exitUndecided, "settings could not be read")
	if got := decode[vaultSetupResult](t, r); got.Verdict != "unknown" || !strings.Contains(got.Checks[len(got.Checks)-1].Detail, `"read" on auth/approle/role/aegis-approle-role`) {
		t.Errorf("%+v", got)
	}
}

// TestVaultSetupCheckJWTShowsNoTokenAndAsksNobody: no Vault is configured.
func TestVaultSetupCheckJWTShowsNoTokenAndAsksNobody(t *testing.T) {
	t.Parallel()
	claims, err := json.Marshal(map[string]any{
		"aud": []string{"https://kubernetes.default.svc"}, "sub": "system:serviceaccount:default:aegis-app", "exp": time.Now().Add(time.Hour).Unix(), "private": "of-nobodys-concern",
	})
	if err != nil {
		t.Fatal(err)
	}
	token := "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(claims) + ".c2lnbmF0dXJl"
	r := runCLI(t, nil, token+"\n", "vault", "setup", "kubernetes", "--check-jwt", "-", "--debug")
	wantExit(t, r, exitRejected, "differs  token aud", "want  vault", "have  https://kubernetes.default.svc", "2 of 3 as planned")
	for _, hidden := range []string{token, "c2lnbmF0dXJl", "of-nobodys-concern"} {
		if strings.Contains(r.stdout+r.stderr, hidden) {
			t.Errorf("%q is printed:\n%s%s", hidden, r.stdout, r.stderr)
		}
	}
}
