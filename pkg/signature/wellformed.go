// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// scalarSize is the length in bytes of r and s for each curve.
var scalarSize = map[KeyType]int{ECDSAP256: 32, ECDSAP384: 48, ECDSAP521: 66}

var rsaSize = map[KeyType]int{RSA2048: 256, RSA3072: 384, RSA4096: 512}

// WellFormed reports whether sig can be a signature by a key of type t: the one
// canonical DER encoding of two positive integers of the curve's size (a second
// encoding of one signature must not count as another), or the exact length for
// RSA and Ed25519. For KeyUnknown it must be so for some type. It allows high-S
// ECDSA signatures, which Transit makes too.
func WellFormed(sig []byte, t KeyType) bool {
	if size, ok := scalarSize[t]; ok {
		return canonicalECDSA(sig, size)
	}
	if size, ok := rsaSize[t]; ok {
		return len(sig) == size
	}
	switch t {
	case Ed25519:
		return len(sig) == 64
	case KeyUnknown:
		return canonicalECDSA(sig, scalarSize[ECDSAP521]) ||
			len(sig) == 64 || len(sig) == 256 || len(sig) == 384 || len(sig) == 512
	}
	return false
}

func canonicalECDSA(sig []byte, size int) bool {
	var inner cryptobyte.String
	var r, s []byte
	input := cryptobyte.String(sig)
	// ReadASN1Integer into bytes refuses negative and non-minimal integers.
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !input.Empty() ||
		!inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) || !inner.Empty() {
		return false
	}
	return inRange(r, size) && inRange(s, size)
}

// inRange reports that n, without leading zeros, is positive and fits size bytes.
func inRange(n []byte, size int) bool {
	return len(n) > 0 && len(n) <= size && n[0] != 0
}
