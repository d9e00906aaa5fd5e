// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A bundle holds the authority's whole answer (RFC 3161, section 2.4.2), where the
// formats of the Notary Project hold the token in it:
//
//	TimeStampResp ::= SEQUENCE { status PKIStatusInfo, timeStampToken TimeStampToken OPTIONAL }

// answerOf is an answer that grants token.
func answerOf(token []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(0) })
		b.AddBytes(token)
	})
	return b.Bytes()
}

// tokenOf is the token in an answer that grants one. Anything else is returned as
// it is: nobody need judge it, and who does finds that it is no token.
func tokenOf(answer []byte) []byte {
	var all, status, token cryptobyte.String
	var granted int
	in := cryptobyte.String(answer)
	if !in.ReadASN1(&all, asn1.SEQUENCE) || !in.Empty() || !all.ReadASN1(&status, asn1.SEQUENCE) || !status.ReadASN1Integer(&granted) ||
		granted < 0 || granted > 1 || !all.ReadASN1Element(&token, asn1.SEQUENCE) || !all.Empty() {
		return answer
	}
	return token
}
