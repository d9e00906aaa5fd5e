// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package docs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

const tourMark = "<!-- tour: test/docs runs this block -->\n```sh\n"

// tour is the README's block, as a reader would copy it.
func tour(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(page(t, "README.md"), tourMark)
	block, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("the README has no tour")
	}
	return block
}

// checkout makes a directory that has what the tour uses of a built repository.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	model := filepath.Join("examples", "models", "silero-vad")
	if err := os.CopyFS(filepath.Join(dir, model), os.DirFS(filepath.Join(root, model))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	servertest.Stack(t, "-no-vault") // builds bin/aegis-stack if need be
	for name, path := range map[string]string{"aegis-oci": program(t), "aegis-stack": filepath.Join(root, "bin", "aegis-stack")} {
		abs, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(abs, filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// paste runs a script as a shell at the root of dir, with nothing of this
// process's environment but PATH. Everything it started is gone afterwards.
func paste(t *testing.T, dir, shell, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell)
	cmd.Dir = dir
	// On standard input, as pasted: a command that read it would eat the rest.
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir(), "HOME=" + t.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.Writer(&out)
	err := cmd.Run()
	if cmd.Process != nil {
		if killed := kill(); killed == nil {
			t.Log("processes were left and killed")
		} else if !errors.Is(killed, syscall.ESRCH) {
			t.Errorf("clean up: %v", killed)
		}
	}
	if err != nil {
		t.Fatalf("the tour ends with %v:\n%s", err, out.String())
	}
	return out.String()
}

// TestREADMETourRuns pastes the tour and expects what the README promises, in this
// order.
func TestREADMETourRuns(t *testing.T) {
	for _, shell := range []string{"bash", "sh"} {
		t.Run(shell, func(t *testing.T) {
			out := paste(t, checkout(t), shell, tour(t))
			rest := out
			for _, want := range []string{
				`--- CI: push, sign, tag\n`,
				`pushed  127\.0\.0\.1:\d+/models/vad@sha256:[0-9a-f]{64}\n`,
				`signed  sigstore with hashivault://aegis-model-sign version 1\n`,
				`tagged  v1\n`,
				`signatures \(1\)\n  accepted  sigstore`,
				`--- the pod`,
				`pulled    127\.0\.0\.1:\d+/models/vad@sha256:[0-9a-f]{64}\n`,
				`signed by hashivault://aegis-model-sign version 1 \(sigstore\)\n`,
				`verified  .*/vad\n`,
				`changed: README\.md`,
				`exit code 3: one byte was added\n`,
				`no signature attached\n`,
				`exit code 3: not signed\n`,
				`No such file`,
				`signed  sigstore with hashivault://aegis-model-sign version 1\n`,
				`pulled    127\.0\.0\.1:\d+/models/vad@sha256:[0-9a-f]{64}\n`,
			} {
				at := regexp.MustCompile(want).FindStringIndex(rest)
				if at == nil {
					t.Fatalf("no %q at its place in:\n%s", want, out)
				}
				rest = rest[at[1]:]
			}
			// Short-lived tokens with one capability need no warning.
			if strings.Contains(out, "warning") {
				t.Errorf("the tour warns:\n%s", out)
			}
		})
	}
}

// TestTourUsesTheSmallestPolicies ties the policies that the README recommends to
// those that the tour proves to be enough.
func TestTourUsesTheSmallestPolicies(t *testing.T) {
	said := regexp.MustCompile(`(?m)^path .*"update".*$`).FindAllString(section(t, page(t, "README.md"), "## The smallest Vault policies"), -1)
	if len(said) != 2 {
		t.Fatalf("the README names %d policies, want 2", len(said))
	}
	for _, policy := range said {
		if escaped := strings.ReplaceAll(policy, `"`, `\"`); !strings.Contains(tour(t), escaped) {
			t.Errorf("the tour does not use %s", policy)
		}
	}
}
