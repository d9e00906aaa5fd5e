// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Verified is a manifest that a requirement accepted. Only [Verifier.Verify]
// makes one, and only on evidence. The zero Verified names no content, so
// nothing can be fetched with it.
type Verified struct {
	subject  signature.Subject
	policy   string
	accepted []Accepted
}

// Accepted is one signature that counted, with the bytes it was read from, so
// that the evidence can be kept beside the model and judged again.
type Accepted struct {
	Format signature.Format
	// Manifest is the digest of the referrer's manifest in the registry.
	Manifest digest.Digest
	// Key is the name of the key that accepted; KeyVersion is zero when unknown.
	Key        string
	KeyType    signature.KeyType
	KeyVersion int
	Claims     signature.Claims
	// ManifestBytes and Envelope are the referrer as it was fetched;
	// EnvelopeMediaType is the envelope layer's media type.
	ManifestBytes     []byte
	Envelope          []byte
	EnvelopeMediaType string
}

// Subject is the verified manifest.
func (v Verified) Subject() signature.Subject { return v.subject }

// Policy names the requirement that was met.
func (v Verified) Policy() string { return v.policy }

// Accepted returns the signatures that counted.
func (v Verified) Accepted() []Accepted { return slices.Clone(v.accepted) }

// IsZero reports whether v names nothing.
func (v Verified) IsZero() bool { return v.subject.IsZero() }
