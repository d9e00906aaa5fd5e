// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"fmt"
	"strings"

	bundlev1 "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// ParseError says why bytes are no bundle that a key could be asked about.
type ParseError struct{ Reason string }

func (e *ParseError) Error() string { return "sigstore bundle: " + e.Reason }

// Parse reads a bundle of at most signature.MaxEnvelopeSize bytes. Unknown
// fields, several signatures, a certificate instead of a public key and any
// other payload type are refused, as cosign verify --key refuses them. What the
// statement says stays closed until a key accepts.
func Parse(data []byte) (*signature.Envelope, error) {
	c, err := Take(data)
	if err != nil {
		return nil, err
	}
	decode := func() (signature.Statement, error) { return decodeStatement(c.Payload) }
	return c.Envelope(signature.Sigstore, decode), nil
}

// Content is what a bundle holds, none of it judged.
type Content struct {
	// Payload is the in-toto statement, Signature the one signature over PAE of it.
	Payload, Signature []byte
	// Tokens are RFC 3161 timestamps over Signature.
	Tokens [][]byte
}

// Envelope makes an envelope of format f of what the bundle holds.
func (c Content) Envelope(f signature.Format, decode func() (signature.Statement, error)) *signature.Envelope {
	var stamps []signature.Stamp
	for _, token := range c.Tokens {
		stamps = append(stamps, signature.Stamp{Token: token, Content: c.Signature, Hash: stampHash})
	}
	return signature.NewEnvelope(f, PAE(c.Payload), c.Signature, decode).WithStamps(stamps)
}

// Take reads a bundle for the formats that use it. Errors are *ParseError.
func Take(data []byte) (Content, error) {
	if len(data) > signature.MaxEnvelopeSize {
		return Content{}, &ParseError{fmt.Sprintf("%d bytes, more than %d", len(data), signature.MaxEnvelopeSize)}
	}
	if err := strictjson.Check(data); err != nil {
		return Content{}, &ParseError{err.Error()}
	}
	var b bundlev1.Bundle
	if err := protojson.Unmarshal(data, &b); err != nil {
		// protojson varies the space in its messages on purpose.
		return Content{}, &ParseError{strings.ReplaceAll(err.Error(), "\u00a0", " ")}
	}
	if b.MediaType != MediaType {
		return Content{}, &ParseError{fmt.Sprintf("media type %q, not %q", b.MediaType, MediaType)}
	}
	if _, ok := b.GetVerificationMaterial().GetContent().(*bundlev1.VerificationMaterial_PublicKey); !ok {
		return Content{}, &ParseError{"it was made with a certificate, not with a public key"}
	}
	env := b.GetDsseEnvelope()
	if env == nil {
		return Content{}, &ParseError{"it holds no DSSE envelope"}
	}
	if env.PayloadType != payloadType {
		return Content{}, &ParseError{fmt.Sprintf("payload type %q, not %q", env.PayloadType, payloadType)}
	}
	if len(env.Signatures) != 1 {
		return Content{}, &ParseError{fmt.Sprintf("%d signatures, not one", len(env.Signatures))}
	}
	c := Content{Payload: env.Payload, Signature: env.Signatures[0].Sig}
	for _, t := range b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps() {
		if c.Tokens = append(c.Tokens, tokenOf(t.GetSignedTimestamp())); len(c.Tokens) > signature.MaxStamps {
			return Content{}, &ParseError{fmt.Sprintf("more than %d timestamps", signature.MaxStamps)}
		}
	}
	return c, nil
}
