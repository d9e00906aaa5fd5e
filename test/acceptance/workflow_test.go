// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
)

func decodeJSON(t *testing.T, r io.Reader, v any) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(v); err != nil {
		t.Fatal(err)
	}
}

// ci is a Vault that the set-up script has prepared, a registry, and a job.
type ci struct {
	vault, registry *servertest.Server
	issuer          *servertest.Issuer
	runner          *runner
}

// newCI prepares a job that says claims of itself.
func newCI(t *testing.T, claims map[string]any) *ci {
	t.Helper()
	c := &ci{vault: servertest.Vault(t), registry: servertest.Stack(t, "-no-vault"), issuer: servertest.OIDC(t)}
	if r := run(t, append(operator(t, c.vault, "vault"), "ISSUER="+c.issuer.URL), "", script, "aegis-transit-policy", "aegis-github-role", "acme/models"); r.code != 0 {
		t.Fatalf("set-up: %s", r)
	}
	c.issuer.JobClaims(job(claims))
	c.runner = newRunner(t, c.issuer)
	if err := os.CopyFS(filepath.Join(c.runner.workspace, "vad"), os.DirFS(filepath.Join(root, "examples", "models", "silero-vad"))); err != nil {
		t.Fatal(err)
	}
	c.runner.contexts["inputs"] = map[string]string{"reference": c.registry.Registry + "/models/vad:v1", "model-path": "vad", "vault-addr": c.vault.VaultAddr}
	for _, name := range []string{"actions/checkout", "actions/setup-go", "actions/upload-artifact"} {
		c.runner.uses[name] = func(map[string]string) {}
	}
	return c
}

// TestWorkflowSignsWithNoStaticSecret runs the workflow's own steps.
func TestWorkflowSignsWithNoStaticSecret(t *testing.T) {
	t.Parallel()
	c := newCI(t, nil)
	var kept map[string]string
	c.runner.uses["actions/upload-artifact"] = func(with map[string]string) { kept = with }
	if code, failed := c.runner.run(readWorkflow(t)); code != 0 {
		t.Fatalf("%q ends with %d\n%s", failed, code, c.runner.log)
	}
	for i, env := range c.runner.seen {
		for name := range env {
			if strings.Contains(name, "VAULT_TOKEN") || strings.Contains(name, "SECRET_ID") {
				t.Errorf("step %d has %s in its environment", i, name)
			}
		}
	}
	m := regexp.MustCompile(`^reference=(127\.0\.0\.1:\d+/models/vad@(sha256:[0-9a-f]{64}))\ndigest=(sha256:[0-9a-f]{64})\n$`).FindStringSubmatch(c.runner.outputs)
	if m == nil || m[2] != m[3] {
		t.Fatalf("outputs: %q", c.runner.outputs)
	}
	if kept["path"] != "signatures/" || kept["if-no-files-found"] != "error" {
		t.Errorf("what is kept: %v", kept)
	}
	if !strings.Contains(c.runner.summary, m[1]) || !strings.Contains(c.runner.summary, "hashivault://aegis-model-sign") {
		t.Errorf("summary:\n%s", c.runner.summary)
	}
	prove(t, ephemeralToken, "the workflow's %d run steps, against Vault and the issuer; no VAULT_TOKEN in any environment", len(c.runner.seen))
	c.signatureVerifiesOffline(t, m[2])
	// And so does the model, with no Vault at all.
	pub := filepath.Join(t.TempDir(), "release.pub")
	if err := os.WriteFile(pub, c.vault.PublicKeyPEM(t, "aegis-model-sign", 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, []string{"HOME=" + t.TempDir()}, "", builtProgram(t), "pull", "--key", pub, "-o", "out", c.registry.Registry+"/models/vad:v1"); r.code != 0 || !strings.Contains(r.stdout, m[2]) {
		t.Errorf("pull: exit code %d\n%s", r.code, r)
	}
	c.auditShowsTheJob(t)
	c.leaksNothing(t, "")
}

// signatureVerifiesOffline opens the file in the workspace with the public key.
func (c *ci) signatureVerifiesOffline(t *testing.T, digest string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.runner.workspace, "signatures", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("signatures in the workspace: %v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := sigstore.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.ParsePublicKeys("release.pub", c.vault.PublicKeyPEM(t, "aegis-model-sign", 1))
	if err != nil {
		t.Fatal(err)
	}
	opened := signature.Open(t.Context(), key, []*signature.Envelope{envelope})
	if len(opened) != 1 || opened[0].Err != nil || string(opened[0].Statement.Digest) != digest {
		t.Errorf("the signature file does not verify: %+v", opened)
	}
	if opened[0].Statement.Claims.Builder["repository"] != "acme/models" {
		t.Errorf("it says of its builder: %v", opened[0].Statement.Claims.Builder)
	}
	prove(t, signatureFile, "signatures/%s verifies with the public key, offline", filepath.Base(files[0]))
}

// auditShowsTheJob: who, with which lifetime, and that the token is gone.
func (c *ci) auditShowsTheJob(t *testing.T) {
	t.Helper()
	did := make(map[string]int)
	for _, e := range c.vault.AuditEntries(t) {
		request, _ := e["request"].(map[string]any)
		auth, _ := e["auth"].(map[string]any)
		metadata, _ := auth["metadata"].(map[string]any)
		if e["type"] != "response" || e["error"] != nil || metadata["repository"] != "acme/models" {
			continue
		}
		if ttl, _ := auth["token_ttl"].(float64); ttl <= 0 || ttl > 3600 || metadata["actor"] != "alice" || metadata["ref"] != "refs/heads/main" {
			t.Errorf("%v: TTL %v, %v", request["path"], auth["token_ttl"], metadata)
		}
		path, _ := request["path"].(string)
		did[path]++
		prove(t, auditShows, "%s by %v of %v on %v, token TTL %v s", path, metadata["actor"], metadata["repository"], metadata["ref"], auth["token_ttl"])
	}
	want := map[string]int{"auth/jwt/login": 1, "transit/sign/aegis-model-sign": 1, "auth/token/revoke-self": 1}
	for path, n := range want {
		if did[path] < n {
			t.Errorf("the audit log shows %s %d times, want %d: %v", path, did[path], n, did)
		}
	}
}

// leaksNothing looks for the job's tokens in the log and in what the job leaves.
func (c *ci) leaksNothing(t *testing.T, vaultToken string) {
	t.Helper()
	secrets := append(c.issuer.Issued(), c.issuer.RequestToken)
	if vaultToken != "" {
		secrets = append(secrets, vaultToken)
	}
	look := func(name, text string) {
		for i, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("secret %d is in %s", i, name)
			}
		}
		if regexp.MustCompile(`hvs\.[A-Za-z0-9]{20}`).MatchString(text) {
			t.Errorf("a Vault token is in %s", name)
		}
	}
	look("the log", c.runner.log+c.runner.summary+c.runner.outputs)
	for _, dir := range []string{filepath.Join(c.runner.workspace, "signatures"), c.runner.env["HOME"]} {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				raw, _ := os.ReadFile(path)
				look(path, string(raw))
			}
			return err
		})
	}
}

