// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vectors

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Push puts v into a repository of a registry without the referrers API, past any
// code under test, and returns the subject's digest. The listing is the index
// under the subject's tag, so that it can lie as v wants it to.
func (v Vector) Push(t testing.TB, host, repository string) digest.Digest {
	t.Helper()
	p := pusher{t: t, base: "http://" + host + "/v2/" + repository}
	p.blob([]byte("{}"))
	for _, m := range v.manifests() {
		for _, b := range m.Blobs {
			raw, err := b.Bytes()
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			p.blob(raw)
		}
		p.manifest(digest.FromString(m.Text).String(), ocispec.MediaTypeImageManifest, []byte(m.Text))
	}
	subject := digest.FromString(v.Subject.Text)
	tag := strings.Replace(subject.String(), ":", "-", 1)
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, m := range v.Referrers {
		index.Manifests = append(index.Manifests, m.descriptor())
	}
	if len(index.Manifests) > 0 {
		raw, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		p.manifest(tag, ocispec.MediaTypeImageIndex, raw)
	}
	if v.Classic != nil {
		p.manifest(tag+".sig", ocispec.MediaTypeImageManifest, []byte(v.Classic.Text))
	}
	return subject
}

type pusher struct {
	t    testing.TB
	base string
}

func (p pusher) blob(content []byte) {
	p.t.Helper()
	location := p.do(http.MethodPost, p.base+"/blobs/uploads/", "", nil, http.StatusAccepted)
	between := "?"
	if strings.Contains(location, "?") {
		between = "&"
	}
	p.do(http.MethodPut, location+between+"digest="+digest.FromBytes(content).String(), "application/octet-stream", content, http.StatusCreated)
}

func (p pusher) manifest(reference, mediaType string, content []byte) {
	p.t.Helper()
	p.do(http.MethodPut, p.base+"/manifests/"+reference, mediaType, content, http.StatusCreated)
}

// do returns the Location of the answer, which has to have the status.
func (p pusher) do(method, url, contentType string, body []byte, status int) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != status {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 2000))
		p.t.Fatalf("%s %s: %s, want %d: %s (%v)", method, url, resp.Status, status, text, err)
	}
	return resp.Header.Get("Location")
}
