// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// These commands speak to a registry over plain HTTP without the code under
// test, to store what an attacker would.

// request sends one request and returns the answer's body and headers.
func request(ts *testscript.TestScript, method, url, contentType string, body []byte) ([]byte, http.Header) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	ts.Check(err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", strings.Join([]string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex}, ", "))
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode >= 300 {
		ts.Fatalf("%s %s: %s: %s", method, url, resp.Status, got)
	}
	return got, resp.Header
}

// repository turns HOST/NAME into the base URL of the repository.
func repository(repo string) string {
	host, name, _ := strings.Cut(repo, "/")
	return "http://" + host + "/v2/" + name
}

func pushBlob(ts *testscript.TestScript, repo, mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	_, header := request(ts, http.MethodPost, repository(repo)+"/blobs/uploads/", "", nil)
	target := header.Get("Location")
	if strings.HasPrefix(target, "/") {
		host, _, _ := strings.Cut(repo, "/")
		target = "http://" + host + target
	}
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	request(ts, http.MethodPut, target+separator+"digest="+d.String(), "application/octet-stream", content)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// cmdArtifact is "artifact REPO TAG [TYPE NAME FILE]...": a manifest with such
// layers; NAME may be "-" for none.
func cmdArtifact(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args)%3 != 2 {
		ts.Fatalf("usage: artifact REPO TAG [TYPE NAME FILE]...")
	}
	repo, tag := args[0], args[1]
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.model",
		Config:       pushBlob(ts, repo, ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers:       []ocispec.Descriptor{},
	}
	for rest := args[2:]; len(rest) > 0; rest = rest[3:] {
		content, err := os.ReadFile(ts.MkAbs(rest[2]))
		ts.Check(err)
		layer := pushBlob(ts, repo, rest[0], content)
		if rest[1] != "-" {
			layer.Annotations = map[string]string{ocispec.AnnotationTitle: rest[1]}
		}
		m.Layers = append(m.Layers, layer)
	}
	raw, err := json.Marshal(m)
	ts.Check(err)
	request(ts, http.MethodPut, repository(repo)+"/manifests/"+tag, m.MediaType, raw)
}

// cmdPutManifest is "putmanifest REPO TAG TYPE FILE": stores FILE as it is.
func cmdPutManifest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: putmanifest REPO TAG TYPE FILE")
	}
	request(ts, http.MethodPut, repository(args[0])+"/manifests/"+args[1], args[2], []byte(ts.ReadFile(args[3])))
}

// cmdMoveReferrer is "movereferrer REPO FROM TO": attaches the signatures of one
// tag to what another tag names. Only the subject of their manifests is changed.
func cmdMoveReferrer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: movereferrer REPO FROM TO")
	}
	base := repository(args[0])
	from, _ := request(ts, http.MethodGet, base+"/manifests/"+args[1], "", nil)
	to, header := request(ts, http.MethodGet, base+"/manifests/"+args[2], "", nil)
	list, _ := request(ts, http.MethodGet, base+"/referrers/"+digest.FromBytes(from).String(), "", nil)
	var index ocispec.Index
	ts.Check(json.Unmarshal(list, &index))
	if len(index.Manifests) == 0 {
		ts.Fatalf("%s has no referrer", args[1])
	}
	for _, desc := range index.Manifests {
		raw, _ := request(ts, http.MethodGet, base+"/manifests/"+desc.Digest.String(), "", nil)
		var m ocispec.Manifest
		ts.Check(json.Unmarshal(raw, &m))
		m.Subject = &ocispec.Descriptor{MediaType: header.Get("Content-Type"), Digest: digest.FromBytes(to), Size: int64(len(to))}
		moved, err := json.Marshal(m)
		ts.Check(err)
		request(ts, http.MethodPut, base+"/manifests/"+digest.FromBytes(moved).String(), m.MediaType, moved)
	}
}

// cmdSignedAgo is "signedago AGE EXPIRY REF": signs as release with a clock that
// is AGE behind, 0s for no expiry.
func cmdSignedAgo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: signedago AGE EXPIRY REF")
	}
	age, err := time.ParseDuration(args[0])
	ts.Check(err)
	expiry, err := time.ParseDuration(args[1])
	ts.Check(err)
	ref, err := registry.ParseReference(args[2])
	ts.Check(err)
	client, err := registry.NewClient(registry.Options{})
	ts.Check(err)
	r := rigOf(ts)
	session, err := vault.Open(r.tb.Context(), vault.Config{Address: r.vault.VaultAddr}, vault.StaticToken(r.signer, "test"))
	ts.Check(err)
	defer session.Close(r.tb.Context())
	signer, err := session.Signer(r.tb.Context(), vault.KeyRef{Mount: "transit", Name: "release"})
	ts.Check(err)
	clock := aegis.Options{Now: func() time.Time { return time.Now().Add(-age) }}
	_, err = aegis.New(client, clock).Sign(r.tb.Context(), ref, aegis.Signing{Signer: signer, Expiry: expiry})
	ts.Check(err)
}

// cmdFallbackTag is "fallbacktag NAME DIGEST": the tag that lists the referrers of
// DIGEST where there is no API.
func cmdFallbackTag(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fallbacktag NAME DIGEST")
	}
	ts.Setenv(args[0], strings.Replace(args[1], ":", "-", 1))
}

// cmdCopySignature is "copysignature REPO TAG N": attaches the first signature N
// more times, each as another blob under another manifest, as anybody may who can
// push.
func cmdCopySignature(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: copysignature REPO TAG N")
	}
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	base := repository(args[0])
	subject, _ := request(ts, http.MethodGet, base+"/manifests/"+args[1], "", nil)
	list, _ := request(ts, http.MethodGet, base+"/referrers/"+digest.FromBytes(subject).String(), "", nil)
	var index ocispec.Index
	ts.Check(json.Unmarshal(list, &index))
	raw, _ := request(ts, http.MethodGet, base+"/manifests/"+index.Manifests[0].Digest.String(), "", nil)
	var m ocispec.Manifest
	ts.Check(json.Unmarshal(raw, &m))
	envelope, _ := request(ts, http.MethodGet, base+"/blobs/"+m.Layers[0].Digest.String(), "", nil)
	for i := range n {
		// White space before JSON makes another blob of the same envelope.
		m.Layers[0] = pushBlob(ts, args[0], m.Layers[0].MediaType, append(bytes.Repeat([]byte(" "), i+1), envelope...))
		copied, err := json.Marshal(m)
		ts.Check(err)
		request(ts, http.MethodPut, base+"/manifests/"+digest.FromBytes(copied).String(), m.MediaType, copied)
	}
}
