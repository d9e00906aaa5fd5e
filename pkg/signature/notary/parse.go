// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// ParseError says why bytes are no envelope that a key could be asked about.
type ParseError struct{ Reason string }

func (e *ParseError) Error() string { return "notary envelope: " + e.Reason }

// parts is an envelope taken apart; nothing in it is trusted.
type parts struct {
	header  header
	payload []byte
	raw     []byte // r||s or an RSA signature
	message []byte
	certs   [][]byte
	token   []byte
}

// ParseJWS reads a JWS envelope of at most signature.MaxEnvelopeSize bytes. What
// it says stays closed until a key accepts.
func ParseJWS(data []byte) (*signature.Envelope, error) {
	return parse(signature.Notary, data, parseJWS)
}

// ParseCOSE reads a COSE envelope in the same way.
func ParseCOSE(data []byte) (*signature.Envelope, error) {
	return parse(signature.NotaryCOSE, data, parseCOSE)
}

func parse(f signature.Format, data []byte, take func([]byte) (*parts, error)) (*signature.Envelope, error) {
	if len(data) > signature.MaxEnvelopeSize {
		return nil, &ParseError{fmt.Sprintf("%d bytes, more than %d", len(data), signature.MaxEnvelopeSize)}
	}
	p, err := take(data)
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(p.certs)
	if err != nil {
		return nil, err
	}
	alg, err := checkChain(chain)
	if err != nil {
		return nil, &ParseError{err.Error()}
	}
	// The leaf's key decides; the header's algorithm must say the same.
	if alg != p.header.alg {
		return nil, &ParseError{fmt.Sprintf("its algorithm is %s and the certificate's key needs %s", p.header.alg.jws, alg.jws)}
	}
	primitive, err := fromRaw(alg.typ, p.raw)
	if err != nil {
		return nil, err
	}
	decode := func() (signature.Statement, error) {
		st, err := decodePayload(p.payload, p.header)
		if err != nil {
			return signature.Statement{}, err
		}
		st.ValidFrom, st.ValidUntil = validity(chain)
		return st, nil
	}
	env := signature.NewEnvelope(f, p.message, primitive, decode).WithChain(chain)
	if p.token != nil {
		env = env.WithStamps([]signature.Stamp{{Token: p.token, Content: p.raw, Hash: signature.Algorithms(f, alg.typ)[0].Hash}})
	}
	return env, nil
}

func parseChain(certs [][]byte) ([]*x509.Certificate, error) {
	if len(certs) == 0 {
		return nil, &ParseError{"it has no certificates"}
	}
	if len(certs) > maxChain {
		return nil, &ParseError{fmt.Sprintf("%d certificates, more than %d", len(certs), maxChain)}
	}
	chain := make([]*x509.Certificate, len(certs))
	for i, der := range certs {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, &ParseError{fmt.Sprintf("certificate %d: %v", i, err)}
		}
	}
	return chain, nil
}

// validity is the time in which every certificate is valid.
func validity(chain []*x509.Certificate) (from, until time.Time) {
	for i, c := range chain {
		if i == 0 || c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if i == 0 || c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return from, until
}

// algorithm is one row of the specification's table, under its names in both
// envelopes. The key type leads to the mathematics in signature's own table.
type algorithm struct {
	typ  signature.KeyType
	jws  string
	cose int64
}

// algorithms of JWS (RFC 7518, section 3.1) and COSE (RFC 9053, RFC 8230).
func algorithms() []algorithm {
	return []algorithm{
		{signature.ECDSAP256, "ES256", -7},
		{signature.ECDSAP384, "ES384", -35},
		{signature.ECDSAP521, "ES512", -36},
		{signature.RSA2048, "PS256", -37},
		{signature.RSA3072, "PS384", -38},
		{signature.RSA4096, "PS512", -39},
	}
}

func find(is func(algorithm) bool) algorithm {
	for _, a := range algorithms() {
		if is(a) {
			return a
		}
	}
	return algorithm{}
}

func byJWS(name string) algorithm { return find(func(a algorithm) bool { return a.jws == name }) }
func byCOSE(id int64) algorithm   { return find(func(a algorithm) bool { return a.cose == id }) }
func byType(t signature.KeyType) algorithm {
	return find(func(a algorithm) bool { return a.typ == t })
}

func scalarSize(t signature.KeyType) int {
	switch t {
	case signature.ECDSAP256:
		return 32
	case signature.ECDSAP384:
		return 48
	case signature.ECDSAP521:
		return 66
	}
	return 0
}

// toRaw turns ASN.1 DER into r||s of fixed length; RSA stays as it is.
func toRaw(t signature.KeyType, sig []byte) ([]byte, error) {
	n := scalarSize(t)
	if n == 0 {
		return sig, nil
	}
	var inner cryptobyte.String
	var r, s big.Int
	in := cryptobyte.String(sig)
	if !in.ReadASN1(&inner, cryptobyteasn1.SEQUENCE) || !in.Empty() || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) || !inner.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*n || s.BitLen() > 8*n {
		return nil, fmt.Errorf("notary: not an ECDSA signature by a key of type %s", t)
	}
	raw := make([]byte, 2*n)
	r.FillBytes(raw[:n])
	s.FillBytes(raw[n:])
	return raw, nil
}

// fromRaw is the reverse. The length is fixed, so that one signature has one
// encoding.
func fromRaw(t signature.KeyType, raw []byte) ([]byte, error) {
	n := scalarSize(t)
	if n == 0 {
		return raw, nil
	}
	if len(raw) != 2*n {
		return nil, &ParseError{fmt.Sprintf("a signature of %d bytes, where %s has %d", len(raw), byType(t).jws, 2*n)}
	}
	r, s := new(big.Int).SetBytes(raw[:n]), new(big.Int).SetBytes(raw[n:])
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil {
		return nil, &ParseError{err.Error()}
	}
	return der, nil
}
