// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
)

// pushFiles pushes a manifest of n files, all of one content.
func pushFiles(t *testing.T, host string, n int, path func(int) string) registry.Reference {
	t.Helper()
	ref := refTo(t, host, "v1")
	repo := repository(t, ref)
	content := []byte("weights")
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.cncf.model.manifest.v1+json"}
	m.Config = ocispec.DescriptorEmptyJSON
	m.Config.Data = nil
	for i := range n {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: "application/vnd.cncf.model.weight.v1.raw", Digest: digest.FromBytes(content), Size: int64(len(content)),
			Annotations: map[string]string{"org.cncf.model.filepath": path(i)}})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	pushContent(t, repo, m.Layers[0], content)
	pushContent(t, repo, m.Config, []byte("{}"))
	pinned, err := repo.PushManifest(t.Context(), m.MediaType, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.TagManifest(t.Context(), pinned, "v1"); err != nil {
		t.Fatal(err)
	}
	return ref
}

// A model of many shards is signed by Transit in one request, and its list of
// files verified there again. A list that fits nowhere is refused unsigned.
func TestAModelOfFiveThousandFilesIsSignedOverItsFiles(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	s := session(t, srv.VaultAddr, "transit/sign/"+name(t), "update", "transit/keys/"+name(t), "read")
	signer, err := s.Signer(t.Context(), transit(name(t)))
	if err != nil {
		t.Fatal(err)
	}
	ref := pushFiles(t, srv.Registry, 5000, func(i int) string { return fmt.Sprintf("model-%05d-of-05000.safetensors", i+1) })
	c := newClient(t)
	before := s.Requests()
	made, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: signer, Formats: []signature.Format{signature.OMS, signature.Sigstore}})
	if err != nil || s.Requests() != before+1 || !made.Signatures[0].SelfVerified {
		t.Fatalf("%+v, %v after %d requests", made, err, s.Requests()-before)
	}
	key, _ := verifyOnly(t, name(t))
	req := requirement(key)
	req.Formats = []signature.Format{signature.OMS}
	got, err := c.Verify(t.Context(), ref, req)
	if err != nil || len(got.Signatures) != 1 || got.Signatures[0].Format != signature.OMS {
		t.Errorf("%+v, %v", got.Signatures, err)
	}

	long := pushFiles(t, srv.Registry, 5000, func(i int) string { return fmt.Sprintf("%060d/model.safetensors", i) })
	before = s.Requests()
	_, err = c.Sign(t.Context(), long, aegis.Signing{Signer: signer, Formats: []signature.Format{signature.OMS, signature.Sigstore}})
	wantErr[*oms.ModelError](t, err)
	if s.Requests() != before {
		t.Errorf("%d requests for what cannot be signed", s.Requests()-before)
	}
}
