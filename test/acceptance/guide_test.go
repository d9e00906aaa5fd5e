// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// block is a shell block of the guide: who runs it, and lines of what it prints.
type block struct {
	as, script string
	want       []string
}

var (
	shellBlock = regexp.MustCompile("(?s)(<!-- run as ([a-z]+) -->\n)?```sh\n(.*?)```\n(```text\n(.*?)```\n)?")
	anyText    = regexp.MustCompile(`\\\.\\\.\\\.`)
)

// guide is the page as a list of blocks. Every one has to say who runs it.
func guide(t *testing.T) []block {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "docs", "vault_oidc_approle.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, m := range shellBlock.FindAllStringSubmatch(string(raw), -1) {
		if m[2] == "" {
			t.Errorf("nobody runs this block:\n%s", m[3])
		}
		b := block{as: m[2], script: m[3]}
		for line := range strings.Lines(m[5]) {
			b.want = append(b.want, strings.TrimSuffix(line, "\n"))
		}
		all = append(all, b)
	}
	if len(all) < 15 {
		t.Fatalf("only %d blocks found", len(all))
	}
	return all
}

// TestOperatorsGuide pastes the guide's blocks in their order, each as who it says,
// and expects in the output the lines that the guide shows.
func TestOperatorsGuide(t *testing.T) {
	t.Parallel()
	who := cast(t)
	dir := who.dir
	for _, b := range guide(t) {
		env, known := who.env[b.as]
		if !known {
			t.Fatalf("who is %q?", b.as)
		}
		ended := func() {}
		if strings.Contains(b.script, "lease revoke") {
			ended = who.tokenOfAJob(t)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-o", "pipefail")
		cmd.Dir, cmd.Env = dir, env
		cmd.Stdin = strings.NewReader(b.script)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("as %s: %v\n%s\n%s", b.as, err, b.script, out.String())
		}
		ended()
		rest := out.String()
		for _, line := range b.want {
			at := regexp.MustCompile(anyText.ReplaceAllString(regexp.QuoteMeta(line), ".*")).FindStringIndex(rest)
			if at == nil {
				t.Fatalf("as %s: no %q at its place in\n%s\n%s", b.as, line, b.script, out.String())
			}
			rest = rest[at[1]:]
		}
		for _, secret := range who.secrets(t) {
			if strings.Contains(out.String(), secret) {
				t.Errorf("as %s: a secret is printed by\n%s", b.as, b.script)
			}
		}
	}
	prove(t, keyRotation, "version 1 verifies after rotating, new signatures have version 2, ?version=1 pins; after min_decryption_version=2 version 1 is rejected (3)")
	who.podsAsked(t)
}

// podsAsked shows the pods' requests in the audit log, with the life of their tokens.
func (p *people) podsAsked(t *testing.T) {
	t.Helper()
	n := 0
	for _, e := range p.vault.AuditEntries(t) {
		request, _ := e["request"].(map[string]any)
		auth, _ := e["auth"].(map[string]any)
		metadata, _ := auth["metadata"].(map[string]any)
		if e["type"] != "response" || request["path"] != "transit/verify/aegis-model-sign" || metadata["service_account_name"] != "aegis-app" {
			continue
		}
		n++
		if ttl, _ := auth["token_ttl"].(float64); ttl <= 0 || ttl > 3600 {
			t.Errorf("a pod's token lives %v s", auth["token_ttl"])
		}
		prove(t, auditShows, "%v by service account %v/%v, token TTL %v s", request["path"], metadata["service_account_namespace"], metadata["service_account_name"], auth["token_ttl"])
	}
	if n == 0 {
		t.Error("the audit log shows no verify by a pod")
	}
	prove(t, podsVerify, "pull as a pod: %d calls of transit/verify, before anything is written (with TokenReview by a stand-in; make kubernetes has the real node)", n)
}

// people are the environments of those who run the guide's blocks.
type people struct {
	dir    string
	env    map[string][]string
	vault  *servertest.Server
	issuer *servertest.Issuer
	tokens []string
}

