// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package testkey makes software keys for tests: a signature.Signer whose
// private half lives in the test process, and its public half.
package testkey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Key is a key pair that signs as signature.Algorithms says.
type Key struct {
	priv crypto.Signer
	id   signature.KeyID
	// Calls counts the calls of Sign. Read it when none is under way.
	Calls int
	mu    sync.Mutex
}

var _ signature.Signer = (*Key)(nil)

// New makes a key of type typ.
func New(t testing.TB, typ signature.KeyType) *Key {
	t.Helper()
	priv, err := generate(typ)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &Key{priv: priv, id: signature.KeyID{Name: "test " + string(typ), Type: typ, SPKI: spki}}
}

func generate(typ signature.KeyType) (crypto.Signer, error) {
	switch typ {
	case signature.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case signature.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case signature.ECDSAP521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case signature.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case signature.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case signature.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case signature.Ed25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	}
	return nil, fmt.Errorf("no key type %q", typ)
}

// ID describes the key.
func (k *Key) ID() signature.KeyID { return k.id }

// Sign signs every message.
func (k *Key) Sign(_ context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	k.mu.Lock()
	k.Calls++
	k.mu.Unlock()
	out := make([]signature.Primitive, len(msgs))
	for i, m := range msgs {
		a := signature.Algorithms(m.Format, k.id.Type)[0]
		in := m.Bytes
		if a.Hash != 0 {
			h := a.Hash.New()
			h.Write(in)
			in = h.Sum(nil)
		}
		var opts crypto.SignerOpts = a.Hash
		if a.Family == signature.RSAPSS {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.Hash}
		}
		sig, err := k.priv.Sign(rand.Reader, in, opts)
		if err != nil {
			return nil, err
		}
		out[i] = signature.Primitive{Signature: sig}
	}
	return out, nil
}

// PEM is the public key as a PKIX block.
func (k *Key) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.id.SPKI})
}

// Public is the public half as a verifying key.
func (k *Key) Public(t testing.TB) signature.Key {
	t.Helper()
	p, err := signature.ParsePublicKeys(k.id.Name, k.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return p
}
