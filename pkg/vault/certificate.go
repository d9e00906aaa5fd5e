// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// X509Signer signs certificates and requests with one version of a Transit key:
// what x509.CreateCertificate takes as its private key.
type X509Signer struct {
	ctx context.Context
	g   *Signer
	pub crypto.PublicKey
}

var _ crypto.MessageSigner = (*X509Signer)(nil)

// X509Signer needs "read" on MOUNT/keys/NAME and "update" on MOUNT/sign/NAME.
// The context holds for the signatures that are asked of it: crypto's interface
// has no place for one. Errors are *Error.
func (s *Session) X509Signer(ctx context.Context, ref KeyRef) (*X509Signer, error) {
	g, err := s.Signer(ctx, ref)
	if err != nil {
		return nil, err
	}
	if g.spki == nil {
		return nil, &Error{Op: "make a certificate for " + ref.String(), Path: ref.path("keys"), Kind: Denied, Capability: "read"}
	}
	pub, err := x509.ParsePKIXPublicKey(g.spki)
	if err != nil {
		return nil, &Error{Op: "make a certificate for " + ref.String(), Path: ref.path("keys"), Kind: Malformed, Detail: "the public key is malformed"}
	}
	return &X509Signer{ctx: ctx, g: g, pub: pub}, nil
}

// Version is the key version that signs.
func (x *X509Signer) Version() int { return x.g.version }

// KeyType is the key's type.
func (x *X509Signer) KeyType() signature.KeyType { return x.g.typ }

// Public is that version's public key.
func (x *X509Signer) Public() crypto.PublicKey { return x.pub }

// Sign refuses: Transit is given messages, never digests.
func (x *X509Signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("this key signs messages and no digests")
}

// SignMessage signs msg with PKCS #1 v1.5, ECDSA or Ed25519.
func (x *X509Signer) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	op := "sign a certificate with " + x.g.ref.String()
	p := params{Hash: hashNames[opts.HashFunc()], Algorithm: "pkcs1v15", Marshal: "asn1"}
	if x.g.typ == signature.Ed25519 {
		p.Hash = hashNames[crypto.SHA256] // ignored for this type, and refused when it is missing
	}
	if p.Hash == "" {
		return nil, &Error{Op: op, Kind: NotAsked, Detail: fmt.Sprintf("hash %v", opts.HashFunc())}
	}
	prims, err := x.g.ask(x.ctx, op, batchRequest{params: p, Version: x.g.version,
		Items: []batchItem{{Input: base64.StdEncoding.EncodeToString(msg), Reference: "0"}}})
	if err != nil {
		return nil, err
	}
	return prims[0].Signature, nil
}

// InstallChain stores PEM certificates, leaf first, with a version of the key, in
// place of those that were there. It needs "update" on
// MOUNT/keys/NAME/set-certificate; Vault has it since 1.15, OpenBao since 2.1.
// The server refuses a leaf of another key. Errors are *Error.
func (s *Session) InstallChain(ctx context.Context, ref KeyRef, version int, chain []byte) error {
	path := ref.path("keys") + "/set-certificate"
	_, err := s.do(ctx, call{op: "store the certificate of " + ref.String(), path: path, namespace: s.namespace(ref), capability: "update",
		body: map[string]any{"version": version, "certificate_chain": string(chain)}})
	if err != nil {
		return explainKey(ref, err)
	}
	s.forget(ref)
	return nil
}

// forget has the key read again when it is next asked about.
func (s *Session) forget(ref KeyRef) {
	e := s.infoEntry(ref)
	e.once.Lock()
	defer e.once.Unlock()
	e.done, e.info = false, nil
}
