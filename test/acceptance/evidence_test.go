// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// The lines of the acceptance table, in the words of who asked for them.
const (
	ephemeralToken = "a CI job obtains an ephemeral token via OIDC, no static secret"
	signatureFile  = "CI signs, Transit returns a signature, the signature file is in the workspace"
	podsVerify     = "pods obtain short-lived tokens and call transit/verify before loading"
	noSecretKept   = "no VAULT_TOKEN or private key in the repository"
	auditShows     = "the audit log shows sign and verify with short-lived tokens"
	onlyOneKey     = "the policy is limited to sign and verify of one key"
	keyRotation    = "key rotation; key_version"
)

var evidence struct {
	sync.Mutex
	of map[string][]string
}

// prove records what has shown a line, once nothing has failed.
func prove(t *testing.T, line, format string, args ...any) {
	t.Helper()
	if t.Failed() {
		return
	}
	evidence.Lock()
	defer evidence.Unlock()
	if evidence.of == nil {
		evidence.of = make(map[string][]string)
	}
	evidence.of[line] = append(evidence.of[line], t.Name()+": "+fmt.Sprintf(format, args...))
}

// printEvidence prints the table. make kubernetes has the pods' part on a node.
func printEvidence(w io.Writer) {
	evidence.Lock()
	defer evidence.Unlock()
	fmt.Fprintln(w, "\nAcceptance")
	for _, line := range []string{ephemeralToken, signatureFile, podsVerify, noSecretKept, auditShows, onlyOneKey, keyRotation} {
		fmt.Fprintf(w, "\n  %s\n", line)
		if len(evidence.of[line]) == 0 {
			fmt.Fprintln(w, "    NOT SHOWN in this run")
		}
		for _, e := range evidence.of[line] {
			fmt.Fprintf(w, "    %s\n", e)
		}
	}
	fmt.Fprintln(w)
}

// secretForms are what must not be kept anywhere. The first is a private key that
// has content, the second a Vault token, the third a token set to something.
var secretForms = []*regexp.Regexp{
	regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\\n"]+[A-Za-z0-9+/=]{40}`),
	regexp.MustCompile(`\b(hv[sbr]|b)\.[A-Za-z0-9_-]{24,}`),
	regexp.MustCompile(`(?i)\b(VAULT_TOKEN|secret_id)["']?\s*[:=]\s*["']?((hv[sbr]|s)\.[A-Za-z0-9_-]{20}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})`),
}

// TestRepositoryHoldsNoSecret reads every file that is under version control.
func TestRepositoryHoldsNoSecret(t *testing.T) {
	t.Parallel()
	// The forms are tried first, for one that matches nothing proves nothing.
	for i, sample := range []string{
		"-----BEGIN PRIVATE" + " KEY-----\n" + strings.Repeat("A", 64), "hvs" + "." + strings.Repeat("A", 24), "VAULT_TOKEN" + "=s." + strings.Repeat("A", 24),
	} {
		if !secretForms[i].MatchString(sample) {
			t.Fatalf("form %d does not match what it is for", i)
		}
	}
	files := trackedFiles(t)
	for _, name := range files {
		raw, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range secretForms {
			if at := form.FindIndex(raw); at != nil {
				t.Errorf("%s holds what looks like a secret, at byte %d", name, at[0])
			}
		}
	}
	prove(t, noSecretKept, "%d files scanned for private keys, Vault tokens and secret_ids", len(files))
}

// trackedFiles are the files of the repository, or of an unpacked archive of it.
func trackedFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		return strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	}
	var files []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "bin" || e.Name() == ".git"):
			return filepath.SkipDir
		case e.Type().IsRegular():
			rel, err := filepath.Rel(root, path)
			files = append(files, rel)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