// TestWorkflowWithVaultAction takes the other way: the exported token signs, and
// is revoked at the end.
func TestWorkflowWithVaultAction(t *testing.T) {
	t.Parallel()
	c := newCI(t, nil)
	var token string
	c.runner.contexts["inputs"]["login"] = "vault-action"
	c.runner.uses["hashicorp/vault-action"] = c.runner.vaultAction(c.vault, &token)
	if code, failed := c.runner.run(readWorkflow(t)); code != 0 {
		t.Fatalf("%q ends with %d\n%s", failed, code, c.runner.log)
	}
	if status, _ := c.vault.Do(t, http.MethodGet, "auth/token/lookup-self", token, nil); token == "" || status != http.StatusForbidden {
		t.Errorf("after the job, Vault answers %d to its token", status)
	}
	c.leaksNothing(t, token)
}

// TestWorkflowOfAnotherRefSignsNothing: neither a signature nor a tag.
func TestWorkflowOfAnotherRefSignsNothing(t *testing.T) {
	t.Parallel()
	for name, claims := range map[string]map[string]any{
		"other repository": {"repository": "eve/models"},
		"pull request":     {"ref": "refs/pull/7/merge"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCI(t, claims)
			code, failed := c.runner.run(readWorkflow(t))
			if code != 4 || failed != "Push and sign" || !strings.Contains(c.runner.log, "repository") {
				t.Errorf("%q ends with %d\n%s", failed, code, c.runner.log)
			}
			resp, err := c.registry.HTTPClient().Get(c.registry.RegistryURL() + "/v2/models/vad/manifests/v1")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("the registry has models/vad:v1: status %d", resp.StatusCode)
			}
			if files, _ := filepath.Glob(filepath.Join(c.runner.workspace, "signatures", "*")); len(files) > 0 {
				t.Errorf("signatures are left: %v", files)
			}
			c.leaksNothing(t, "")
		})
	}
}

// TestWorkflowRefusesWhatIsNoInput: a setting that is a command is not run.
func TestWorkflowRefusesWhatIsNoInput(t *testing.T) {
	t.Parallel()
	for input, value := range map[string]string{"tool-version": "$(touch pwned)", "login": "oidc", "reference": "a;touch pwned", "key": "$(touch pwned)"} {
		c := newCI(t, nil)
		maps.Copy(c.runner.contexts["inputs"], map[string]string{input: value})
		if code, failed := c.runner.run(readWorkflow(t)); code != 2 {
			t.Errorf("%s=%q: %q ends with %d\n%s", input, value, failed, code, c.runner.log)
		}
		if _, err := os.Stat(filepath.Join(c.runner.workspace, "pwned")); err == nil {
			t.Errorf("%s=%q was run", input, value)
		}
	}
}

// TestWorkflowIsSound holds what actionlint does not look at.
func TestWorkflowIsSound(t *testing.T) {
	t.Parallel()
	if r := run(t, os.Environ(), "", filepath.Join(root, "test", "tools", "build.sh"), "actionlint"); r.code != 0 {
		t.Fatalf("build actionlint: %s", r)
	}
	file := filepath.Join(root, ".github", "workflows", "sign-model-with-vault.yml")
	if r := run(t, os.Environ(), "", filepath.Join(root, "bin", "tools", "actionlint"), file); r.code != 0 {
		t.Errorf("actionlint:\n%s", r)
	}
	w := readWorkflow(t)
	if got := w.Jobs["sign"].Permissions; len(got) != 2 || got["id-token"] != "write" || got["contents"] != "read" {
		t.Errorf("the job's permissions are %v", got)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pinned := regexp.MustCompile(`^ +uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$`)
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(strings.TrimSpace(line), "uses: ") && !pinned.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("not pinned by commit with its version beside it: %s", line)
		}
	}
	for _, s := range w.Jobs["sign"].Steps {
		if strings.Contains(s.Run, "${{") {
			t.Errorf("%s: an expression inside a script would be run as part of it", s.Name)
		}
	}
}
