// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/evidence"
)

// The lines of the acceptance table.
const (
	ephemeralToken = evidence.EphemeralToken
	signatureFile  = evidence.SignatureFile
	podsVerify     = evidence.PodsVerify
	noSecretKept   = evidence.NoSecretKept
	auditShows     = evidence.AuditShows
	onlyOneKey     = evidence.OnlyOneKey
	keyRotation    = evidence.KeyRotation
)

// prove records what has shown a line, once nothing has failed.
func prove(t *testing.T, line, format string, args ...any) {
	t.Helper()
	evidence.Prove(t, evidence.Operator, line, format, args...)
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
