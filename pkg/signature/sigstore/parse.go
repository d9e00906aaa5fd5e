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
	payload, sig, err := Take(data)
	if err != nil {
		return nil, err
	}
	decode := func() (signature.Statement, error) { return decodeStatement(payload) }
	return signature.NewEnvelope(signature.Sigstore, PAE(payload), sig, decode), nil
}

// Take returns the in-toto statement of a bundle and the one signature over PAE
// of it, neither of them judged, for other formats that use the same bundle.
// Errors are *ParseError.
func Take(data []byte) (payload, sig []byte, err error) {
	if len(data) > signature.MaxEnvelopeSize {
		return nil, nil, &ParseError{fmt.Sprintf("%d bytes, more than %d", len(data), signature.MaxEnvelopeSize)}
	}
	if err := strictjson.Check(data); err != nil {
		return nil, nil, &ParseError{err.Error()}
	}
	var b bundlev1.Bundle
	if err := protojson.Unmarshal(data, &b); err != nil {
		// protojson varies the space in its messages on purpose.
		return nil, nil, &ParseError{strings.ReplaceAll(err.Error(), "\u00a0", " ")}
	}
	if b.MediaType != MediaType {
		return nil, nil, &ParseError{fmt.Sprintf("media type %q, not %q", b.MediaType, MediaType)}
	}
	if _, ok := b.GetVerificationMaterial().GetContent().(*bundlev1.VerificationMaterial_PublicKey); !ok {
		return nil, nil, &ParseError{"it was made with a certificate, not with a public key"}
	}
	env := b.GetDsseEnvelope()
	if env == nil {
		return nil, nil, &ParseError{"it holds no DSSE envelope"}
	}
	if env.PayloadType != payloadType {
		return nil, nil, &ParseError{fmt.Sprintf("payload type %q, not %q", env.PayloadType, payloadType)}
	}
	if len(env.Signatures) != 1 {
		return nil, nil, &ParseError{fmt.Sprintf("%d signatures, not one", len(env.Signatures))}
	}
	return env.Payload, env.Signatures[0].Sig, nil
}
