// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
)

var aegisOCI struct {
	once sync.Once
	path string
	err  error
}

// builtProgram builds aegis-oci once for all tests and returns its path.
func builtProgram(t *testing.T) string {
	t.Helper()
	aegisOCI.once.Do(func() {
		dir, err := os.MkdirTemp("", "aegis-acceptance-")
		if err != nil {
			aegisOCI.err = err
			return
		}
		aegisOCI.path = filepath.Join(dir, "aegis-oci")
		cmd := exec.Command("go", "build", "-trimpath", "-o", aegisOCI.path, "./cmd/aegis-oci")
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			aegisOCI.err = errors.New(string(out))
		}
	})
	if aegisOCI.err != nil {
		t.Fatalf("build aegis-oci: %v", aegisOCI.err)
	}
	return aegisOCI.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if aegisOCI.path != "" {
		_ = os.RemoveAll(filepath.Dir(aegisOCI.path))
	}
	os.Exit(code)
}

// command is the program with nothing but env, and a home of its own.
func command(t *testing.T, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(builtProgram(t), args...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// aegis runs the program with nothing but env and fails unless it exits with
// code. It returns both outputs, which must not hold the token.
func aegis(t *testing.T, env map[string]string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := command(t, env, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("aegis-oci %s: exit code %d, want %d:\n%s\n%s", strings.Join(args, " "), got, code, out.String(), log.String())
	}
	if token := env["VAULT_TOKEN"]; token != "" && strings.Contains(out.String()+log.String(), token) {
		t.Errorf("the token is printed:\n%s\n%s", out.String(), log.String())
	}
	return out.String(), log.String()
}

// ciVault is a Vault with a key, and a role for CI as docs/audit.md has it.
type ciVault struct {
	*servertest.Server
	issuer *servertest.Issuer
	host   string // of the registry
}

func newCIVault(t *testing.T) *ciVault {
	t.Helper()
	v := &ciVault{Server: servertest.Vault(t), issuer: servertest.OIDC(t), host: servertest.Stack(t, "-no-vault").Registry}
	v.TransitKey(t, "aegis-model-sign", "ecdsa-p256")
	v.Policy(t, "aegis-sign", `path "transit/sign/aegis-model-sign" { capabilities = ["update"] }
path "transit/verify/aegis-model-sign" { capabilities = ["update"] }`)
	v.Policy(t, "auditor", `path "sys/audit-hash/file" { capabilities = ["update"] }`)
	v.Write(t, "sys/auth/jwt", map[string]any{"type": "jwt"})
	v.Write(t, "auth/jwt/config", map[string]any{"oidc_discovery_url": v.issuer.URL, "bound_issuer": v.issuer.URL})
	v.Write(t, "auth/jwt/role/aegis-model-sign", map[string]any{
		"role_type": "jwt", "user_claim": "repository", "bound_audiences": []string{"vault"},
		"bound_claims":   map[string]string{"repository": "org/repo"},
		"token_policies": []string{"aegis-sign"}, "token_no_default_policy": true, "token_ttl": "10m",
		"claim_mappings": map[string]string{
			"repository": "repository", "ref": "ref", "workflow_ref": "workflow_ref", "run_id": "run_id", "actor": "actor",
		},
	})
	return v
}

// job logs in as a job of the workflow and returns its environment.
func (v *ciVault) job(t *testing.T, actor string) map[string]string {
	t.Helper()
	jwt := v.issuer.Token(t, map[string]any{
		"aud": "vault", "sub": "repo:org/repo:ref:refs/heads/main", "repository": "org/repo", "ref": "refs/heads/main",
		"workflow_ref": "org/repo/.github/workflows/release.yml@refs/heads/main", "run_id": "4711", "actor": actor,
	})
	status, answer := v.Do(t, http.MethodPut, "auth/jwt/login", "", map[string]any{"role": "aegis-model-sign", "jwt": jwt})
	if status != http.StatusOK {
		t.Fatalf("login: %d: %v", status, answer)
	}
	return v.env(answer["auth"].(map[string]any)["client_token"].(string))
}

func (v *ciVault) env(token string) map[string]string {
	return map[string]string{"VAULT_ADDR": v.VaultAddr, "VAULT_TOKEN": token}
}

func writeModel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "test"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAuditOfVaultItself ties signatures of two jobs to the log of HashiCorp
// Vault by value, and finds what somebody signed beside them.
func TestAuditOfVaultItself(t *testing.T) {
	t.Parallel()
	v := newCIVault(t)
	const key = "hashivault://aegis-model-sign"
	repo := v.host + "/models/vad"
	aegis(t, v.job(t, "somebody"), 0, "push", "-q", "--sign", "--key", key, repo+":v1", writeModel(t))
	v.RotateKey(t, "aegis-model-sign")
	aegis(t, v.job(t, "another"), 0, "sign", "-q", "--key", key, repo+":v1")
	auditor := v.env(v.Token(t, map[string]any{"policies": []string{"auditor"}, "no_default_policy": true, "ttl": "10m"}))

	out, _ := aegis(t, auditor, 0, "vault", "audit", "--format", "json", "--repo", repo, "--log", v.AuditLog)
	var r auditlog.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Outcome != "explained" || len(r.Signatures) != 2 || r.Log.Signatures != 2 {
		t.Fatalf("%s", out)
	}
	actors := map[string]int{}
	for _, s := range r.Signatures {
		e := s.Event
		if s.Status != auditlog.Proven || e == nil {
			t.Fatalf("not proven: %+v", s)
		}
		actors[e.Metadata["actor"]] = e.KeyVersion
		if e.Role != "aegis-model-sign" || e.Metadata["repository"] != "org/repo" || e.Metadata["ref"] != "refs/heads/main" ||
			e.Metadata["workflow_ref"] == "" || e.Metadata["run_id"] != "4711" || e.EntityID == "" || e.TokenTTL != 600 || e.TokenType != "service" ||
			e.DisplayName != "jwt-org/repo" || e.RemoteAddress != "127.0.0.1" || e.Key != "transit/aegis-model-sign" || e.RequestID != s.RequestID {
			t.Errorf("event %+v", e)
		}
		t.Logf("signed by %s, version %d, token TTL %d s, from %s at %s", e.Metadata["actor"], e.KeyVersion, e.TokenTTL, e.RemoteAddress, e.Time)
	}
	if !maps.Equal(actors, map[string]int{"somebody": 1, "another": 2}) {
		t.Errorf("actors %v", actors)
	}

	// Somebody takes a signature with Vault's own command line.
	v.VaultCLI(t, "write", "transit/sign/aegis-model-sign", "input=YQ==")
	text, _ := aegis(t, auditor, 3, "vault", "audit", "--repo", repo, "--log", v.AuditLog)
	for _, want := range []string{"in the log, and in none of the repositories (1)", "by         root", "actor=somebody", "service, lives 10m0s"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	t.Logf("\n%s", text)

	// A job may sign and not hash: what it can say is by hint.
	text, _ = aegis(t, v.job(t, "somebody"), 4, "vault", "audit", "--repo", repo, "--log", v.AuditLog)
	if !strings.Contains(text, "by hint, unproven") || strings.Contains(text, "  proven") {
		t.Errorf("%s", text)
	}
}

// TestDoctorOnVaultItself looks at a job's token on HashiCorp Vault.
func TestDoctorOnVaultItself(t *testing.T) {
	t.Parallel()
	v := newCIVault(t)
	text, _ := aegis(t, v.job(t, "somebody"), 0, "doctor", "--key", "hashivault://aegis-model-sign", v.host+"/models/vad:v1")
	for _, want := range []string{
		"version 1.21.0", "unsealed and active", "update on transit/sign/aegis-model-sign, found out by asking",
		"update on transit/verify/aegis-model-sign, found out by asking", "warn     may read", "warn     reference", "of a type that signs",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	v.TransitKey(t, "plain", "aes256-gcm96")
	text, _ = aegis(t, v.env(v.RootToken), 4, "doctor", "--key", "hashivault://plain")
	if !strings.Contains(text, "type=ecdsa-p256") {
		t.Errorf("%s", text)
	}
	v.Seal(t)
	text, _ = aegis(t, v.env(v.RootToken), 4, "doctor", "--key", "hashivault://plain")
	if !strings.Contains(text, "fail     vault seal") {
		t.Errorf("%s", text)
	}
}
