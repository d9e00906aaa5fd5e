// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package sigstore writes and reads the signature that cosign 3 makes for
// --key: a DSSE envelope (DSSE v1.0.2) over an in-toto statement v1 of predicate
// type PredicateType, in a Sigstore bundle v0.3 with publicKey material,
// attached as an OCI 1.1 referrer.
//
// cosign verify --key accepts what Prepare makes, and Parse reads what cosign
// writes. Parse is stricter than cosign in one respect that matters: cosign does
// not look at the predicate type, so that a provenance attestation by the same
// key passes for a signature there, and not here.
package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	bundlev1 "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonv1 "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"google.golang.org/protobuf/encoding/protojson"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// MediaType is the bundle's media type, the layer's, and the artifact type of
	// the referrer.
	MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// PredicateType is the only one that makes a statement a signature.
	PredicateType = "https://sigstore.dev/cosign/sign/v1"

	// AnnotationContent and AnnotationPredicateType are what cosign writes on the
	// referrer's manifest; tools that copy signatures select by them.
	AnnotationContent       = "dev.sigstore.bundle.content"
	AnnotationPredicateType = "dev.sigstore.bundle.predicateType"

	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
)

// Draft is a statement that waits for its signature.
type Draft struct {
	payload []byte
	created time.Time
	stamper signature.Timestamper
}

// stampHash is what cosign has stamped: SHA-256 of the signature, whatever the
// key. A token may use a stronger one.
const stampHash = crypto.SHA256

var _ signature.Draft = (*Draft)(nil)

// Prepare makes the statement over subject. c.SignedAt is also the created
// annotation of the referrer.
func Prepare(subject signature.Subject, c signature.Claims) (*Draft, error) {
	if subject.IsZero() {
		return nil, fmt.Errorf("sigstore: no subject")
	}
	st := statement{
		Type: statementType,
		Subject: []resource{{
			Digest:      map[string]string{"sha256": subject.Digest().Encoded()},
			Annotations: anyMap(c.Annotations),
		}},
		PredicateType: PredicateType,
	}
	var err error
	if st.Predicate, err = json.Marshal(predicateOf(c)); err != nil {
		return nil, fmt.Errorf("sigstore: encode predicate: %w", err)
	}
	payload, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("sigstore: encode statement: %w", err)
	}
	return &Draft{payload: payload, created: c.SignedAt}, nil
}

// WithTimestamper returns a copy whose signature t stamps, as cosign
// --timestamp-server-url has it; nil for no stamp.
func (d *Draft) WithTimestamper(t signature.Timestamper) *Draft {
	c := *d
	c.stamper = t
	return &c
}

// Message returns the DSSE pre-authentication encoding of the statement.
func (d *Draft) Message() signature.Message {
	return signature.Message{Format: signature.Sigstore, Bytes: PAE(d.payload)}
}

// Finish makes the bundle and its referrer.
func (d *Draft) Finish(ctx context.Context, p signature.Primitive, id signature.KeyID) (signature.Attachment, error) {
	hint := ""
	if id.SPKI != nil {
		sum := sha256.Sum256(id.SPKI)
		hint = base64.StdEncoding.EncodeToString(sum[:])
	}
	var tokens [][]byte
	if d.stamper != nil {
		token, err := d.stamper.Timestamp(ctx, p.Signature, stampHash)
		if err != nil {
			return signature.Attachment{}, fmt.Errorf("timestamp the signature: %w", err)
		}
		tokens = append(tokens, token)
	}
	b, err := Bundle(d.payload, p.Signature, hint, tokens...)
	if err != nil {
		return signature.Attachment{}, err
	}
	a := signature.Attachment{
		Format:       signature.Sigstore,
		ArtifactType: MediaType,
		MediaType:    MediaType,
		Envelope:     b,
		Annotations: map[string]string{
			AnnotationContent:       "dsse-envelope",
			AnnotationPredicateType: PredicateType,
		},
		Primitive: p,
	}
	if !d.created.IsZero() {
		a.Annotations[ocispec.AnnotationCreated] = d.created.UTC().Format(time.RFC3339)
	}
	p.Hint(a.Annotations)
	return a, nil
}

// Bundle puts an in-toto statement and the signature over PAE of it into a bundle
// with publicKey material. hint may be empty; tokens are RFC 3161 timestamps over
// sig.
func Bundle(payload, sig []byte, hint string, tokens ...[]byte) ([]byte, error) {
	var stamps *bundlev1.TimestampVerificationData
	for _, t := range tokens {
		if stamps == nil {
			stamps = &bundlev1.TimestampVerificationData{}
		}
		answer, err := answerOf(t)
		if err != nil {
			return nil, fmt.Errorf("sigstore: encode timestamp: %w", err)
		}
		stamps.Rfc3161Timestamps = append(stamps.Rfc3161Timestamps, &commonv1.RFC3161SignedTimestamp{SignedTimestamp: answer})
	}
	return marshal(&bundlev1.Bundle{
		MediaType: MediaType,
		VerificationMaterial: &bundlev1.VerificationMaterial{
			Content: &bundlev1.VerificationMaterial_PublicKey{PublicKey: &commonv1.PublicKeyIdentifier{Hint: hint}},

			TimestampVerificationData: stamps,
		},
		Content: &bundlev1.Bundle_DsseEnvelope{DsseEnvelope: &dsse.Envelope{
			Payload:     payload,
			PayloadType: payloadType,
			Signatures:  []*dsse.Signature{{Sig: sig}},
		}},
	})
}

// marshal undoes the random white space that protojson puts in, so that the
// bytes depend on the content alone.
func marshal(b *bundlev1.Bundle) ([]byte, error) {
	loose, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("sigstore: encode bundle: %w", err)
	}
	var tight bytes.Buffer
	if err := json.Compact(&tight, loose); err != nil {
		return nil, fmt.Errorf("sigstore: encode bundle: %w", err)
	}
	return tight.Bytes(), nil
}

// PAE is DSSE's pre-authentication encoding of an in-toto statement (DSSE v1.0.2,
// "Signature Definition").
func PAE(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}
