// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
)

// MaxManifestSize is the largest manifest that is read, in bytes: the limit that
// the OCI distribution spec 1.1 ("Pushing Manifests") asks registries to accept.
const MaxManifestSize = 4 << 20

const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Subject is one manifest, named by the hash of its bytes: what a signature is
// made over and judged against. Only SubjectOf makes one, from the bytes
// themselves; the zero Subject names nothing and is refused everywhere.
type Subject struct {
	mediaType string
	dgst      digest.Digest
	size      int64
}

// SubjectOf hashes manifest (SHA-256, the only algorithm used) and returns its
// Subject. mediaType is the registry's Content-Type without parameters.
//
// It refuses bytes that two readers could take for two different things: a body
// whose own mediaType differs from the header's (the image-spec 1.1 confusion of
// GHSA-77vh-xpmg-72qh), or is missing where it is called a Docker manifest, one that
// has both manifests and layers, duplicate or case-variant keys, and anything over
// MaxManifestSize.
func SubjectOf(mediaType string, manifest []byte) (Subject, error) {
	if len(manifest) > MaxManifestSize {
		return Subject{}, &ManifestError{Reason: fmt.Sprintf("%d bytes, more than the %d a manifest may have", len(manifest), MaxManifestSize)}
	}
	if !isManifestType(mediaType) {
		return Subject{}, &ManifestError{Reason: fmt.Sprintf("media type %q is not that of an image manifest or index", mediaType)}
	}
	if err := unambiguous(mediaType, manifest); err != nil {
		return Subject{}, err
	}
	sum := sha256.Sum256(manifest)
	return Subject{
		mediaType: mediaType,
		dgst:      digest.NewDigestFromBytes(digest.SHA256, sum[:]),
		size:      int64(len(manifest)),
	}, nil
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerManifestList:
		return true
	}
	return false
}

func unambiguous(mediaType string, manifest []byte) error {
	if err := strictjson.Check(manifest); err != nil {
		return &ManifestError{Reason: err.Error()}
	}
	var body struct {
		MediaType *string         `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(manifest, &body); err != nil {
		return &ManifestError{Reason: err.Error()}
	}
	if body.MediaType == nil && (mediaType == dockerManifest || mediaType == dockerManifestList) {
		// Docker's schema has it always. An OCI manifest without one could be listed as
		// either, and stored as the wrong one.
		return &ManifestError{Reason: fmt.Sprintf("the registry calls it %q and it has no mediaType", mediaType)}
	}
	if body.MediaType != nil && *body.MediaType != mediaType {
		return &ManifestError{Reason: fmt.Sprintf("the registry calls it %q and its own mediaType is %q", mediaType, *body.MediaType)}
	}
	if body.Manifests != nil && body.Layers != nil {
		return &ManifestError{Reason: "it has both manifests and layers"}
	}
	index := mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
	if index && body.Layers != nil {
		return &ManifestError{Reason: "it is called an index and has layers"}
	}
	if !index && body.Manifests != nil {
		return &ManifestError{Reason: "it is called a manifest and has manifests"}
	}
	return nil
}

// ManifestError says why bytes were refused as a manifest.
type ManifestError struct{ Reason string }

func (e *ManifestError) Error() string { return "not a usable manifest: " + e.Reason }

// Digest is the SHA-256 digest of the manifest's bytes; empty for the zero Subject.
func (s Subject) Digest() digest.Digest { return s.dgst }

// MediaType is the manifest's media type.
func (s Subject) MediaType() string { return s.mediaType }

// Size is the manifest's length in bytes.
func (s Subject) Size() int64 { return s.size }

// IsZero reports whether s names nothing.
func (s Subject) IsZero() bool { return s.dgst == "" }

// IsIndex reports whether the manifest is an index of other manifests.
func (s Subject) IsIndex() bool {
	return s.mediaType == ocispec.MediaTypeImageIndex || s.mediaType == dockerManifestList
}

// Descriptor returns the OCI content descriptor (media type, digest, size).
func (s Subject) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: s.mediaType, Digest: s.dgst, Size: s.size}
}

func (s Subject) String() string { return s.dgst.String() }
