// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Every key comes from its name alone, so that no private key is kept and the
// vectors can be made again to the byte. They protect nothing.

// stream is n bytes that depend on name alone.
func stream(name string, n int) []byte {
	var out []byte
	for i := uint64(0); len(out) < n; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("aegis-oci test vectors, "+name+", "), i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

type key struct {
	name string
	typ  signature.KeyType
	priv crypto.Signer
}

var _ signature.Signer = key{}

func ec(name string, typ signature.KeyType, curve elliptic.Curve) key {
	// Below the order of each curve: the first byte is cleared but for its last bit.
	raw := stream(name, (curve.Params().BitSize+7)/8)
	raw[0] &= 1
	return key{name, typ, must(ecdsa.ParseRawPrivateKey(curve, raw))}
}

func ed(name string) key {
	return key{name, signature.Ed25519, ed25519.NewKeyFromSeed(stream(name, ed25519.SeedSize))}
}

func rsaKey(name string, typ signature.KeyType, bits int) key {
	prime := func(which string) *big.Int {
		p := new(big.Int).SetBytes(stream(name+which, bits/16))
		p.SetBit(p, bits/2-1, 1).SetBit(p, bits/2-2, 1).SetBit(p, 0, 1)
		for !p.ProbablyPrime(20) || new(big.Int).Mod(p, big.NewInt(65537)).Int64() == 1 {
			p.Add(p, big.NewInt(2))
		}
		return p
	}
	p, q := prime("p"), prime("q")
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
		D:         new(big.Int).ModInverse(big.NewInt(65537), phi),
		Primes:    []*big.Int{p, q},
	}
	k.Precompute()
	check(k.Validate())
	return key{name, typ, k}
}

func (k key) spki() []byte { return must(x509.MarshalPKIXPublicKey(k.priv.Public())) }

func (k key) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.spki()})
}

func (k key) ID() signature.KeyID {
	return signature.KeyID{Name: k.name, Type: k.typ, SPKI: k.spki()}
}

func (k key) Sign(_ context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	out := make([]signature.Primitive, len(msgs))
	for i, m := range msgs {
		a := signature.Algorithms(m.Format, k.typ)[0]
		salt := 0
		if a.Hash != 0 {
			salt = a.Hash.Size()
		}
		out[i].Signature = k.sign(a, salt, m.Bytes)
	}
	return out, nil
}

// sign makes the one signature that the algorithm and the salt's length allow.
func (k key) sign(a signature.Algorithm, salt int, msg []byte) []byte {
	sum := msg
	if a.Hash != 0 {
		h := a.Hash.New()
		h.Write(msg)
		sum = h.Sum(nil)
	}
	if a.Family == signature.RSAPSS {
		return pss(k.priv.(*rsa.PrivateKey), a.Hash, salt, sum)
	}
	// Without randomness ECDSA is that of RFC 6979; the others need none.
	return must(k.priv.Sign(nil, sum, a.Hash))
}

// pss is RSASSA-PSS (RFC 8017, sections 8.1.1 and 9.1.1) with a fixed salt.
func pss(k *rsa.PrivateKey, hash crypto.Hash, saltLen int, sum []byte) []byte {
	salt := stream("salt", saltLen)
	emBits := k.N.BitLen() - 1
	emLen := (emBits + 7) / 8
	h := hash.New()
	h.Write(make([]byte, 8))
	h.Write(sum)
	h.Write(salt)
	hashed := h.Sum(nil)
	db := make([]byte, emLen-len(hashed)-1)
	db[len(db)-saltLen-1] = 1
	copy(db[len(db)-saltLen:], salt)
	// MGF1 (RFC 8017, appendix B.2.1).
	for i, n := 0, uint32(0); i < len(db); n++ {
		h.Reset()
		h.Write(binary.BigEndian.AppendUint32(append([]byte{}, hashed...), n))
		for _, b := range h.Sum(nil) {
			if i < len(db) {
				db[i] ^= b
				i++
			}
		}
	}
	db[0] &= 0xff >> (8*emLen - emBits)
	em := append(append(db, hashed...), 0xbc)
	return new(big.Int).Exp(new(big.Int).SetBytes(em), k.D, k.N).FillBytes(make([]byte, k.Size()))
}

// scalars are r and s of a DER signature.
func scalars(sig []byte) (r, s *big.Int) {
	var rs struct{ R, S *big.Int }
	must(asn1.Unmarshal(sig, &rs))
	return rs.R, rs.S
}

// malleated is the other valid signature: s becomes n-s.
func malleated(sig []byte, curve elliptic.Curve) []byte {
	r, s := scalars(sig)
	return must(asn1.Marshal(struct{ R, S *big.Int }{r, new(big.Int).Sub(curve.Params().N, s)}))
}

// Times that hold for any clock from 2026 to 2098.
var (
	signed  = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	past    = time.Date(2026, 1, 16, 12, 0, 0, 0, time.UTC)
	future  = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	earlier = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	later   = time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)
)

func subject(common string) pkix.Name {
	return pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Acme"}, CommonName: common}
}

func authority(common string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject(common), NotBefore: earlier, NotAfter: later,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
}

func leaf(common string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: subject(common), NotBefore: earlier, NotAfter: later,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
}

// issue makes the certificate of k by an issuer, which is itself where by is nil.
func issue(k key, template *x509.Certificate, issuer key, by *x509.Certificate) *x509.Certificate {
	if by == nil {
		by = template
	}
	der := must(x509.CreateCertificate(nil, template, by, k.priv.Public(), issuer.priv))
	return must(x509.ParseCertificate(der))
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(fmt.Sprintf("gen: %v", err))
	}
}
