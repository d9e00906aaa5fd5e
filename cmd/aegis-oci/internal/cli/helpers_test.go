// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// ran is what one run of the command line gave.
type ran struct {
	exit           int
	stdout, stderr string
}

// runCLI runs the command line in this process with nothing but env, and fails
// when a secret of env shows up in what it prints.
func runCLI(t *testing.T, env map[string]string, stdin string, args ...string) ran {
	t.Helper()
	var out, log bytes.Buffer
	e := environment{"HOME": t.TempDir()}
	maps.Copy(e, env)
	a := &app{stdin: strings.NewReader(stdin), stdout: &out, stderr: &log, env: e}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := ran{exit: a.run(ctx, args)}
	r.stdout, r.stderr = out.String(), log.String()
	if token := env["VAULT_TOKEN"]; token != "" && strings.Contains(r.stdout+r.stderr, token) {
		t.Errorf("the token is printed:\n%s%s", r.stdout, r.stderr)
	}
	return r
}

// wantExit fails unless r ended with code, and every text is somewhere in what
// was printed.
func wantExit(t *testing.T, r ran, code int, texts ...string) {
	t.Helper()
	if r.exit != code {
		t.Fatalf("exit code %d, want %d:\n%s\n%s", r.exit, code, r.stdout, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("%q is not printed:\n%s\n%s", text, r.stdout, r.stderr)
		}
	}
}

func decode[T any](t *testing.T, r ran) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v:\n%s", err, r.stdout)
	}
	if dec.More() {
		t.Fatalf("stdout holds more than one object:\n%s", r.stdout)
	}
	return v
}

// limitedToken makes a token that may do nothing but what rules, pairs of path
// and capability, say.
func limitedToken(t *testing.T, srv *servertest.Server, name string, rules ...string) string {
	t.Helper()
	var hcl strings.Builder
	for i := 0; i < len(rules); i += 2 {
		hcl.WriteString("path \"" + rules[i] + "\" { capabilities = [\"" + rules[i+1] + "\"] }\n")
	}
	srv.Policy(t, name, hcl.String())
	return srv.Token(t, map[string]any{
		"policies": []string{name}, "no_default_policy": true, "ttl": "10m", "display_name": name,
		"meta": map[string]string{"role": "role-" + name, "repository": "org/repo", "ref": "refs/heads/main", "actor": "somebody"},
	})
}

func smallModel(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type":"`+text+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
