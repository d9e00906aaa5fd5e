// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// spec is one row of the contract's table of keys.
type spec struct {
	typ                       signature.KeyType
	keySpec, hash, signingAlg string
}

func specs() []spec {
	return []spec{
		{signature.RSA2048, "RSA-2048", "SHA-256", "RSASSA-PSS-SHA-256"},
		{signature.RSA3072, "RSA-3072", "SHA-384", "RSASSA-PSS-SHA-384"},
		{signature.RSA4096, "RSA-4096", "SHA-512", "RSASSA-PSS-SHA-512"},
		{signature.ECDSAP256, "EC-256", "SHA-256", "ECDSA-SHA-256"},
		{signature.ECDSAP384, "EC-384", "SHA-384", "ECDSA-SHA-384"},
		{signature.ECDSAP521, "EC-521", "SHA-512", "ECDSA-SHA-512"},
	}
}

func specOf(t signature.KeyType) (spec, error) {
	for _, s := range specs() {
		if s.typ == t {
			return s, nil
		}
	}
	return spec{}, invalid("a key of type %q cannot make Notary signatures: use ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072 or rsa-4096", t)
}

// TypeOf returns the key type of a key spec of the contract, such as "EC-256".
func TypeOf(keySpec string) (signature.KeyType, bool) {
	for _, s := range specs() {
		if s.keySpec == keySpec {
			return s.typ, true
		}
	}
	return signature.KeyUnknown, false
}

type keyRequest struct {
	Version string            `json:"contractVersion"`
	KeyID   string            `json:"keyId"`
	Config  map[string]string `json:"pluginConfig"`
}

func (r keyRequest) check() error {
	if err := version(r.Version); err != nil {
		return err
	}
	if r.KeyID == "" {
		return invalid("keyId is missing")
	}
	return nil
}

func (p *Plugin) describeKey(ctx context.Context, data []byte) (any, string, error) {
	var r keyRequest
	if err := decode(data, &r); err != nil {
		return nil, "", err
	}
	if err := r.check(); err != nil {
		return nil, "", err
	}
	k, err := p.Keys.Describe(ctx, r.KeyID, r.Config)
	if err != nil {
		return nil, "", err
	}
	s, err := specOf(k.Type)
	if err != nil {
		return nil, "", err
	}
	return map[string]string{"keyId": r.KeyID, "keySpec": s.keySpec}, k.Warning, nil
}

type signatureRequest struct {
	keyRequest
	KeySpec string `json:"keySpec"`
	Hash    string `json:"hashAlgorithm"`
	Payload []byte `json:"payload"`
}

type signatureAnswer struct {
	KeyID     string   `json:"keyId"`
	Signature []byte   `json:"signature"`
	Algorithm string   `json:"signingAlgorithm"`
	Chain     [][]byte `json:"certificateChain"`
}

func (p *Plugin) generateSignature(ctx context.Context, data []byte) (any, string, error) {
	var r signatureRequest
	if err := decode(data, &r); err != nil {
		return nil, "", err
	}
	if err := r.check(); err != nil {
		return nil, "", err
	}
	if len(r.Payload) == 0 {
		return nil, "", invalid("payload is missing")
	}
	k, s, err := p.open(ctx, r.keyRequest)
	if err != nil {
		return nil, "", err
	}
	if r.KeySpec != s.keySpec || r.Hash != s.hash {
		return nil, "", invalid("the key is %s with %s, and %s with %s is asked for", s.keySpec, s.hash, r.KeySpec, r.Hash)
	}
	message := signature.Message{Format: signature.Notary, Bytes: r.Payload, Type: k.Type}
	prims, err := k.Signer.Sign(ctx, []signature.Message{message})
	if err != nil {
		return nil, "", err
	}
	// A certificate of another key or version would make a signature that nobody
	// accepts.
	check := signature.Check{Format: signature.Notary, Message: r.Payload, Signature: prims[0].Signature, Chain: k.Chain}
	if !signature.AcceptedByLeaf(check) {
		return nil, "", invalid("the certificate is not of the key version that signed (version %d)", prims[0].KeyVersion)
	}
	raw, err := notary.RawSignature(k.Type, prims[0].Signature)
	if err != nil {
		return nil, "", err
	}
	a := signatureAnswer{KeyID: r.KeyID, Signature: raw, Algorithm: s.signingAlg}
	for _, c := range k.Chain {
		a.Chain = append(a.Chain, c.Raw)
	}
	return a, k.Warning, nil
}

