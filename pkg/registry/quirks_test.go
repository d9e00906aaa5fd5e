// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// quirks are registries as they are found.
var quirks = map[string]ociserver.Options{
	"full":                            {},
	"without the referrers API":       {DisableReferrersAPI: true},
	"without filters":                 {DisableReferrersFiltering: true},
	"without digests of tags":         {OmitDigestFromTagGetResponse: true},
	"without digests and API":         {OmitDigestFromTagGetResponse: true, DisableReferrersAPI: true},
	"with a largest page":             {MaxListPageSize: 2},
	"without links":                   {OmitLinkHeaderFromResponses: true},
	"without uploads in one request":  {DisableSinglePostUpload: true},
	"with nothing but what it must":   {DisableReferrersAPI: true, OmitDigestFromTagGetResponse: true, OmitLinkHeaderFromResponses: true, DisableSinglePostUpload: true},
	"with the API and little besides": {DisableReferrersFiltering: true, OmitDigestFromTagGetResponse: true, OmitLinkHeaderFromResponses: true, MaxListPageSize: 1},
}

func TestEveryOperationOnRegistriesWithQuirks(t *testing.T) {
	for name, o := range quirks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, memRegistry(t, &o)+"/team/m:v1", registry.Options{})
			pushed := pushImage(t, r, "v1", "layer")

			p, err := r.Resolve(t.Context())
			if err != nil || p.Subject() != pushed.Subject() {
				t.Fatalf("resolved %s, %v", p.Reference(), err)
			}
			if d, ok, err := r.ResolveTag(t.Context(), "v1"); err != nil || !ok || d != pushed.Subject().Digest() {
				t.Errorf("v1 is %s, %v, %v", d, ok, err)
			}
			if api, err := r.HasReferrersAPI(t.Context(), p.Subject()); err != nil || api == o.DisableReferrersAPI {
				t.Errorf("has the API: %v, %v", api, err)
			}
			blobsOf(t, r)
			attachAndList(t, r, p)
		})
	}
}

// blobsOf pushes a blob, finds it, and reads it whole and from an offset.
func blobsOf(t *testing.T, r *registry.Repository) {
	t.Helper()
	content := bytes.Repeat([]byte("0123456789"), 1000)
	desc := descOf(content)
	if there, err := r.BlobExists(t.Context(), desc); err != nil || there {
		t.Fatalf("there before the push: %v, %v", there, err)
	}
	if up, err := r.PushBlob(t.Context(), desc, opener(content)); err != nil || !up {
		t.Fatalf("pushed: %v, %v", up, err)
	}
	if up, err := r.PushBlob(t.Context(), desc, opener(content)); err != nil || up {
		t.Errorf("pushed again: %v, %v", up, err)
	}
	if got, err := r.FetchBlob(t.Context(), desc, desc.Size); err != nil || !bytes.Equal(got, content) {
		t.Errorf("fetched %d bytes, %v", len(got), err)
	}
	for _, offset := range []int64{0, 1, 5000, desc.Size} {
		rc, at, err := r.OpenBlob(t.Context(), desc, offset)
		if err != nil || at != offset {
			t.Fatal(at, err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || !bytes.Equal(got, content[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
}

func attachAndList(t *testing.T, r *registry.Repository, p registry.Pinned) {
	t.Helper()
	want := make(map[digest.Digest]string)
	for i := range 5 {
		name := fmt.Sprint("n", i)
		desc, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", name))
		if err != nil {
			t.Fatal(err)
		}
		want[desc.Digest] = name
	}
	// The same again is no second entry.
	if _, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "n0")); err != nil {
		t.Fatal(err)
	}
	all := listed(t, r, p.Subject())
	if len(all) != len(want) {
		t.Fatalf("%d referrers are listed, want %d", len(all), len(want))
	}
	for _, d := range all {
		if d.Annotations["name"] != want[d.Digest] || d.ArtifactType != "application/vnd.example.test" {
			t.Errorf("listed %+v", d)
		}
		if _, err := r.FetchManifest(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
}
