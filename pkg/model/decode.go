// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

const (
	// maxLayers bounds the layers of a manifest and the entries of all its
	// archives together.
	maxLayers = 100_000
	// maxModelSize bounds the sum of all layers: no disk takes more, and sums of
	// forged sizes stay far from overflow.
	maxModelSize = 1 << 50
	// maxConfigSize bounds the config blob, which is held in memory.
	maxConfigSize = 4 << 20
)

// Manifest is a model's manifest, decoded from bytes that hash to its subject.
// Every path in it is local, and no two name the same file on any system. Only
// Decode and DecodeUnverified make one; the zero Manifest has no layers and no
// subject.
type Manifest struct {
	subject      signature.Subject
	raw          []byte
	artifactType string
	config       ocispec.Descriptor
	annotations  map[string]string
	layers       []Layer
	unknown      []string
	layerCount   int // unknown ones included
}

// Decode reads the manifest that v verified. raw must hash to its subject, else
// the error is a *ContentError. An index is refused with an *IndexError, a path
// that may not be unpacked with a *PathError, anything else that does not add up
// with a *signature.ManifestError. Layers of an unknown type are not refused
// here: see Unknown.
func Decode(v verify.Verified, raw []byte) (Manifest, error) {
	return DecodeUnverified(v.Subject(), raw)
}

// DecodeUnverified is Decode for a manifest that nobody vouched for: to show it,
// or for UnpackUnverified.
func DecodeUnverified(s signature.Subject, raw []byte) (Manifest, error) {
	if s.IsZero() {
		return Manifest{}, &signature.ManifestError{Reason: "nothing was resolved"}
	}
	if got := digest.FromBytes(raw); got != s.Digest() {
		return Manifest{}, &ContentError{Path: "manifest", Want: s.Digest(), Got: got, Reason: "the manifest differs from the one that was named"}
	}
	if s.IsIndex() {
		return Manifest{}, &IndexError{Digest: s.Digest()}
	}
	var wire ocispec.Manifest
	if err := strictjson.Unmarshal(raw, &wire); err != nil {
		return Manifest{}, &signature.ManifestError{Reason: err.Error()}
	}
	if len(wire.Layers) > maxLayers {
		return Manifest{}, &signature.ManifestError{Reason: fmt.Sprintf("%d layers, more than %d", len(wire.Layers), maxLayers)}
	}
	m := Manifest{
		subject:      s,
		raw:          slices.Clone(raw),
		artifactType: wire.ArtifactType,
		config:       wire.Config,
		annotations:  wire.Annotations,
		layerCount:   len(wire.Layers),
	}
	if err := checkDescriptor("config", wire.Config); err != nil {
		return Manifest{}, err
	}
	if err := m.decodeLayers(wire.Layers); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// decodeLayers sorts the layers into known and unknown ones and refuses names
// and sizes that cannot stand together.
func (m *Manifest) decodeLayers(descs []ocispec.Descriptor) error {
	var (
		paths pathSet
		total int64
		sizes = make(map[digest.Digest]int64)
	)
	for i, desc := range descs {
		if err := checkDescriptor(fmt.Sprintf("layer %d", i), desc); err != nil {
			return err
		}
		if size, ok := sizes[desc.Digest]; ok && size != desc.Size {
			return &signature.ManifestError{Reason: fmt.Sprintf("%s has two sizes, %d and %d", desc.Digest, size, desc.Size)}
		}
		sizes[desc.Digest] = desc.Size
		// Each size is at most maxModelSize, so the sum cannot overflow here.
		if total += desc.Size; total > maxModelSize {
			return &signature.ManifestError{Reason: fmt.Sprintf("the layers' sizes add up to more than %d bytes", int64(maxModelSize))}
		}
		l, known, err := decodeLayer(desc)
		if err != nil {
			return err
		}
		if !known {
			if desc.MediaType != ocispec.MediaTypeEmptyJSON && !slices.Contains(m.unknown, desc.MediaType) {
				m.unknown = append(m.unknown, desc.MediaType)
			}
			continue
		}
		l.index = i
		if !l.Archive {
			if err := paths.addFile(l.Path); err != nil {
				return err
			}
		}
		m.layers = append(m.layers, l)
	}
	return nil
}

func checkDescriptor(what string, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 {
		return &signature.ManifestError{Reason: fmt.Sprintf("%s: %q is not a SHA-256 digest", what, d.Digest)}
	}
	if d.Size < 0 || d.Size > maxModelSize {
		return &signature.ManifestError{Reason: fmt.Sprintf("%s: a size of %d bytes", what, d.Size)}
	}
	return nil
}

// Subject is the manifest's digest, size and media type.
func (m Manifest) Subject() signature.Subject { return m.subject }

// Raw returns the manifest's exact bytes.
func (m Manifest) Raw() []byte { return slices.Clone(m.raw) }

// ArtifactType is the manifest's artifact type; where it has none, the media
// type of its config, which older artifacts tell their type by.
func (m Manifest) ArtifactType() string {
	if m.artifactType == "" {
		return m.config.MediaType
	}
	return m.artifactType
}

// Config describes the config blob.
func (m Manifest) Config() ocispec.Descriptor { return m.config }

// Annotations are the manifest's own annotations. Callers must not change them.
func (m Manifest) Annotations() map[string]string { return m.annotations }

// Layers returns the layers that can be unpacked, in the manifest's order.
func (m Manifest) Layers() []Layer { return slices.Clone(m.layers) }

// Unknown returns the media types of the layers that cannot be unpacked, each
// once.
func (m Manifest) Unknown() []string { return slices.Clone(m.unknown) }

// Size is the sum of the sizes of all known layers, in bytes.
func (m Manifest) Size() int64 {
	var n int64
	for _, l := range m.layers {
		n += l.Descriptor.Size
	}
	return n
}

// diffIDs reads the digests of the layers' uncompressed content out of a
// ModelPack config, in the order of the manifest's layers; nil when it has none
// that fit.
func (m Manifest) diffIDs(config []byte) []digest.Digest {
	var c struct {
		ModelFS struct {
			DiffIDs []digest.Digest `json:"diffIds"`
		} `json:"modelfs"`
	}
	if json.Unmarshal(config, &c) != nil || len(c.ModelFS.DiffIDs) == 0 {
		return nil
	}
	return c.ModelFS.DiffIDs
}