// open opens a key and holds it against what Notary demands.
func (p *Plugin) open(ctx context.Context, r keyRequest) (Key, spec, error) {
	k, err := p.Keys.Open(ctx, r.KeyID, r.Config)
	if err != nil {
		return Key{}, spec{}, err
	}
	s, err := specOf(k.Type)
	if err != nil {
		return Key{}, spec{}, err
	}
	if len(k.Chain) == 0 {
		return Key{}, spec{}, invalid("the key has no certificate: store one with aegis-oci key certificate --install, or give --plugin-config certChain=FILE")
	}
	if err := notary.CheckChain(k.Chain); err != nil {
		return Key{}, spec{}, invalid("%v", err)
	}
	if t, _ := signature.TypeOf(k.Chain[0].PublicKey); t != k.Type {
		return Key{}, spec{}, invalid("the certificate is of a key of type %s and the key is of type %s", t, k.Type)
	}
	return k, s, nil
}

type envelopeRequest struct {
	keyRequest
	PayloadType  string `json:"payloadType"`
	EnvelopeType string `json:"signatureEnvelopeType"`
	Payload      []byte `json:"payload"`
	Expiry       int64  `json:"expiryDurationInSeconds"`
}

// maxExpiry keeps sums of times far from overflow: a hundred years.
const maxExpiry = 100 * 365 * 24 * 60 * 60

func (p *Plugin) generateEnvelope(ctx context.Context, data []byte) (any, string, error) {
	var r envelopeRequest
	if err := decode(data, &r); err != nil {
		return nil, "", err
	}
	if err := r.check(); err != nil {
		return nil, "", err
	}
	formats := map[string]signature.Format{notary.MediaTypeJWS: signature.Notary, notary.MediaTypeCOSE: signature.NotaryCOSE}
	format, known := formats[r.EnvelopeType]
	switch {
	case !known:
		return nil, "", invalid("signatureEnvelopeType %q is neither %s nor %s", r.EnvelopeType, notary.MediaTypeJWS, notary.MediaTypeCOSE)
	case r.PayloadType != notary.PayloadType:
		return nil, "", invalid("payloadType %q is not %s", r.PayloadType, notary.PayloadType)
	case r.Expiry < 0 || r.Expiry > maxExpiry:
		return nil, "", invalid("expiryDurationInSeconds %d is out of range", r.Expiry)
	}
	k, _, err := p.open(ctx, r.keyRequest)
	if err != nil {
		return nil, "", err
	}
	signed := p.Now().UTC().Truncate(time.Second)
	var expires time.Time
	if r.Expiry > 0 {
		expires = signed.Add(time.Duration(r.Expiry) * time.Second)
	}
	draft, err := notary.PreparePayload(format, r.Payload, signed, expires, notary.Options{Chain: k.Chain, Agent: p.Agent})
	var payload *notary.PayloadError
	var chain *notary.ChainError
	if errors.As(err, &payload) || errors.As(err, &chain) {
		return nil, "", invalid("%v", err)
	}
	if err != nil {
		return nil, "", err
	}
	made, err := signature.Sign(ctx, k.Signer, draft)
	if errors.As(err, &chain) {
		return nil, "", invalid("%v", err)
	}
	if err != nil {
		return nil, "", err
	}
	return map[string]any{
		"signatureEnvelope": made[0].Envelope, "signatureEnvelopeType": r.EnvelopeType, "annotations": made[0].Annotations,
	}, k.Warning, nil
}
