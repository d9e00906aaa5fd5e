// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
)

// Format names a signature format as --signature-format takes it.
type Format string

// Sigstore is a DSSE envelope over an in-toto statement in a Sigstore bundle
// v0.3, as cosign 3 writes and verifies it.
const Sigstore Format = "sigstore"

// The other formats.
const (
	// Notary is a Notary Project envelope in JWS, NotaryCOSE the same in COSE, as
	// notation writes and verifies them. Both need an X.509 chain.
	Notary     Format = "notary"
	NotaryCOSE Format = "notary-cose"
	// CosignTag is the classic signature of cosign: simple signing under the tag
	// sha256-<hex>.sig.
	CosignTag Format = "cosign-tag"
	// OMS is an OpenSSF Model Signing v1.0 statement over the files.
	OMS Format = "oms"
)

// KeyType names a type of key as Vault Transit does.
type KeyType string

// The key types that can sign. KeyUnknown is a key whose holder does not say.
const (
	KeyUnknown KeyType = ""
	ECDSAP256  KeyType = "ecdsa-p256"
	ECDSAP384  KeyType = "ecdsa-p384"
	ECDSAP521  KeyType = "ecdsa-p521"
	RSA2048    KeyType = "rsa-2048"
	RSA3072    KeyType = "rsa-3072"
	RSA4096    KeyType = "rsa-4096"
	Ed25519    KeyType = "ed25519"
)

// Family is the mathematics of an algorithm.
type Family int

// The families.
const (
	ECDSA Family = iota + 1
	RSAPKCS1v15
	PureEd25519
	// RSAPSS has a salt of the hash's length, no other.
	RSAPSS
)

// Algorithm is one way to make and encode a primitive signature. ECDSA is ASN.1
// DER (RFC 3279, section 2.2.3). Hash is zero for Ed25519, which signs the
// message itself (RFC 8032, "PureEdDSA").
type Algorithm struct {
	Family Family
	Hash   crypto.Hash
}

// algorithms is the one table that fixes the algorithm for a pair of format and
// key type. Sigstore's rows are what cosign's --key verifies by default: SHA-256
// whatever the curve, PKCS #1 v1.5 for RSA, pure Ed25519. Notary's are those of
// its signature specification ("Signature Algorithm Requirements"), OMS's those
// of model_signing: the hash goes with the curve.
var algorithms = map[Format]map[KeyType]Algorithm{
	Sigstore:   cosignRows,
	CosignTag:  cosignRows,
	Notary:     notaryRows,
	NotaryCOSE: notaryRows,
	OMS: {
		ECDSAP256: {ECDSA, crypto.SHA256},
		ECDSAP384: {ECDSA, crypto.SHA384},
		ECDSAP521: {ECDSA, crypto.SHA512},
	},
}

var (
	cosignRows = map[KeyType]Algorithm{
		ECDSAP256: {ECDSA, crypto.SHA256},
		ECDSAP384: {ECDSA, crypto.SHA256},
		ECDSAP521: {ECDSA, crypto.SHA256},
		RSA2048:   {RSAPKCS1v15, crypto.SHA256},
		RSA3072:   {RSAPKCS1v15, crypto.SHA256},
		RSA4096:   {RSAPKCS1v15, crypto.SHA256},
		Ed25519:   {PureEd25519, 0},
	}
	notaryRows = map[KeyType]Algorithm{
		ECDSAP256: {ECDSA, crypto.SHA256},
		ECDSAP384: {ECDSA, crypto.SHA384},
		ECDSAP521: {ECDSA, crypto.SHA512},
		RSA2048:   {RSAPSS, crypto.SHA256},
		RSA3072:   {RSAPSS, crypto.SHA384},
		RSA4096:   {RSAPSS, crypto.SHA512},
	}
)

// Formats lists every format, in the order in which they are documented.
func Formats() []Format { return []Format{Sigstore, Notary, NotaryCOSE, CosignTag, OMS} }

// ParseFormat reads a format's name or one of notation's names for its envelopes.
func ParseFormat(s string) (Format, bool) {
	switch s {
	case "jws":
		return Notary, true
	case "cose":
		return NotaryCOSE, true
	}
	f := Format(s)
	_, ok := algorithms[f]
	return f, ok
}

// Algorithms returns the algorithms that format f allows for a key of type t:
// exactly one for a known type, none when the pair is not allowed, and for
// KeyUnknown every distinct row of the format's table.
func Algorithms(f Format, t KeyType) []Algorithm {
	rows := algorithms[f]
	if t != KeyUnknown {
		if a, ok := rows[t]; ok {
			return []Algorithm{a}
		}
		return nil
	}
	var all []Algorithm
	seen := make(map[Algorithm]bool)
	for _, kt := range []KeyType{ECDSAP256, ECDSAP384, ECDSAP521, RSA2048, RSA3072, RSA4096, Ed25519} {
		if a, ok := rows[kt]; ok && !seen[a] {
			seen[a] = true
			all = append(all, a)
		}
	}
	return all
}

// TypeOf returns the key type of a public key, and false for one that is in no
// row of the table (other curves, other RSA sizes).
func TypeOf(pub crypto.PublicKey) (KeyType, bool) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return ECDSAP256, k.Curve.Params().Name == "P-256"
		case 384:
			return ECDSAP384, true
		case 521:
			return ECDSAP521, true
		}
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048:
			return RSA2048, true
		case 3072:
			return RSA3072, true
		case 4096:
			return RSA4096, true
		}
	case ed25519.PublicKey:
		return Ed25519, true
	}
	return KeyUnknown, false
}
