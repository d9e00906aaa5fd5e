// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Signer signs with one Transit key.
type Signer struct {
	s       *Session
	ref     KeyRef
	typ     signature.KeyType
	version int // sent with every request, zero for the latest
	spki    []byte
	chain   []byte
}

var _ signature.Signer = (*Signer)(nil)

// SignerOptions say what is known of a key before it is asked to sign.
type SignerOptions struct {
	// SPKI is the DER SubjectPublicKeyInfo that the key has in the caller's eyes,
	// who checks with it what Sign returns. It tells the type of a key that may not
	// be read.
	SPKI []byte
	// AtOnce is for a caller that signs at once, to which a refusal of Sign costs no
	// more than one of Signer: nobody is asked first whether it may. With SPKI the
	// key is not read either.
	AtOnce bool
}

// Signer is SignerWith without options.
func (s *Session) Signer(ctx context.Context, ref KeyRef) (*Signer, error) {
	return s.SignerWith(ctx, ref, SignerOptions{})
}

// SignerWith checks that the key can sign and that the token may ask it to, without
// signing anything, so that what cannot end well fails before an upload begins.
// Where the token may read the key, its latest version is pinned: a rotation
// half-way changes nothing. Errors are *Error.
func (s *Session) SignerWith(ctx context.Context, ref KeyRef, o SignerOptions) (*Signer, error) {
	op := "sign with " + ref.String()
	g := &Signer{s: s, ref: ref, version: ref.Version}
	if err := g.expect(op, o.SPKI); err != nil {
		return nil, err
	}
	if o.AtOnce && g.spki != nil {
		return g, nil
	}
	info, err := s.info(ctx, op, ref)
	if err != nil {
		return nil, err
	}
	if info != nil {
		if err := g.learn(op, info); err != nil {
			return nil, err
		}
	}
	if o.AtOnce || !s.spare(3) && !s.canLogInAgain() { // signing, checking, revoking
		return g, nil
	}
	if err := g.mayI(ctx, op); err != nil {
		return nil, err
	}
	return g, nil
}

// expect takes the public key for what the key is, until the key says otherwise.
func (g *Signer) expect(op string, spki []byte) error {
	if spki == nil {
		return nil
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return &Error{Op: op, Kind: BadConfig, Detail: "its public key is malformed"}
	}
	typ, ok := signature.TypeOf(pub)
	if !ok {
		return &Error{Op: op, Kind: BadConfig, Detail: "its public key is of no type that signs"}
	}
	g.typ, g.spki = typ, spki
	return nil
}

// learn takes over what the key's description says.
func (g *Signer) learn(op string, info *keyInfo) error {
	if err := info.suitable(op, g.ref); err != nil {
		return err
	}
	if g.version == 0 {
		g.version = info.latest
	}
	switch {
	case g.version > info.latest:
		return noVersion(op, g.ref, info)
	case g.version < info.minSign:
		return &Error{Op: op, Path: g.ref.path("keys"), Kind: KeyUnsuitable,
			Detail: fmt.Sprintf("version %d is below min_encryption_version %d", g.version, info.minSign)}
	}
	g.typ, g.spki, g.chain = info.keyType(), info.spki[g.version], info.chain[g.version]
	return nil
}

// mayI sends the request that Sign will send, with nothing in its batch. Vault
// judges policy, key and key type before it complains of that, so the complaint
// means yes. sys/capabilities-self would need a policy of its own, and does not
// know of allowed_parameters.
func (g *Signer) mayI(ctx context.Context, op string) error {
	sets := paramsFor(signature.Sigstore, g.typ)
	if len(sets) == 0 {
		return unsuitable(op, g.ref, string(g.typ))
	}
	_, err := g.s.do(ctx, call{op: op, path: g.ref.path("sign"), namespace: g.s.namespace(g.ref), capability: "update",
		body: batchRequest{params: sets[0], Items: []batchItem{}, Version: g.version}})
	var e *Error
	if errors.As(err, &e) && e.Kind == BadRequest && e.Status == http.StatusBadRequest {
		return nil
	}
	return explainKey(g.ref, err)
}

// ID describes the key; Type, Version and SPKI are set where the key was readable.
func (g *Signer) ID() signature.KeyID {
	return signature.KeyID{Name: g.ref.String(), Type: g.typ, Version: g.version, SPKI: g.spki}
}

