// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package formats is the one place that knows every signature format: how a
// signature of it looks in a registry, and how its bytes are parsed. What it
// recognises by are unsigned words, which choose a parser and decide nothing.
package formats

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

// Format is one row of the table.
type Format struct {
	Name signature.Format
	// ArtifactType is that of the referrer's manifest, LayerType that of its layer.
	ArtifactType, LayerType string
	// predicate is the predicate type that the manifest names, where one artifact
	// type has several.
	predicate string
	// Shared is a manifest that holds many signatures, one in each layer, and is
	// found by its tag: it need not name a subject.
	Shared bool
	parse  func(content []byte, layer ocispec.Descriptor) (*signature.Envelope, error)
}

// rows is the table.
func rows() []Format {
	return []Format{
		{Name: signature.Sigstore, ArtifactType: sigstore.MediaType, LayerType: sigstore.MediaType,
			predicate: sigstore.PredicateType, parse: alone(sigstore.Parse)},
		{Name: signature.Notary, ArtifactType: notary.ArtifactType, LayerType: notary.MediaTypeJWS, parse: alone(notary.ParseJWS)},
		{Name: signature.NotaryCOSE, ArtifactType: notary.ArtifactType, LayerType: notary.MediaTypeCOSE, parse: alone(notary.ParseCOSE)},
		{Name: signature.OMS, ArtifactType: sigstore.MediaType, LayerType: sigstore.MediaType,
			predicate: oms.PredicateType, parse: alone(oms.Parse)},
		{Name: signature.CosignTag, ArtifactType: simplesigning.MediaType, LayerType: simplesigning.MediaType, Shared: true, parse: parseClassic},
	}
}

// alone is for formats whose signature is all in the layer's bytes.
func alone(parse func([]byte) (*signature.Envelope, error)) func([]byte, ocispec.Descriptor) (*signature.Envelope, error) {
	return func(content []byte, _ ocispec.Descriptor) (*signature.Envelope, error) { return parse(content) }
}

func parseClassic(content []byte, layer ocispec.Descriptor) (*signature.Envelope, error) {
	return simplesigning.Parse(content, layer.Annotations)
}

// Parse reads the envelope of one layer.
func (f Format) Parse(content []byte, layer ocispec.Descriptor) (*signature.Envelope, error) {
	return f.parse(content, layer)
}

// IsZero reports whether f is no format.
func (f Format) IsZero() bool { return f.Name == "" }

// artifactType is the manifest's, or as older tools write it, its config's.
func artifactType(m ocispec.Manifest) string {
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	return m.Config.MediaType
}

// Of tells the format of a referrer. known is false for a referrer that is no
// signature of any format here. The zero Format with known set is a manifest
// that calls itself a signature and whose first layer is of none of its types.
func Of(m ocispec.Manifest) (f Format, known bool) {
	for _, row := range rows() {
		if row.Shared {
			// cosign's manifest looks like an image's, but for its layers.
			if len(m.Layers) > 0 && m.Layers[0].MediaType == row.LayerType {
				return row, true
			}
			continue
		}
		if artifactType(m) != row.ArtifactType || !row.claimedBy(m.Annotations) {
			continue
		}
		known = true
		if len(m.Layers) == 0 || m.Layers[0].MediaType == row.LayerType {
			return row, true
		}
	}
	return Format{}, known
}

// claimedBy: a bundle that says it is an attestation of something else is none
// of ours; one that says nothing, or lies, is judged by what is signed.
func (f Format) claimedBy(annotations map[string]string) bool {
	if f.predicate == "" {
		return true
	}
	pt := annotations[sigstore.AnnotationPredicateType]
	return pt == f.predicate || pt == "" && f.Name == signature.Sigstore
}

// Rank orders the entries of a listing: what looks like a signature first, what
// says that it is something else last. Only an optimisation.
func Rank(d ocispec.Descriptor) int {
	const likely, possible, silent, unlikely, other = 0, 1, 2, 3, 4
	if d.ArtifactType == "" || d.ArtifactType == ocispec.MediaTypeEmptyJSON {
		// Index entries written by older tools name no artifact type.
		return silent
	}
	best := other
	for _, row := range rows() {
		pt := d.Annotations[sigstore.AnnotationPredicateType]
		switch {
		case d.ArtifactType != row.ArtifactType:
		case row.predicate == "" || pt == row.predicate:
			best = min(best, likely)
		case pt == "":
			best = min(best, possible)
		default:
			best = min(best, unlikely)
		}
	}
	return best
}

// Parse reads the envelope of a finished signature.
func Parse(a signature.Attachment) (*signature.Envelope, error) {
	for _, row := range rows() {
		if row.Name == a.Format {
			return row.Parse(a.Envelope, a.Layer())
		}
	}
	return nil, &UnknownError{a.Format}
}

// UnknownError means that a format has no row in the table.
type UnknownError struct{ Format signature.Format }

func (e *UnknownError) Error() string { return "unknown signature format " + string(e.Format) }

// IsShared reports whether manifests of an artifact type hold many signatures,
// and may be as large as that takes.
func IsShared(artifactType string) bool {
	for _, row := range rows() {
		if row.Shared && row.ArtifactType == artifactType {
			return true
		}
	}
	return false
}
