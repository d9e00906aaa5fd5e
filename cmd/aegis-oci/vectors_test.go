// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/vectors"
)

// vectorCode is the error code for a class of testdata/vectors.
var vectorCode = map[string]string{
	"unsigned": "unsigned", "format": "rejected", "signature": "rejected", "statement": "rejected", "certificate": "rejected",
	"subject": "subject_differs", "expired": "expired", "clock": "signed_in_future",

	"formats": "format_not_allowed", "maxAge": "too_old", "notBefore": "not_before", "requireRepository": "repository_differs",
	"annotations": "annotation_differs", "builder": "builder_differs", "revoked": "revoked", "require": "too_few_signers",
	"timestamp": "timestamp_invalid",
}

// TestVectors runs every vector through the program, on a real registry: verify
// judges as the vector says, and pull leaves nothing behind where it refuses.
func TestVectors(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	dir := vectors.Dir(t)
	for _, v := range vectors.Load(t, dir) {
		t.Run(v.Name, func(t *testing.T) {
			registry, repository, _ := strings.Cut(v.Repository, "/")
			// A repository for each vector, in which nothing else is listed. Where its
			// name counts it is the same for all, one after the other.
			if v.Rule != "requireRepository" && v.Name != "policy-repository" {
				repository = "models/" + v.Name
				t.Parallel()
			}
			digest := v.Push(t, host, repository)
			policy := filepath.Join(copyKeys(t, dir), "policy.json")
			if err := os.WriteFile(policy, v.Policy, 0o600); err != nil {
				t.Fatal(err)
			}
			common := []string{"--policy", policy, "--format", "json", "--plain-http", "--resolve", registry + ":80:127.0.0.1:" + port}
			ref := registry + "/" + repository + "@" + digest.String()
			out := filepath.Join(t.TempDir(), "out")
			holdsVector(t, v, "verify", append(common, ref)...)
			holdsVector(t, v, "pull", append(common, "-o", out, ref)...)
			if _, err := os.Lstat(out); v.Expect == "success" && err != nil || v.Expect != "success" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pull left at %s: %v", out, err)
			}
			left, err := os.ReadDir(filepath.Dir(out))
			if v.Expect != "success" && (err != nil || len(left) > 0) {
				t.Errorf("pull left %v, %v", left, err)
			}
		})
	}
}

// copyKeys lets a policy be written beside the keys that it names.
func copyKeys(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "keys"), os.DirFS(filepath.Join(dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	return to
}

// holdsVector runs one command and holds exit code, error code and reason.
func holdsVector(t *testing.T, v vectors.Vector, command string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "aegis-oci", append([]string{command, "--quiet", "--termination-log", ""}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	stdout, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var got struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(stdout, &got); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, stdout)
	}
	want, code := 3, vectorCode[v.Expect]
	switch v.Expect {
	case "success":
		want = 0
	case "policy":
		code = vectorCode[v.Rule]
	}
	if code == "" && want != 0 {
		t.Fatalf("no code for %s %s", v.Expect, v.Rule)
	}
	if c := cmd.ProcessState.ExitCode(); c != want || got.Error.Code != code || !strings.Contains(got.Error.Message, v.Reason) {
		t.Errorf("%s: exit %d, code %q, want %d, %q, %q: %s", command, c, got.Error.Code, want, code, v.Reason, got.Error.Message)
	}
}
