// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations on the manifest of a signature. They are unsigned hints: they
// order attempts and speed searches, and decide nothing.
const (
	// AnnotationKeyVersion is the version of the Transit key that signed.
	AnnotationKeyVersion = "dev.aegis-oci.vault.key-version"
	// AnnotationRequestID is the request's id in Vault's audit log.
	AnnotationRequestID = "dev.aegis-oci.vault.request-id"
)

// Draft is one format's half-made signature: the message to be signed is fixed.
type Draft interface {
	// Message returns what has to be signed.
	Message() Message
	// Finish puts the primitive into the format's envelope. id describes the key
	// that signed; its SPKI may be nil. ctx is for formats that ask a timestamp
	// authority.
	Finish(ctx context.Context, p Primitive, id KeyID) (Attachment, error)
}

// Attachment is a finished signature and how it is attached to its subject.
type Attachment struct {
	Format Format
	// ArtifactType of the referrer's manifest.
	ArtifactType string
	// MediaType of its one layer, which is Envelope.
	MediaType string
	Envelope  []byte
	// LayerAnnotations are those of the layer: cosign's classic format keeps the
	// signature there.
	LayerAnnotations map[string]string
	// Annotations of the manifest.
	Annotations map[string]string
	// Primitive is what the key returned.
	Primitive Primitive
}

// Hint adds what is known about the signing to the annotations of the
// signature's manifest.
func (p Primitive) Hint(annotations map[string]string) {
	if p.KeyVersion > 0 {
		annotations[AnnotationKeyVersion] = strconv.Itoa(p.KeyVersion)
	}
	if p.RequestID != "" {
		annotations[AnnotationRequestID] = p.RequestID
	}
}

// Layer is the descriptor of the envelope.
func (a Attachment) Layer() ocispec.Descriptor {
	sum := sha256.Sum256(a.Envelope)
	return ocispec.Descriptor{
		MediaType: a.MediaType,
		Digest:    digest.NewDigestFromBytes(digest.SHA256, sum[:]),
		Size:      int64(len(a.Envelope)),

		Annotations: a.LayerAnnotations,
	}
}

// Manifest returns the bytes of the OCI image manifest that refers to subject
// (image-spec 1.1, "Guidelines for Artifact Usage": empty config, one layer).
func (a Attachment) Manifest(subject Subject) ([]byte, error) {
	if subject.IsZero() {
		return nil, errNoSubject
	}
	desc := subject.Descriptor()
	// The config descriptor carries neither data nor an artifact type, as cosign
	// and notation have it.
	config := ocispec.DescriptorEmptyJSON
	config.Data = nil
	return json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: a.ArtifactType,
		Config:       config,
		Layers:       []ocispec.Descriptor{a.Layer()},
		Subject:      &desc,
		Annotations:  a.Annotations,
	})
}

var errNoSubject = errors.New("the zero Subject cannot be signed")

// Sign has signer sign every draft, in one call, and returns the attachments in
// the drafts' order. The signatures are not attached to anything yet.
func Sign(ctx context.Context, signer Signer, drafts ...Draft) ([]Attachment, error) {
	msgs := make([]Message, len(drafts))
	for i, d := range drafts {
		msgs[i] = d.Message()
	}
	prims, err := signer.Sign(ctx, msgs)
	if err != nil {
		return nil, err
	}
	if len(prims) != len(drafts) {
		return nil, fmt.Errorf("the key returned %d signatures for %d messages", len(prims), len(drafts))
	}
	out := make([]Attachment, len(drafts))
	for i, d := range drafts {
		id := signer.ID()
		if !WellFormed(prims[i].Signature, id.Type) {
			return nil, fmt.Errorf("the key returned %d bytes that are not a %s signature", len(prims[i].Signature), id.Type)
		}
		if out[i], err = d.Finish(ctx, prims[i], id); err != nil {
			return nil, err
		}
	}
	return out, nil
}
