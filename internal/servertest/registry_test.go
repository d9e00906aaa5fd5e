// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// descriptor is an OCI descriptor.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func TestRegistryListsReferrers(t *testing.T) {
	for name, args := range map[string][]string{"memory": nil, "tls": {"-tls"}, "directory": {"-registry-dir", t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			s := servertest.Stack(t, append(args, "-no-vault")...)
			dgst := pushArtifact(t, s.HTTPClient(), s.RegistryURL(), "team/model", nil)
			subject := &descriptor{MediaType: manifestType, Digest: dgst, Size: manifestSize(t, s, dgst)}
			referrer := pushArtifact(t, s.HTTPClient(), s.RegistryURL(), "team/model", subject)

			resp := get(t, s.HTTPClient(), s.RegistryURL()+"/v2/team/model/referrers/"+dgst)
			var index struct{ Manifests []descriptor }
			if err := json.NewDecoder(resp.Body).Decode(&index); err != nil {
				t.Fatal(err)
			}
			if len(index.Manifests) != 1 || index.Manifests[0].Digest != referrer {
				t.Errorf("referrers are %v, want %s", index.Manifests, referrer)
			}
		})
	}
}

func TestRegistryCanLackTheReferrersAPI(t *testing.T) {
	s := servertest.Stack(t, "-no-vault", "-no-referrers")
	dgst := pushArtifact(t, s.HTTPClient(), s.RegistryURL(), "team/model", nil)
	// olareg says 405 where the specification and distribution say 404.
	if got := get(t, s.HTTPClient(), s.RegistryURL()+"/v2/team/model/referrers/"+dgst).StatusCode; got != http.StatusMethodNotAllowed {
		t.Errorf("the referrers API answers %d, want 405", got)
	}
}

func TestDistributionHasNoReferrersAPI(t *testing.T) {
	addr, dir := servertest.Distribution(t)
	dgst := pushArtifact(t, http.DefaultClient, "http://"+addr, "team/model", nil)
	if got := get(t, http.DefaultClient, "http://"+addr+"/v2/team/model/referrers/"+dgst).StatusCode; got != http.StatusNotFound {
		t.Errorf("the referrers API answers %d, want 404", got)
	}
	hex := strings.TrimPrefix(dgst, "sha256:")
	if _, err := os.Stat(filepath.Join(dir, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")); err != nil {
		t.Errorf("the manifest is not in the storage directory: %v", err)
	}
}

func TestDistributionAsksForAPassword(t *testing.T) {
	addr, _ := servertest.Distribution(t, servertest.Htpasswd(t, "ci", "s3cret"))
	if got := get(t, http.DefaultClient, "http://"+addr+"/v2/").StatusCode; got != http.StatusUnauthorized {
		t.Errorf("without a password: %d, want 401", got)
	}
	if got := get(t, http.DefaultClient, "http://ci:s3cret@"+addr+"/v2/").StatusCode; got != http.StatusOK {
		t.Errorf("with the password: %d, want 200", got)
	}
}

func TestDistributionMirrorsAnotherRegistry(t *testing.T) {
	origin, _ := servertest.Distribution(t)
	dgst := pushArtifact(t, http.DefaultClient, "http://"+origin, "team/model", nil)
	mirror, _ := servertest.Distribution(t, "proxy:\n  remoteurl: http://"+origin+"\n")
	if got := get(t, http.DefaultClient, "http://"+mirror+"/v2/team/model/manifests/"+dgst).StatusCode; got != http.StatusOK {
		t.Errorf("the mirror answers %d, want 200", got)
	}
}

// pushArtifact pushes a manifest with one blob, by digest, and returns the digest.
func pushArtifact(t *testing.T, client *http.Client, base, repo string, subject *descriptor) string {
	t.Helper()
	config := pushBlob(t, client, base, repo, []byte("{}"))
	manifest, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		ArtifactType  string       `json:"artifactType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
		Subject       *descriptor  `json:"subject,omitempty"`
	}{2, manifestType, "application/vnd.example.test", config, []descriptor{config}, subject})
	if err != nil {
		t.Fatal(err)
	}
	dgst := digestOf(manifest)
	resp := do(t, client, http.MethodPut, base+"/v2/"+repo+"/manifests/"+dgst, manifestType, manifest)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("pushing the manifest: %s", resp.Status)
	}
	if got := get(t, client, base+"/v2/"+repo+"/manifests/"+dgst); got.StatusCode != http.StatusOK {
		t.Fatalf("pulling the manifest: %s", got.Status)
	}
	return dgst
}

func pushBlob(t *testing.T, client *http.Client, base, repo string, content []byte) descriptor {
	t.Helper()
	d := descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digestOf(content), Size: len(content)}
	start := base + "/v2/" + repo + "/blobs/uploads/"
	resp := do(t, client, http.MethodPost, start, "", nil)
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("starting an upload: %s", resp.Status)
	}
	from, err := url.Parse(start)
	if err != nil {
		t.Fatal(err)
	}
	location, err := from.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	query := location.Query()
	query.Set("digest", d.Digest)
	location.RawQuery = query.Encode()
	if resp := do(t, client, http.MethodPut, location.String(), "application/octet-stream", content); resp.StatusCode != http.StatusCreated {
		t.Fatalf("uploading: %s", resp.Status)
	}
	got, err := io.ReadAll(get(t, client, base+"/v2/"+repo+"/blobs/"+d.Digest).Body)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the blob comes back as %q, %v", got, err)
	}
	return d
}

func manifestSize(t *testing.T, s *servertest.Server, dgst string) int {
	t.Helper()
	body, err := io.ReadAll(get(t, s.HTTPClient(), s.RegistryURL()+"/v2/team/model/manifests/"+dgst).Body)
	if err != nil {
		t.Fatal(err)
	}
	return len(body)
}

func digestOf(content []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(content))
}

// get sends a GET whose answer's body is closed with the test.
func get(t *testing.T, client *http.Client, address string) *http.Response {
	t.Helper()
	return do(t, client, http.MethodGet, address, "", nil)
}

func do(t *testing.T, client *http.Client, method, address, contentType string, body []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", manifestType)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}
