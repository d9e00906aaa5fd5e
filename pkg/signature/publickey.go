// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// maxPublicKeys bounds the blocks of one file: the versions of a rotated key.
const maxPublicKeys = 64

// PublicKeys is one signer's public keys: every version of a rotated key. It
// verifies here, without asking anybody.
type PublicKeys struct {
	name string
	keys []publicKey
}

type publicKey struct {
	pub  crypto.PublicKey
	typ  KeyType
	spki []byte
}

var _ Key = (*PublicKeys)(nil)

// KeyFileError says why a file is no list of public keys.
type KeyFileError struct {
	Name   string
	Reason string
}

func (e *KeyFileError) Error() string { return fmt.Sprintf("public key %s: %s", e.Name, e.Reason) }

// ParsePublicKeys reads PEM blocks of public keys (PKIX, PKCS #1) or
// certificates, whose keys are taken and nothing else. name is what the user
// calls the file. Anything that is no such block is an error: a typo must not
// shorten the list.
func ParsePublicKeys(name string, data []byte) (*PublicKeys, error) {
	p := &PublicKeys{name: name}
	rest := bytes.TrimSpace(data)
	for len(rest) > 0 {
		var block *pem.Block
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, &KeyFileError{name, "not PEM: expected -----BEGIN PUBLIC KEY-----"}
		}
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, &KeyFileError{name, "a PEM block is cut short or malformed"}
		}
		rest = bytes.TrimSpace(rest)
		k, err := parseBlock(block)
		if err != nil {
			return nil, &KeyFileError{name, err.Error()}
		}
		if p.keys = append(p.keys, k); len(p.keys) > maxPublicKeys {
			return nil, &KeyFileError{name, fmt.Sprintf("more than %d keys", maxPublicKeys)}
		}
	}
	if len(p.keys) == 0 {
		return nil, &KeyFileError{name, "it is empty"}
	}
	return p, nil
}

func parseBlock(block *pem.Block) (publicKey, error) {
	var pub crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		pub, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		pub, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			pub = cert.PublicKey
		}
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return publicKey{}, fmt.Errorf("it holds a private key; give the public key only")
	default:
		return publicKey{}, fmt.Errorf("PEM block %q is not a public key", block.Type)
	}
	if err != nil {
		return publicKey{}, fmt.Errorf("PEM block %q: %v", block.Type, err)
	}
	typ, ok := TypeOf(pub)
	if !ok {
		return publicKey{}, fmt.Errorf("unsupported key %T: use ECDSA P-256/P-384/P-521, RSA 2048/3072/4096 or Ed25519", pub)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return publicKey{}, fmt.Errorf("encode public key: %v", err)
	}
	return publicKey{pub: pub, typ: typ, spki: spki}, nil
}

// ID names the key; type and SPKI are set when there is exactly one.
func (p *PublicKeys) ID() KeyID {
	id := KeyID{Name: p.name}
	if len(p.keys) == 1 {
		id.Type, id.SPKI = p.keys[0].typ, p.keys[0].spki
	}
	return id
}

// Local reports true: nobody is asked.
func (p *PublicKeys) Local() bool { return true }

// Check tries each check against every key of the list.
func (p *PublicKeys) Check(_ context.Context, checks []Check) []Verdict {
	verdicts := make([]Verdict, len(checks))
	for i, c := range checks {
		verdicts[i] = p.check(c)
	}
	return verdicts
}

func (p *PublicKeys) check(c Check) Verdict {
	leaf, _ := c.Leaf()
	for _, k := range p.keys {
		if leaf != KeyUnknown && leaf != k.typ {
			continue
		}
		if k.accepts(c) {
			return Verdict{SPKI: k.spki}
		}
	}
	return Verdict{Err: ErrInvalid}
}

func (k publicKey) accepts(c Check) bool {
	for _, a := range Algorithms(c.Format, k.typ) {
		if WellFormed(c.Signature, k.typ) && verifyPrimitive(k.pub, a, c.Message, c.Signature) {
			return true
		}
	}
	return false
}

// AcceptedByLeaf reports whether the key of c's leaf certificate made the
// signature, by the algorithm that the table has for its type. It says nothing
// about whether that certificate is trusted.
func AcceptedByLeaf(c Check) bool {
	typ, spki := c.Leaf()
	return typ != KeyUnknown && publicKey{pub: c.Chain[0].PublicKey, typ: typ, spki: spki}.accepts(c)
}

func verifyPrimitive(pub crypto.PublicKey, a Algorithm, msg, sig []byte) bool {
	sum := msg
	if a.Hash != 0 {
		h := a.Hash.New()
		h.Write(msg)
		sum = h.Sum(nil)
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return a.Family == ECDSA && ecdsa.VerifyASN1(k, sum, sig)
	case *rsa.PublicKey:
		if a.Family == RSAPSS {
			return rsa.VerifyPSS(k, a.Hash, sum, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return a.Family == RSAPKCS1v15 && rsa.VerifyPKCS1v15(k, a.Hash, sum, sig) == nil
	case ed25519.PublicKey:
		return a.Family == PureEd25519 && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, msg, sig)
	}
	return false
}
