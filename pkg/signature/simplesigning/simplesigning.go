// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package simplesigning writes and reads cosign's classic signature: a simple
// signing payload (containers/image "atomic signature" format) as one layer of
// the manifest under the tag sha256-<hex>.sig, with the signature in an
// annotation of the layer. Everything before cosign 3 looks for it.
package simplesigning

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// MediaType is that of the layer.
	MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	// AnnotationSignature on the layer is the signature in base64. The odd prefix
	// is cosign's.
	AnnotationSignature = "dev.cosignproject.cosign/signature"

	payloadKind = "cosign container image signature"
	// maxPayload bounds one payload, in bytes. Real ones have less than 1 KiB.
	maxPayload = 64 << 10
)

// document is the payload. Critical has no field that is not here.
type document struct {
	Critical critical                   `json:"critical"`
	Optional map[string]json.RawMessage `json:"optional"`
}

type critical struct {
	Identity struct {
		Reference string `json:"docker-reference"`
	} `json:"identity"`
	Image struct {
		Digest digest.Digest `json:"docker-manifest-digest"`
	} `json:"image"`
	Type string `json:"type"`
}

// Draft is a payload that waits for its signature.
type Draft struct{ payload []byte }

var _ signature.Draft = (*Draft)(nil)

// Prepare makes the payload over subject. All claims go into optional, where
// cosign verify -a looks for annotations; the repository is the identity too.
// Errors are *signature.ClaimError.
func Prepare(subject signature.Subject, c signature.Claims) (*Draft, error) {
	if subject.IsZero() {
		return nil, errors.New("simple signing: no subject")
	}
	flat, err := c.Flat(signature.CosignTag, true)
	if err != nil {
		return nil, err
	}
	var d document
	d.Critical.Identity.Reference = c.Repository
	d.Critical.Image.Digest = subject.Digest()
	d.Critical.Type = payloadKind
	for k, v := range flat {
		if d.Optional == nil {
			d.Optional = make(map[string]json.RawMessage, len(flat))
		}
		if d.Optional[k], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("simple signing: encode payload: %w", err)
	}
	return &Draft{payload}, nil
}

// Message returns the payload itself: the format has no envelope around it.
func (d *Draft) Message() signature.Message {
	return signature.Message{Format: signature.CosignTag, Bytes: d.payload}
}

// Finish makes the layer. It is not a referrer's: ArtifactType is empty, and the
// manifest is shared with everybody who signs the same subject.
func (d *Draft) Finish(_ context.Context, p signature.Primitive, _ signature.KeyID) (signature.Attachment, error) {
	annotations := map[string]string{AnnotationSignature: base64.StdEncoding.EncodeToString(p.Signature)}
	p.Hint(annotations)
	return signature.Attachment{
		Format: signature.CosignTag, MediaType: MediaType, Envelope: d.payload, LayerAnnotations: annotations, Primitive: p,
	}, nil
}

// ParseError says why a layer is no signature that a key could be asked about.
type ParseError struct{ Reason string }

func (e *ParseError) Error() string { return "simple signing: " + e.Reason }

// Parse reads a payload and the annotations of its layer. What the payload says
// stays closed until a key accepts.
func Parse(payload []byte, annotations map[string]string) (*signature.Envelope, error) {
	if len(payload) == 0 || len(payload) > maxPayload {
		return nil, &ParseError{fmt.Sprintf("a payload of %d bytes, not up to %d", len(payload), maxPayload)}
	}
	text := annotations[AnnotationSignature]
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(sig) == 0 || strings.ContainsAny(text, "\r\n") {
		return nil, &ParseError{"its layer has no signature in base64"}
	}
	decode := func() (signature.Statement, error) { return decodePayload(payload) }
	return signature.NewEnvelope(signature.CosignTag, payload, sig, decode), nil
}

// decodePayload reads a payload that a key has signed. cosign looks at the digest
// alone; here the type counts too, so that another protocol's simple signing
// document cannot pass for cosign's.
func decodePayload(payload []byte) (signature.Statement, error) {
	var d document
	if err := strictjson.UnmarshalKnown(payload, &d); err != nil {
		return signature.Statement{}, fmt.Errorf("payload: %v", err)
	}
	if d.Critical.Type != payloadKind {
		return signature.Statement{}, fmt.Errorf("its type is %q, not %q", d.Critical.Type, payloadKind)
	}
	dgst := d.Critical.Image.Digest
	if err := dgst.Validate(); err != nil || dgst.Algorithm() != digest.SHA256 {
		return signature.Statement{}, errors.New("it names no sha256 digest")
	}
	flat := make(map[string]string, len(d.Optional))
	for k, raw := range d.Optional {
		var s string
		// Others put any JSON here; only strings can be claims, and ours are.
		if err := json.Unmarshal(raw, &s); err == nil && string(raw) != "null" {
			flat[k] = s
		} else if strings.HasPrefix(k, signature.ClaimPrefix) {
			return signature.Statement{}, fmt.Errorf("claim %q is no text", k)
		}
	}
	claims, err := signature.ClaimsOf(flat)
	if err != nil {
		return signature.Statement{}, err
	}
	return signature.Statement{Digest: dgst, Claims: claims}, nil
}
