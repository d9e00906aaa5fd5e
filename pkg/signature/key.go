// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"context"
	"crypto/x509"
	"errors"
)

// ErrInvalid means that a key was asked and did not accept the signature. Every
// other error from a Key means that the question could not be answered.
var ErrInvalid = errors.New("the key does not accept the signature")

// KeyID says which key is meant, for results, messages and hints. It holds no
// secret and proves nothing.
type KeyID struct {
	// Name is the key as the user wrote it: a Transit URI, a file path.
	Name string
	// Type is KeyUnknown when the key's holder does not say.
	Type KeyType
	// Version is the version that is pinned or latest; zero when unknown or when
	// the key has no versions.
	Version int
	// SPKI is the DER SubjectPublicKeyInfo where it is known, nil otherwise.
	SPKI []byte
}

// Message is what a format needs signed: exact bytes, before any hashing.
type Message struct {
	Format Format
	Bytes  []byte
	// Type is the type of key that the message is made for, where the format
	// writes it down: that of the leaf certificate's key. KeyUnknown otherwise.
	Type KeyType
}

// Primitive is a signature over one Message, encoded as its Algorithm says.
type Primitive struct {
	Signature []byte
	// KeyVersion is the version that signed, zero when the key has none.
	KeyVersion int
	// RequestID names the signing request in the key holder's audit log.
	RequestID string
}

// Signer makes primitive signatures with one key.
type Signer interface {
	// ID describes the key with what is known without a further request.
	ID() KeyID
	// Sign signs every message with one version of the key and returns the
	// primitives in the messages' order, in as few requests as the key allows.
	Sign(ctx context.Context, msgs []Message) ([]Primitive, error)
}

// Check is one question to a key: did you sign exactly these bytes?
type Check struct {
	Format    Format
	Message   []byte
	Signature []byte
	// VersionHint is the key version that an unsigned hint names, zero for none.
	// It may only order the attempts.
	VersionHint int
	// Chain is the certificate chain of the envelope, leaf first, in formats that
	// have one. The accepting key must be the leaf's: Open refuses any other.
	Chain []*x509.Certificate
}

// Leaf returns the type and the DER SubjectPublicKeyInfo of the leaf's key,
// KeyUnknown and nil without a chain.
func (c Check) Leaf() (KeyType, []byte) {
	if len(c.Chain) == 0 {
		return KeyUnknown, nil
	}
	t, _ := TypeOf(c.Chain[0].PublicKey)
	return t, c.Chain[0].RawSubjectPublicKeyInfo
}

// Verdict answers one Check. A nil Err is an acceptance by KeyVersion (zero when
// the key has no versions); ErrInvalid (by errors.Is) is a refusal; any other
// error means that the key could not be asked.
type Verdict struct {
	KeyVersion int
	Err        error
	// SPKI is the DER SubjectPublicKeyInfo of the accepting key where known.
	SPKI []byte
}

// Key judges primitive signatures.
type Key interface {
	ID() KeyID
	// Local reports that Check needs no request to anybody.
	Local() bool
	// Check answers every check, in order: len(result) == len(checks).
	Check(ctx context.Context, checks []Check) []Verdict
}