// CertificateChain returns the PEM certificates that the key holds for the
// version that signs, leaf first; nil where it holds none or may not be read.
func (g *Signer) CertificateChain() []byte { return g.chain }

// Sign signs all messages with one version of the key, in one request for each
// set of parameters: one for all formats with a P-256 key, two with an RSA key of
// which Notary wants PSS. Errors are *Error. Nothing is returned unless every message was signed.
func (g *Signer) Sign(ctx context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	op := "sign with " + g.ref.String()
	groups := make(map[params][]int)
	var order []params
	for i, m := range msgs {
		typ := g.typ
		if typ == signature.KeyUnknown {
			typ = m.Type
		}
		sets := paramsFor(m.Format, typ)
		if g.typ != signature.KeyUnknown && m.Type != signature.KeyUnknown && m.Type != g.typ {
			return nil, &Error{Op: op, Kind: KeyUnsuitable, Detail: fmt.Sprintf("the certificate is of a key of type %s and the key is of type %s", m.Type, g.typ)}
		}
		if len(sets) != 1 {
			return nil, &Error{Op: op, Kind: KeyUnsuitable, Detail: fmt.Sprintf("format %s has %d algorithms for a key of type %q", m.Format, len(sets), g.typ)}
		}
		if len(m.Bytes) > maxMessageBytes {
			return nil, &Error{Op: op, Kind: NotAsked, Detail: fmt.Sprintf("a message of %d bytes, more than %d", len(m.Bytes), maxMessageBytes)}
		}
		if groups[sets[0]] == nil {
			order = append(order, sets[0])
		}
		groups[sets[0]] = append(groups[sets[0]], i)
	}
	prims := make([]signature.Primitive, len(msgs))
	version := g.version
	for _, p := range order {
		for _, part := range split(groups[p], msgs) {
			req := batchRequest{params: p, Version: version}
			for n, i := range part {
				req.Items = append(req.Items, batchItem{Input: base64.StdEncoding.EncodeToString(msgs[i].Bytes), Reference: strconv.Itoa(n)})
			}
			signed, err := g.ask(ctx, op, req)
			if err != nil {
				return nil, err
			}
			for n, i := range part {
				prims[i] = signed[n]
			}
			version = signed[0].KeyVersion // the same one for what is still to come
		}
	}
	return prims, nil
}

// split keeps a group of messages within the limits of one request.
func split(group []int, msgs []signature.Message) [][]int {
	var parts [][]int
	size := 0
	for _, i := range group {
		n := len(msgs[i].Bytes)
		last := len(parts) - 1
		if last < 0 || len(parts[last]) == maxBatch || size+n > maxBatchBytes {
			parts, size = append(parts, nil), 0
			last++
		}
		parts[last], size = append(parts[last], i), size+n
	}
	return parts
}

func (g *Signer) ask(ctx context.Context, op string, req batchRequest) ([]signature.Primitive, error) {
	path := g.ref.path("sign")
	a, err := g.s.do(ctx, call{op: op, path: path, namespace: g.s.namespace(g.ref), capability: "update", body: req})
	if err != nil {
		return nil, explainKey(g.ref, err)
	}
	fail := func(kind Kind, detail string) ([]signature.Primitive, error) {
		return nil, &Error{Op: op, Path: path, Kind: kind, Detail: detail, RequestID: a.RequestID}
	}
	results, err := decodeBatch(a.Data, len(req.Items))
	if err != nil {
		return fail(Malformed, err.Error())
	}
	prims := make([]signature.Primitive, len(results))
	for i, r := range results {
		if r.Error != "" {
			return fail(itemKind(r.Error), g.s.public(r.Error))
		}
		sig, version, err := parseSignature(r.Signature, r.KeyVersion)
		if err != nil {
			return fail(Malformed, "it holds "+err.Error())
		}
		if want := max(req.Version, prims[0].KeyVersion); want != 0 && version != want {
			return fail(Malformed, fmt.Sprintf("version %d signed where version %d was to", version, want))
		}
		if !signature.WellFormed(sig, g.typ) {
			return fail(Malformed, fmt.Sprintf("%d bytes that are no signature by a key of type %q", len(sig), g.typ))
		}
		prims[i] = signature.Primitive{Signature: sig, KeyVersion: version, RequestID: a.RequestID}
	}
	return prims, nil
}
