// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package notary writes and reads Notary Project signatures (signature
// specification 1.0 and 1.1, scheme notary.x509) in both envelopes, JWS and COSE,
// as notation makes and verifies them.
//
// The envelopes are written here rather than with notation-core-go, which
// reaches net/http through its revocation package and asks its signer in the
// middle of making an envelope: one Vault request could not serve several
// formats. test/interop holds them against notation in both directions.
//
// Parse checks everything that a key need not be asked for: structure, critical
// headers, the algorithm, and the certificates (order, issuance, usages). A
// certificate is no root of trust here: either the key itself is trusted, and the
// leaf must be of that key, or an Authority is. Scheme
// notary.x509.signingAuthority and critical headers of verification plugins are
// refused.
package notary

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// ArtifactType is that of the referrer.
	ArtifactType = "application/vnd.cncf.notary.signature"
	// MediaTypeJWS and MediaTypeCOSE are those of its layer.
	MediaTypeJWS  = "application/jose+json"
	MediaTypeCOSE = "application/cose"
	// AnnotationThumbprints is the SHA-256 thumbprints of the certificates, leaf
	// first, as a JSON array in a string.
	AnnotationThumbprints = "io.cncf.notary.x509chain.thumbprint#S256"

	// PayloadType is that of the signed document.
	PayloadType = "application/vnd.cncf.notary.payload.v1+json"
	scheme      = "notary.x509"

	headerScheme      = "io.cncf.notary.signingScheme"
	headerSigningTime = "io.cncf.notary.signingTime"
	headerExpiry      = "io.cncf.notary.expiry"
	headerTimestamp   = "io.cncf.notary.timestampSignature"
	headerAgent       = "io.cncf.notary.signingAgent"
)

// Options of a signature.
type Options struct {
	// Chain is the certificate of the key and its issuers, leaf first, root last.
	Chain []*x509.Certificate
	// Agent names the program that signs; empty for none.
	Agent string
	// Timestamper is nil for no timestamp.
	Timestamper signature.Timestamper
}

// Draft is an envelope that waits for its signature.
type Draft struct {
	format  signature.Format
	opts    Options
	typ     signature.KeyType
	signed  signedPart
	message []byte
	created time.Time
}

var _ signature.Draft = (*Draft)(nil)

// signedPart is what the signature covers, encoded.
type signedPart struct{ protected, payload []byte }

// header is what the protected header says, in either envelope.
type header struct {
	alg    algorithm
	signed time.Time
	expiry time.Time // zero for none
}

// Prepare makes the signed part over subject, in JWS for format Notary and in
// COSE for NotaryCOSE. Errors are *signature.ClaimError for a claim that has no
// place, and *ChainError for certificates that verifiers would refuse.
func Prepare(f signature.Format, subject signature.Subject, c signature.Claims, o Options) (*Draft, error) {
	if subject.IsZero() {
		return nil, errors.New("notary: no subject")
	}
	if c.SignedAt.IsZero() {
		return nil, &signature.ClaimError{Format: f, Claim: "signedAt", Reason: "the format demands it and it is not given"}
	}
	if !c.Expires.IsZero() && !c.Expires.After(c.SignedAt) {
		return nil, &signature.ClaimError{Format: f, Claim: "expires", Reason: "it is not after the signing time"}
	}
	alg, err := checkChain(o.Chain)
	if err != nil {
		return nil, err
	}
	if err := validAt(o.Chain, c.SignedAt); err != nil {
		return nil, err
	}
	payload, err := encodePayload(f, subject, c)
	if err != nil {
		return nil, err
	}
	return draft(f, payload, c.SignedAt, c.Expires, o, alg)
}

// PreparePayload makes the signed part over a payload that somebody else has
// made, such as notation for a plugin: it is signed as it is. expires may be zero.
// Errors are *ChainError and *PayloadError.
func PreparePayload(f signature.Format, payload []byte, signed, expires time.Time, o Options) (*Draft, error) {
	alg, err := checkChain(o.Chain)
	if err != nil {
		return nil, err
	}
	if err := validAt(o.Chain, signed); err != nil {
		return nil, err
	}
	// Any other document could be another protocol's message.
	if _, err := decodePayload(payload, header{signed: signed, expiry: expires}); err != nil {
		return nil, &PayloadError{err}
	}
	return draft(f, payload, signed, expires, o, alg)
}

