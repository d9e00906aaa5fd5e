// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzSubjectOf holds that a Subject names exactly the bytes, under a type that
// the bytes do not contradict to any reader.
func FuzzSubjectOf(f *testing.F) {
	for _, body := range []string{
		`{"schemaVersion":2,"layers":[]}`, `{"manifests":[],"layers":[]}`, `{"manifests":null}`, `{"Manifests":[]}`, `{"mediaType":""}`, `{"mediaType":null}`,
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`, `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, `[]`, `null`, ``,
	} {
		for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerManifestList, "text/plain"} {
			f.Add(mediaType, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		s, err := SubjectOf(mediaType, body)
		if err != nil {
			var refused *ManifestError
			if !errors.As(err, &refused) || !s.IsZero() {
				t.Fatalf("%+v, %v", s, err)
			}
			return
		}
		sum := sha256.Sum256(body)
		if s.Digest().String() != "sha256:"+hex.EncodeToString(sum[:]) || s.Size() != int64(len(body)) || s.MediaType() != mediaType {
			t.Fatalf("%+v for %d bytes of %s", s, len(body), mediaType)
		}
		var fields map[string]any
		if json.Unmarshal(body, &fields) != nil {
			return // null, a number out of range: no decoder of manifests takes it
		}
		for name, value := range fields {
			lower := strings.ToLower(name)
			if value == nil {
				continue
			}
			if lower == "manifests" && !s.IsIndex() || lower == "layers" && s.IsIndex() {
				t.Fatalf("%s has %s", mediaType, name)
			}
			if own, ok := value.(string); lower == "mediatype" && (!ok || own != mediaType) {
				t.Fatalf("%s calls itself %v", mediaType, value)
			}
		}
	})
}
