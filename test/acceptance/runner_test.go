// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// workflow is what the tests run of a GitHub Actions workflow.
type workflow struct {
	Permissions map[string]string
	Defaults    struct{ Run struct{ Shell string } }
	Jobs        map[string]struct {
		Permissions map[string]string
		Env         map[string]string
		Steps       []step
	}
}

type step struct {
	Name, ID, If, Uses, Run string
	Env                     map[string]string
	With                    map[string]any
}

func readWorkflow(t *testing.T) workflow {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, ".github", "workflows", "sign-model-with-vault.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(raw, &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// runner does with a job what GitHub's does, for the expressions that the workflow
// has: an expression it does not know fails the test.
type runner struct {
	t         *testing.T
	workspace string
	temp      string
	// contexts are inputs, vars, secrets and steps.push.outputs.
	contexts map[string]map[string]string
	// env is the machine's, then what GITHUB_ENV adds.
	env map[string]string
	// uses stands for the actions, by their name without the commit.
	uses map[string]func(with map[string]string)

	outputs, summary string
	log              string
	seen             []map[string]string // the environment of each run step
}

// newRunner is a machine on which the job's identity is what the issuer says.
func newRunner(t *testing.T, issuer *servertest.Issuer) *runner {
	t.Helper()
	r := &runner{t: t, workspace: t.TempDir(), temp: t.TempDir(), contexts: map[string]map[string]string{}, uses: map[string]func(map[string]string){}}
	for _, name := range []string{"cmd", "pkg", "plugin"} {
		if err := os.CopyFS(filepath.Join(r.workspace, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.workspace, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.env = map[string]string{
		"HOME": t.TempDir(), "PATH": os.Getenv("PATH"), "CI": "true", "GITHUB_ACTIONS": "true",
		"GITHUB_WORKSPACE": r.workspace, "RUNNER_TEMP": r.temp, "GITHUB_REPOSITORY": "acme/models", "GITHUB_REF": "refs/heads/main",
		"ACTIONS_ID_TOKEN_REQUEST_URL": issuer.RequestURL(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN": issuer.RequestToken,
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS", "GOSUMDB", "GOTOOLCHAIN"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		r.env[name] = strings.TrimSpace(string(out))
	}
	return r
}

var (
	expression = regexp.MustCompile(`\$\{\{ (.*?) \}\}`)
	reference  = regexp.MustCompile(`^(inputs|vars|secrets|env|steps\.push\.outputs)\.([A-Za-z0-9_-]+)$`)
	condition  = regexp.MustCompile(`^env\.([A-Z_]+) (==|!=) '([^']*)'$`)
)

// expand evaluates "${{ A || B || 'text' }}" in text.
func (r *runner) expand(text string) string {
	return expression.ReplaceAllStringFunc(text, func(e string) string {
		for term := range strings.SplitSeq(expression.FindStringSubmatch(e)[1], " || ") {
			value := ""
			if literal, ok := strings.CutPrefix(term, "'"); ok {
				value = strings.TrimSuffix(literal, "'")
			} else if m := reference.FindStringSubmatch(term); m == nil {
				r.t.Fatalf("an expression that the test does not know: %s", e)
			} else if m[1] == "env" {
				value = r.env[m[2]]
			} else {
				value = r.contexts[m[1]][m[2]]
			}
			if value != "" {
				return value
			}
		}
		return ""
	})
}

// holds evaluates a step's if. A failed job runs only what says always().
func (r *runner) holds(text string, failed bool) bool {
	always := false
	for term := range strings.SplitSeq(text, " && ") {
		m := condition.FindStringSubmatch(term)
		switch {
		case term == "":
		case term == "always()":
			always = true
		case m == nil:
			r.t.Fatalf("a condition that the test does not know: %s", term)
		case (r.env[m[1]] == m[3]) != (m[2] == "=="):
			return false
		}
	}
	return always || !failed
}

// run runs the job called sign and returns the exit code of the step that failed,
// with its name.
func (r *runner) run(w workflow) (code int, failed string) {
	r.t.Helper()
	job := w.Jobs["sign"]
	for _, k := range slices.Sorted(maps.Keys(job.Env)) {
		r.env[k] = r.expand(job.Env[k])
	}
	for _, s := range job.Steps {
		if !r.holds(s.If, failed != "") {
			continue
		}
		if s.Uses != "" {
			r.action(s)
			continue
		}
		if got := r.script(w, s); got != 0 && failed == "" {
			code, failed = got, s.Name
		}
	}
	return code, failed
}

func (r *runner) action(s step) {
	name, _, _ := strings.Cut(s.Uses, "@")
	do, known := r.uses[name]
	if !known {
		r.t.Fatalf("%s: nothing stands for %s", s.Name, name)
	}
	with := make(map[string]string)
	for k, v := range s.With {
		with[k] = r.expand(fmt.Sprint(v))
	}
	do(with)
}

// script runs a run step in the way of "shell: bash", with the files that the
// runner gives it, and then reads them.
func (r *runner) script(w workflow, s step) int {
	r.t.Helper()
	if w.Defaults.Run.Shell != "bash" {
		r.t.Fatalf("the shell is %q", w.Defaults.Run.Shell)
	}
	env := maps.Clone(r.env)
	for k, v := range s.Env {
		env[k] = r.expand(v)
	}
	files := make(map[string]string)
	for _, name := range []string{"GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"} {
		files[name] = filepath.Join(r.t.TempDir(), "file")
		env[name] = files[name]
	}
	r.seen = append(r.seen, env)
	file := filepath.Join(r.t.TempDir(), "step.sh")
	if err := os.WriteFile(file, []byte(s.Run), 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(r.t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", file)
	cmd.Dir = r.workspace
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	r.log += "--- " + s.Name + "\n" + out.String()
	r.take(s, files)
	return cmd.ProcessState.ExitCode()
}

func (r *runner) take(s step, files map[string]string) {
	text := make(map[string]string)
	for name, file := range files {
		raw, _ := os.ReadFile(file) // a step need not write
		text[name] = string(raw)
	}
	for line := range strings.Lines(text["GITHUB_PATH"]) {
		r.env["PATH"] = strings.TrimSpace(line) + ":" + r.env["PATH"]
	}
	for line := range strings.Lines(text["GITHUB_ENV"]) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		r.env[k] = v
	}
	if s.ID != "" {
		outputs := make(map[string]string)
		for line := range strings.Lines(text["GITHUB_OUTPUT"]) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			outputs[k] = v
		}
		r.contexts["steps."+s.ID+".outputs"] = outputs
	}
	r.outputs += text["GITHUB_OUTPUT"]
	r.summary += text["GITHUB_STEP_SUMMARY"]
}

// vaultAction does what hashicorp/vault-action 3.4.0 does with these inputs.
func (r *runner) vaultAction(srv *servertest.Server, token *string) func(map[string]string) {
	return func(with map[string]string) {
		if with["method"] != "jwt" || with["exportToken"] != "true" || with["url"] != srv.VaultAddr {
			r.t.Errorf("vault-action is given %v", with)
		}
		req, err := http.NewRequest(http.MethodGet, r.env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience="+url.QueryEscape(with["jwtGithubAudience"]), nil)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		defer resp.Body.Close()
		var id struct{ Value string }
		decodeJSON(r.t, resp.Body, &id)
		var status int
		if status, *token = login(r.t, srv, with["path"], with["role"], id.Value); status != http.StatusOK {
			r.t.Fatalf("vault-action: Vault answers %d", status)
		}
		r.env["VAULT_TOKEN"] = *token
	}
}