// tokenOfAJob logs in as a job; what it returns expects the token to be gone.
func (p *people) tokenOfAJob(t *testing.T) func() {
	t.Helper()
	status, token := login(t, p.vault, "jwt", "aegis-github-role", p.issuer.Token(t, job(nil)))
	if status != http.StatusOK {
		t.Fatalf("the job cannot log in: status %d", status)
	}
	return func() {
		if status, _ := p.vault.Do(t, http.MethodGet, "auth/token/lookup-self", token, nil); status != http.StatusForbidden {
			t.Errorf("the job's token still works: status %d", status)
		}
	}
}

// secrets are what no output may hold.
func (p *people) secrets(t *testing.T) []string {
	t.Helper()
	all := slices.Concat(p.tokens, p.issuer.Issued(), []string{p.vault.RootToken, p.issuer.RequestToken})
	for _, name := range []string{"wrapped-secret-id", "token"} {
		if raw, err := os.ReadFile(filepath.Join(p.dir, name)); err == nil {
			all = append(all, strings.TrimSpace(string(raw)))
		}
	}
	return all
}

// cast prepares a Vault, a registry under the name registry.example.com, and an
// issuer in place of GitHub's. Only the operator has a Vault token.
func cast(t *testing.T) *people {
	t.Helper()
	p := &people{dir: t.TempDir(), vault: servertest.Vault(t), issuer: servertest.OIDC(t)}
	p.vault.Delete(t, "sys/mounts/transit")
	registry := servertest.Stack(t, "-no-vault")
	_, port, err := net.SplitHostPort(registry.Registry)
	if err != nil {
		t.Fatal(err)
	}
	host, ca := servertest.TokenReviewStandIn(t, p.issuer)
	p.issuer.JobClaims(job(nil))
	gitlab := p.issuer.Token(t, map[string]any{"project_path": "acme/models", "ref": "main", "ref_protected": "true"})
	pod := p.issuer.PodToken(t, "default", "aegis-app", nil)
	p.tokens = []string{gitlab, pod}
	for name, content := range map[string]string{
		"token.jwt": p.issuer.Token(t, job(nil)), "token-of-a-branch.jwt": p.issuer.Token(t, job(map[string]any{"ref": "refs/heads/topic"})),
		"pod-token": pod, "kubernetes-ca.pem": ca,
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range map[string]string{"scripts": filepath.Join(root, "scripts"), "vad": filepath.Join(root, "examples", "models", "silero-vad")} {
		if err := os.Symlink(path, filepath.Join(p.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	admin := operator(t, p.vault, "vault")
	bin := t.TempDir()
	for name, path := range map[string]string{"aegis-oci": builtProgram(t), "vault": servertest.VaultProgram(t)} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	common := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "VAULT_ADDR=" + p.vault.VaultAddr, "HOME=" + t.TempDir(),
		"AEGIS_RESOLVE=registry.example.com:80:127.0.0.1:" + port, "AEGIS_PLAIN_HTTP=true"}
	with := func(more ...string) []string { return slices.Concat(common, more) }
	p.env = map[string][]string{
		"operator": slices.Concat(admin, with("ISSUER="+p.issuer.URL, "AEGIS_ISSUER="+p.issuer.URL, "AUDIT_LOG="+p.vault.AuditLog,
			"AEGIS_KUBERNETES_HOST="+host, "AEGIS_KUBERNETES_CA="+filepath.Join(p.dir, "kubernetes-ca.pem"))),
		"job":    with("ACTIONS_ID_TOKEN_REQUEST_URL="+p.issuer.RequestURL(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+p.issuer.RequestToken),
		"gitlab": with("VAULT_ID_TOKEN=" + gitlab),
		"pod":    with("AEGIS_VAULT_K8S_TOKEN_PATH=" + filepath.Join(p.dir, "pod-token")),
		"host":   with(),
	}
	return p
}
