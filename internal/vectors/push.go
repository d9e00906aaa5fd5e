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
	subject := v.PushContent(t, host, repository)
	if len(v.Referrers) > 0 {
		p := pusher{t: t, base: "http://" + host + "/v2/" + repository}
		p.manifest(tagOf(subject), ocispec.MediaTypeImageIndex, v.Listing(t))
	}
	return subject
}

// PushContent is Push without a listing: a registry with the referrers API makes
// its own.
func (v Vector) PushContent(t testing.TB, host, repository string) digest.Digest {
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
	if v.Classic != nil {
		p.manifest(tagOf(subject)+".sig", ocispec.MediaTypeImageManifest, []byte(v.Classic.Text))
	}
	return subject
}

func tagOf(subject digest.Digest) string { return strings.Replace(subject.String(), ":", "-", 1) }

// Listing is the index of referrers as v has it.
func (v Vector) Listing(t testing.TB) []byte {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, m := range v.Referrers {
		index.Manifests = append(index.Manifests, m.descriptor())
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Lies reports that no registry would make v's listing out of its manifests.
func (v Vector) Lies() bool {
	for _, m := range v.Referrers {
		var own ocispec.Manifest
		if m.Listed != "" || json.Unmarshal([]byte(m.Text), &own) != nil || own.Subject == nil || own.Subject.Digest != digest.FromString(v.Subject.Text) {
			return true
		}
	}
	return false
}

type pusher struct {
	t    testing.TB
	base string
}

func (p pusher) blob(content []byte) {
	p.t.Helper()
	location := p.do(http.MethodPost, p.base+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if strings.HasPrefix(location, "/") {
		host, _, _ := strings.Cut(strings.TrimPrefix(p.base, "http://"), "/")
		location = "http://" + host + location
	}
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
