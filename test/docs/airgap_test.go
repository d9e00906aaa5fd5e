// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// TestAirGapPageRuns pastes the commands of docs/airgap.md, with a registry of each
// kind for the two sides.
func TestAirGapPageRuns(t *testing.T) {
	_, rest, found := strings.Cut(page(t, "docs/airgap.md"), "<!-- airgap: test/docs runs these blocks -->")
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(rest, -1)
	if !found || len(blocks) != 4 {
		t.Fatalf("the page has %d blocks to run, want 4", len(blocks))
	}
	stack := servertest.SharedStack(t)
	site, _ := servertest.Distribution(t)
	stack.TransitKey(t, "airgap", "ecdsa-p256")
	dir := checkout(t)
	if err := os.WriteFile(filepath.Join(dir, "release.pub"), stack.PublicKeyPEM(t, "airgap", 0), 0o644); err != nil {
		t.Fatal(err)
	}
	script := "set -eu\nPATH=$PWD/bin:$PATH\nSOURCE=" + stack.Registry + "\nSITE=" + site + "\n" +
		"VAULT_ADDR=" + stack.VaultAddr + " VAULT_TOKEN=" + stack.RootToken +
		" aegis-oci push --quiet --sign --key hashivault://airgap --public-key release.pub $SOURCE/models/vad:v1 examples/models/silero-vad\n"
	for _, b := range blocks {
		script += b[1]
	}
	out := paste(t, dir, "sh", script)
	for _, want := range []string{`copied  `, `accepted  sigstore`, `verified  vad\.tar@sha256:`, `pulled    vad\.tar@sha256:`, `verified  vad\n`, `tagged  v1\n`, `verified  stick@sha256:`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	for _, model := range []string{"vad", "from-site"} {
		if _, err := os.Stat(filepath.Join(dir, model, "silero_vad_v5.onnx")); err != nil {
			t.Error(err)
		}
	}
}
