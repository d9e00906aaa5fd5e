// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package interop_test holds aegis-oci against cosign, notation and oras, as programs, on a
// registry with the referrers API and on one without. scripts/interop.sh builds
// everything and runs it. A program that is missing fails a test.
package interop_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// bundleType is both the artifact type and the layer type of a Sigstore bundle.
const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Exit codes of aegis-oci.
const (
	exitOK       = 0
	exitRejected = 3
)

// rig is one registry, the shared Vault and a home of its own, with the programs
// that talk to them.
type rig struct {
	vault    *servertest.Server
	registry string // host:port
	storage  string // distribution's directory; empty for olareg
	home     string
	config   string // XDG_CONFIG_HOME, where notation looks; empty for the default
}

// onBoth runs f on a registry with the referrers API and on one without.
func onBoth(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Run("referrers API", func(t *testing.T) { f(t, withReferrers(t)) })
	t.Run("tag fallback", func(t *testing.T) { f(t, withoutReferrers(t)) })
}

// withReferrers uses olareg.
func withReferrers(t *testing.T) *rig {
	vault := servertest.SharedStack(t)
	return &rig{vault: vault, registry: vault.Registry, home: t.TempDir()}
}

// withoutReferrers uses the CNCF distribution registry.
func withoutReferrers(t *testing.T) *rig {
	registry, storage := servertest.Distribution(t)
	return &rig{vault: servertest.SharedStack(t), registry: registry, storage: storage, home: t.TempDir()}
}

// name is a repository or key name that no other test uses.
func name(t *testing.T) string {
	return strings.NewReplacer("/", "-", "_", "-", "#", "-", ".", "-").Replace(strings.ToLower(t.Name()))
}

// repo returns the test's own repository with a suffix.
func (r *rig) repo(t *testing.T, suffix string) string {
	return r.registry + "/interop/" + name(t) + suffix
}

// key makes a Transit key of the test's own; public is a PEM file.
func (r *rig) key(t *testing.T, suffix, typ string) (uri, public string) {
	t.Helper()
	keyName := name(t) + suffix
	r.vault.TransitKey(t, keyName, typ)
	public = filepath.Join(r.home, keyName+".pub")
	write(t, public, r.vault.PublicKeyPEM(t, keyName, 0))
	return "hashivault://" + keyName, public
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

// command prepares a program of bin/ or bin/tools/ with a root token.
func (r *rig) command(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", program))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not built; scripts/interop.sh does it: %v", program, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = r.home
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.home, "TMPDIR=" + os.TempDir(), "COSIGN_PASSWORD=",
		"VAULT_ADDR=" + r.vault.VaultAddr, "VAULT_TOKEN=" + r.vault.RootToken, "TRANSIT_SECRET_ENGINE_PATH=transit",
	}
	if r.config != "" {
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+r.config)
	}
	return cmd
}

// run ends the test only when the program cannot be started.
func run(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// must runs a program that has to succeed and returns its stdout.
func (r *rig) must(t testing.TB, program string, args ...string) string {
	t.Helper()
	got := run(t, r.command(t, program, args...))
	if got.code != exitOK {
		t.Fatalf("%s %s: exit %d\n%s%s", program, strings.Join(args, " "), got.code, got.stdout, got.stderr)
	}
	return got.stdout
}

// aegis runs aegis-oci, which has to end with the code.
func (r *rig) aegis(t testing.TB, code int, args ...string) result {
	t.Helper()
	got := run(t, r.command(t, "aegis-oci", args...))
	if got.code != code {
		t.Fatalf("aegis-oci %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got.code, code, got.stdout, got.stderr)
	}
	return got
}

// push pushes a small model, unsigned, and returns repository@digest.
func (r *rig) push(t testing.TB, ref string, args ...string) string {
	t.Helper()
	model := filepath.Join(r.home, "model")
	write(t, filepath.Join(model, "config.json"), []byte(`{"architectures":["silero-vad"]}`))
	write(t, filepath.Join(model, "weights", "vad model.bin"), bytes.Repeat([]byte("vad\x00"), 5000))
	write(t, filepath.Join(model, "empty.txt"), nil)
	args = append(append([]string{"push", "--quiet", "--format", "go-template={{.reference}}"}, args...), ref, model)
	return strings.TrimSpace(r.aegis(t, exitOK, args...).stdout)
}

// cosignVerify has cosign 3 judge a reference by a key, without a transparency log.
func (r *rig) cosignVerify(t testing.TB, key, ref string, args ...string) result {
	t.Helper()
	args = append([]string{"verify", "--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry"}, append(args, ref)...)
	return run(t, r.command(t, "tools/cosign", args...))
}

// cosignSign has cosign 3 sign a reference with a key, without a transparency log.
func (r *rig) cosignSign(t testing.TB, key, ref string, args ...string) result {
	t.Helper()
	args = append([]string{"sign", "--key", key, "--tlog-upload=false", "--use-signing-config=false",
		"--allow-http-registry", "-y"}, append(args, ref)...)
	return run(t, r.command(t, "tools/cosign", args...))
}

// accepts fails the test unless the program succeeded.
func accepts(t *testing.T, what string, got result) {
	t.Helper()
	if got.code != 0 {
		t.Errorf("%s: exit %d\n%s%s", what, got.code, got.stdout, got.stderr)
	}
}

// refuses fails the test unless the program failed and said why.
func refuses(t *testing.T, what string, got result, reason string) {
	t.Helper()
	if got.code == 0 {
		t.Errorf("%s: accepted\n%s", what, got.stdout)
	}
	if !strings.Contains(got.stderr, reason) {
		t.Errorf("%s: the reason is not %q:\n%s", what, reason, got.stderr)
	}
}

// referrer is an entry of oras discover's JSON.
type referrer struct {
	Digest       string            `json:"digest"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
}

// discover lists the referrers as oras sees them.
func (r *rig) discover(t testing.TB, ref string) []referrer {
	t.Helper()
	var listed struct {
		Referrers []referrer `json:"referrers"`
	}
	decode(t, r.must(t, "tools/oras", "discover", "--format", "json", "--plain-http", ref), &listed)
	return listed.Referrers
}

// sameTree fails the test unless got holds want's files, byte for byte, and none
// but those and what is below .aegis.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	files := func(root string) map[string]string {
		found := map[string]string{}
		err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() {
				if entry.Name() == ".aegis" {
					return filepath.SkipDir
				}
				return nil
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			found[filepath.ToSlash(rel)] = string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	wanted, found := files(want), files(got)
	if len(wanted) == 0 {
		t.Fatalf("%s is empty", want)
	}
	for path, content := range wanted {
		switch has, ok := found[path]; {
		case !ok:
			t.Errorf("%s is missing", path)
		case has != content:
			t.Errorf("%s differs", path)
		}
	}
	for path := range found {
		if _, ok := wanted[path]; !ok {
			t.Errorf("%s is extra", path)
		}
	}
}

func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there (%v)", path, err)
	}
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("not the JSON that was expected: %v\n%s", err, text)
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