// PayloadError means that bytes are no payload of the specification.
type PayloadError struct{ Err error }

func (e *PayloadError) Error() string { return "not a Notary payload: " + e.Err.Error() }
func (e *PayloadError) Unwrap() error { return e.Err }

// RawSignature encodes a primitive, which is DER for ECDSA, as Notary envelopes
// have it: r||s.
func RawSignature(t signature.KeyType, primitive []byte) ([]byte, error) {
	return toRaw(t, primitive)
}

func draft(f signature.Format, payload []byte, signed, expires time.Time, o Options, alg algorithm) (*Draft, error) {
	d := &Draft{format: f, opts: o, typ: alg.typ, created: signed}
	h := header{alg: alg, signed: signed.UTC().Truncate(time.Second), expiry: expires.UTC().Truncate(time.Second)}
	if expires.IsZero() {
		h.expiry = time.Time{}
	}
	var err error
	switch f {
	case signature.Notary:
		d.signed, err = encodeJWS(h, payload)
		d.message = d.signed.jwsMessage()
	case signature.NotaryCOSE:
		d.signed, err = encodeCOSE(h, payload)
		if err == nil {
			d.message, err = d.signed.coseMessage()
		}
	default:
		err = fmt.Errorf("notary: %s is another format", f)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Message returns the JWS signing input or the COSE Sig_structure.
func (d *Draft) Message() signature.Message {
	return signature.Message{Format: d.format, Bytes: d.message, Type: d.typ}
}

// Finish makes the envelope and its referrer. A primitive that the leaf's key did
// not make is a *ChainError: the certificate is that of another key or version.
func (d *Draft) Finish(ctx context.Context, p signature.Primitive, _ signature.KeyID) (signature.Attachment, error) {
	if !signature.AcceptedByLeaf(signature.Check{Format: d.format, Message: d.message, Signature: p.Signature, Chain: d.opts.Chain}) {
		return signature.Attachment{}, &ChainError{Index: 0, Subject: d.opts.Chain[0].Subject.String(), Reason: "it is not the certificate of the key version that signed"}
	}
	raw, err := toRaw(d.typ, p.Signature)
	if err != nil {
		return signature.Attachment{}, err
	}
	u := unprotected{Chain: d.opts.Chain, Agent: d.opts.Agent}
	if d.opts.Timestamper != nil {
		hash := signature.Algorithms(d.format, d.typ)[0].Hash
		if u.Token, err = d.opts.Timestamper.Timestamp(ctx, raw, hash); err != nil {
			return signature.Attachment{}, fmt.Errorf("timestamp the signature: %w", err)
		}
	}
	a := signature.Attachment{
		Format:       d.format,
		ArtifactType: ArtifactType,
		Annotations: map[string]string{
			AnnotationThumbprints:     thumbprints(d.opts.Chain),
			ocispec.AnnotationCreated: d.created.UTC().Format(time.RFC3339),
		},
		Primitive: p,
	}
	if d.format == signature.Notary {
		a.MediaType = MediaTypeJWS
		a.Envelope, err = finishJWS(d.signed, raw, u)
	} else {
		a.MediaType = MediaTypeCOSE
		a.Envelope, err = finishCOSE(d.signed, raw, u)
	}
	p.Hint(a.Annotations)
	return a, err
}

// unprotected is what the signature does not cover.
type unprotected struct {
	Chain []*x509.Certificate
	Agent string
	Token []byte
}

func thumbprints(chain []*x509.Certificate) string {
	sums := make([]string, len(chain))
	for i, c := range chain {
		sum := sha256.Sum256(c.Raw)
		sums[i] = hex.EncodeToString(sum[:])
	}
	// Strings of hexadecimal digits always encode.
	text, _ := json.Marshal(sums)
	return string(text)
}
