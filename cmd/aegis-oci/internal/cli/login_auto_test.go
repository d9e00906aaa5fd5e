// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

func newFlagSet() *flagSet { return pflag.NewFlagSet("test", pflag.ContinueOnError) }

// wantNoIdentity opens a session by l and expects that nothing was sent.
func (r *loginRig) wantNoIdentity(l vaultLogin) {
	r.t.Helper()
	_, err := vault.Open(r.t.Context(), vault.Config{Address: r.proxy.URL}, l.source)
	var e *vault.Error
	if !errors.As(err, &e) || e.Kind != vault.NoIdentity || !strings.Contains(e.Error(), "API server") {
		r.t.Errorf("%v", err)
	}
	if n := len(r.proxy.Requests()); n != 0 {
		r.t.Errorf("%d requests", n)
	}
}

// picks runs auto with a command line and an environment.
func picks(t *testing.T, env environment, args ...string) (vaultLogin, error) {
	t.Helper()
	v := &vaultFlags{}
	cmd := &cobra.Command{Use: "test"}
	v.register(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := env.applyTwins(cmd); err != nil {
		t.Fatal(err)
	}
	return (&app{env: env}).vaultLogin(v)
}

// TestAutoPicksInOrder takes away what was picked, one after the other.
func TestAutoPicksInOrder(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	helper, pod, secretID := file(".vault-token"), file("pod"), file("secret-id")
	all := environment{
		"HOME": dir, "AEGIS_VAULT_ROLE": "ci", "AEGIS_VAULT_TOKEN_FILE": file("token"), "VAULT_TOKEN": "hvs.x", "BAO_TOKEN": "hvs.y",
		"AEGIS_VAULT_JWT_ENV": "ID", "ID": "a.b.c", requestURL: "https://github.example.com/", requestToken: "t",
		"AEGIS_VAULT_ROLE_ID": "id", "AEGIS_VAULT_SECRET_ID_FILE": secretID, "AEGIS_VAULT_K8S_TOKEN_PATH": pod,
	}
	for _, step := range []struct{ want, takeAway string }{
		{"/token", "AEGIS_VAULT_TOKEN_FILE"},
		{"VAULT_TOKEN", "VAULT_TOKEN"},
		{"BAO_TOKEN", "BAO_TOKEN"},
		{"jwt login with $ID", "AEGIS_VAULT_JWT_ENV"},
		{"jwt login with the job's identity token", requestToken},
		{"approle login with a secret_id", "AEGIS_VAULT_SECRET_ID_FILE"},
		{"kubernetes login with " + pod, "AEGIS_VAULT_K8S_TOKEN_PATH"},
		{helper, "HOME"},
	} {
		l, err := picks(t, maps.Clone(all))
		if err != nil || !strings.Contains(l.what, step.want) || !l.picked {
			t.Errorf("picked %q, want %q: %v", l.what, step.want, err)
		}
		delete(all, step.takeAway)
	}
	_, err := picks(t, maps.Clone(all))
	var none *noTokenError
	if !errors.As(err, &none) || len(none.passed) != 0 {
		t.Errorf("%v", err)
	}
}

// What stands on the command line beats what stands in the environment.
func TestAutoTakesTheCommandLinesWord(t *testing.T) {
	env := func() environment { return environment{"VAULT_TOKEN": "hvs.x", "ID": "a.b.c", "SECRET": "s"} }
	for want, args := range map[string][]string{
		"jwt login with $ID, role \"ci\"":        {"--vault-role", "ci", "--vault-jwt-env", "ID"},
		"jwt login with /f, role \"ci\"":         {"--vault-role", "ci", "--vault-jwt-file", "/f"},
		"approle login with a wrapped secret_id": {"--vault-role-id", "r", "--vault-wrapped-secret-id-file", "env://SECRET"},
		"kubernetes login with /f, role \"app\"": {"--vault-role", "app", "--vault-k8s-token-path", "/f"},
		"/f":                                     {"--vault-token-file", "/f"},
		"VAULT_TOKEN":                            {"--vault-role", "ci"},
	} {
		l, err := picks(t, env(), args...)
		if err != nil || l.what != want {
			t.Errorf("%q: picked %q, want %q: %v", args, l.what, want, err)
		}
	}
	// The twin of the other flag of a pair is beaten.
	e := env()
	e["AEGIS_VAULT_JWT_ENV"] = "ID"
	if l, err := picks(t, e, "--vault-role", "ci", "--vault-jwt-file", "/f"); err != nil || !strings.Contains(l.what, "/f") {
		t.Errorf("%+v: %v", l, err)
	}
}

// A role makes a method; without one what is there is passed over.
func TestAutoPassesOverWhatLacksARole(t *testing.T) {
	job := environment{requestURL: "https://github.example.com/", requestToken: "t"}
	_, err := picks(t, maps.Clone(job))
	var none *noTokenError
	if !errors.As(err, &none) || len(none.passed) != 1 {
		t.Errorf("%v", err)
	}
	job["AEGIS_VAULT_ROLE"] = "ci"
	if l, err := picks(t, job); err != nil || l.jwt == nil {
		t.Errorf("%+v: %v", l, err)
	}
	// No flag and no file at the default path: a pod's own token is not looked for.
	if _, err := picks(t, environment{"AEGIS_VAULT_ROLE": "app", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}); !errors.As(err, &none) {
		t.Errorf("%v", err)
	}
}
