// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// reserved begins the names that the specification keeps for itself.
const reserved = "io.cncf.notary"

// payload is the signed document ("Payload" in the signature specification).
type payload struct {
	TargetArtifact target `json:"targetArtifact"`
}

type target struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func encodePayload(f signature.Format, s signature.Subject, c signature.Claims) ([]byte, error) {
	for k := range c.Annotations {
		if strings.HasPrefix(k, reserved) {
			return nil, &signature.ClaimError{Format: f, Claim: k, Reason: "the Notary Project reserves names that begin with " + reserved}
		}
	}
	flat, err := c.Flat(f, false)
	if err != nil {
		return nil, err
	}
	return json.Marshal(payload{target{MediaType: s.MediaType(), Digest: s.Digest(), Size: s.Size(), Annotations: flat}})
}

// decodePayload reads what a key has signed; h is the protected header, which
// the same signature covers.
func decodePayload(data []byte, h header) (signature.Statement, error) {
	var p payload
	if err := strictjson.UnmarshalKnown(data, &p); err != nil {
		return signature.Statement{}, fmt.Errorf("payload: %v", err)
	}
	t := p.TargetArtifact
	if err := t.Digest.Validate(); err != nil || t.Digest.Algorithm() != digest.SHA256 {
		return signature.Statement{}, errors.New("its target has no sha256 digest")
	}
	// Both are required, and zero values would match anything later.
	if t.MediaType == "" || t.Size <= 0 {
		return signature.Statement{}, errors.New("its target has no media type or size")
	}
	claims, err := signature.ClaimsOf(t.Annotations)
	if err != nil {
		return signature.Statement{}, err
	}
	if !claims.SignedAt.IsZero() || !claims.Expires.IsZero() {
		return signature.Statement{}, errors.New("its annotations carry times that belong into the header")
	}
	claims.SignedAt, claims.Expires = h.signed, h.expiry
	return signature.Statement{Digest: t.Digest, MediaType: t.MediaType, Size: t.Size, Claims: claims}, nil
}
