// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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
	dir := vectors.Dir(t)
	for _, v := range vectors.Load(t, dir) {
		t.Run(v.Name, func(t *testing.T) {
			repository := vectorRepository(v)
			if repository != v.Path() {
				t.Parallel()
			}
			v.Push(t, host, repository)
			holdsOn(t, dir, v, host, repository)
		})
	}
}

// TestVectorsWithTheReferrersAPI runs them on a registry that has it and makes the
// listing itself. The few whose listing lies have a registry in front that lies.
func TestVectorsWithTheReferrersAPI(t *testing.T) {
	t.Parallel()
	host := servertest.Stack(t, "-no-vault").Registry
	dir, lying := vectors.Dir(t), 0
	for _, v := range vectors.Load(t, dir) {
		if v.Lies() {
			lying++
		}
		t.Run(v.Name, func(t *testing.T) {
			repository, at := vectorRepository(v), host
			if repository == v.Path() {
				// What the vectors before it have signed is listed there as well.
				at = servertest.Stack(t, "-no-vault").Registry
			} else {
				t.Parallel()
			}
			subject := v.PushContent(t, at, repository)
			if v.Lies() {
				at = lyingRegistry(t, at, "/v2/"+repository+"/referrers/"+subject.String(), v.Listing(t))
			}
			holdsOn(t, dir, v, at, repository)
		})
	}
	if lying != 5 {
		t.Errorf("%d vectors have a listing that lies, want 5", lying)
	}
}

// vectorRepository is one for each vector, in which nothing else is listed. Where
// its name counts it is the vector's own, the same for several.
func vectorRepository(v vectors.Vector) string {
	if v.Rule == "requireRepository" || v.Name == "policy-repository" {
		return v.Path()
	}
	return "models/" + v.Name
}

// lyingRegistry answers one request for referrers by itself.
func lyingRegistry(t *testing.T, host, path string, listing []byte) string {
	t.Helper()
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			behind.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		if _, err := w.Write(listing); err != nil {
			t.Errorf("the listing: %v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// holdsOn runs verify and pull on what v has put into repository.
func holdsOn(t *testing.T, dir string, v vectors.Vector, host, repository string) {
	t.Helper()
	registry, _, _ := strings.Cut(v.Repository, "/")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(copyKeys(t, dir), "policy.json")
	if err := os.WriteFile(policy, v.Policy, 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"--policy", policy, "--format", "json", "--plain-http", "--resolve", registry + ":80:127.0.0.1:" + port}
	ref := registry + "/" + repository + "@" + v.SubjectOf(t).Digest().String()
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
