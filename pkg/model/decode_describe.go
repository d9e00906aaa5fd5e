// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Header is what a manifest says about itself, for showing. Nothing of it was
// judged: paths may be hostile and layers of any type, and it cannot be unpacked.
type Header struct {
	ArtifactType string
	Annotations  map[string]string
	Config       ocispec.Descriptor
	Layers       []Layer
	// Unknown are the media types of layers that nobody here can unpack.
	Unknown []string
}

// Describe reads a manifest or an index for showing. An index has no layers. raw
// must hash to s, else the error is a *ContentError.
func Describe(s signature.Subject, raw []byte) (Header, error) {
	if got := digest.FromBytes(raw); got != s.Digest() {
		return Header{}, &ContentError{Path: "manifest", Want: s.Digest(), Got: got, Reason: "the manifest differs from the one that was named"}
	}
	var wire ocispec.Manifest
	if err := strictjson.Unmarshal(raw, &wire); err != nil {
		return Header{}, &signature.ManifestError{Reason: err.Error()}
	}
	h := Header{ArtifactType: wire.ArtifactType, Annotations: wire.Annotations, Config: wire.Config}
	if h.ArtifactType == "" {
		h.ArtifactType = wire.Config.MediaType
	}
	for _, desc := range wire.Layers {
		l, known, err := decodeLayer(desc)
		if err != nil || !known {
			h.Unknown = append(h.Unknown, desc.MediaType)
		}
		if err != nil {
			l = Layer{Descriptor: desc, Path: desc.Annotations[ocispec.AnnotationTitle]}
		}
		h.Layers = append(h.Layers, l)
	}
	return h, nil
}
