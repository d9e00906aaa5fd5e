// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// jws is an envelope before it is signed. Text, so that anything can be in it.
type jws struct {
	protected, payload string
	chain              []*x509.Certificate
	header             string // of the unsigned header, further fields
}

func b64url(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func (j jws) message() []byte { return []byte(b64url(j.protected) + "." + b64url(j.payload)) }

// signed returns the envelope with k's signature in the specification's encoding.
func (j jws) signed(k key) []byte {
	a := signature.Algorithms(signature.Notary, k.typ)[0]
	s := k.sign(a, a.Hash.Size(), j.message())
	if size := scalarSize(k.typ); size > 0 {
		s = rawECDSA(s, size)
	}
	return j.with(s)
}

func (j jws) with(s []byte) []byte {
	certs := make([]string, len(j.chain))
	for i, c := range j.chain {
		certs[i] = `"` + b64(c.Raw) + `"`
	}
	return fmt.Appendf(nil, `{"payload":%q,"protected":%q,"header":{"x5c":[%s]%s},"signature":%q}`,
		b64url(j.payload), b64url(j.protected), strings.Join(certs, ","), j.header, base64.RawURLEncoding.EncodeToString(s))
}

func scalarSize(t signature.KeyType) int {
	return map[signature.KeyType]int{signature.ECDSAP256: 32, signature.ECDSAP384: 48, signature.ECDSAP521: 66}[t]
}

func protected(alg string) string {
	return fmt.Sprintf(`{"alg":%q,"cty":"application/vnd.cncf.notary.payload.v1+json","crit":["io.cncf.notary.signingScheme"],"io.cncf.notary.signingScheme":"notary.x509","io.cncf.notary.signingTime":"2026-01-15T12:00:00Z"}`, alg)
}

func target(s signature.Subject, mediaType string, size int64) string {
	return fmt.Sprintf(`{"targetArtifact":{"mediaType":%q,"digest":%q,"size":%d}}`, mediaType, s.Digest(), size)
}

// chain is k's certificate by the authority that is trusted.
func (g *gen) chain(k key) []*x509.Certificate {
	return []*x509.Certificate{issue(k, leaf("models"), g.ca, g.root), g.root}
}

// good is an envelope of the key p256 before it is signed.
func (g *gen) good() jws {
	s := g.modelSubject
	return jws{protected: protected("ES256"), payload: target(s, s.MediaType(), s.Size()), chain: g.chain(g.p256)}
}

func (g *gen) addNotary(name, comment, expect, reason string, envelope []byte, more ...option) {
	options := []option{
		withPolicy(nil, trustsCA()),
		withReferrer(notaryReferrer(g.modelSubject, notary.MediaTypeJWS, envelope)),
	}
	g.add("notary-"+name, comment, expect, reason, append(options, more...)...)
}

func (g *gen) notary() {
	const refused = "the key does not accept the signature"
	claims := signature.Claims{SignedAt: signed, Expires: future, Repository: repository}
	for _, k := range []key{g.p256, g.p384, g.p521, g.rsa2048, g.rsa3072} {
		for _, f := range []signature.Format{signature.Notary, signature.NotaryCOSE} {
			d := must(notary.Prepare(f, g.modelSubject, claims, notary.Options{Chain: g.chain(k), Agent: "vectors/1"}))
			g.add(string(f)+"-good-"+k.name, "a signature as it should be", success, "", withPolicy(nil, trustsCA()), withReferrer(attached(made(k, d), g.modelSubject)))
		}
	}
	s, o := g.modelSubject, g.otherSubject
	change := func(edit func(*jws)) []byte {
		j := g.good()
		edit(&j)
		return j.signed(g.p256)
	}
	g.addNotary("trusted-key", "the public key itself is trusted, and the certificate is of that key", success, "", g.good().signed(g.p256), withPolicy(nil, trusts(g.p256)))
	g.addNotary("other-digest", "the payload is for another digest", subjectIs, "subject differs", change(func(j *jws) { j.payload = target(o, s.MediaType(), s.Size()) }))
	g.addNotary("other-size", "the payload has another size", subjectIs, "subject differs", change(func(j *jws) { j.payload = target(s, s.MediaType(), s.Size()+1) }))
	g.addNotary("other-media-type", "the payload has another media type", subjectIs, "subject differs",
		change(func(j *jws) { j.payload = target(s, "application/vnd.docker.distribution.manifest.v2+json", s.Size()) }))
	g.addNotary("unknown-payload-field", "the signed payload has a field that nobody knows", statement, "unknown field",
		change(func(j *jws) { j.payload = strings.Replace(j.payload, `{"target`, `{"extra":1,"target`, 1) }))
	tampered := g.good()
	sigGood := rawECDSA(g.p256.sign(sha(signature.ECDSA, crypto.SHA256), 0, tampered.message()), 32)
	tampered.payload += "\n"
	g.addNotary("tampered-payload", "one byte more in the payload, the signature as it was", sig, refused, tampered.with(sigGood))
	r, n := new(big.Int).SetBytes(sigGood[:32]), new(big.Int).SetBytes(sigGood[32:])
	low := append(r.FillBytes(make([]byte, 32)), new(big.Int).Sub(p256.Params().N, n).FillBytes(make([]byte, 32))...)
	g.addNotary("malleated", "(r, n-s) instead of (r, s): valid", success, "", g.good().with(low))
	g.addNotary("der", "DER, where the envelope has r and s side by side", format, "a signature of", g.good().with(must(asn1.Marshal(struct{ R, S *big.Int }{r, n}))))
	g.addNotary("ed25519-in-ecdsa", "the bytes of an Ed25519 signature for an ECDSA key", sig, refused,
		g.good().with(g.ed25519.sign(sha(signature.PureEd25519, 0), 0, g.good().message())))

	rsa := g.good()
	rsa.protected, rsa.chain = protected("PS256"), g.chain(g.rsa2048)
	for _, c := range []struct {
		name, comment string
		salt          int
	}{{"none", "without a salt", 0}, {"short", "with a salt of 20 bytes", 20}, {"long", "with the longest salt", 222}} {
		g.addNotary("pss-salt-"+c.name, "PSS "+c.comment+", where it must be as long as the hash", sig, refused,
			rsa.with(g.rsa2048.sign(sha(signature.RSAPSS, crypto.SHA256), c.salt, rsa.message())))
	}
	g.addNotary("pkcs1-for-pss", "PKCS #1 v1.5, where the format demands PSS", sig, refused,
		rsa.with(g.rsa2048.sign(sha(signature.RSAPKCS1v15, crypto.SHA256), 0, rsa.message())))
	g.addNotary("pss-other-hash", "SHA-384 with an RSA 2048 key, where the key demands SHA-256", sig, refused,
		rsa.with(g.rsa2048.sign(sha(signature.RSAPSS, crypto.SHA384), 48, rsa.message())))
	g.notaryCOSE()
}

// cose is a COSE_Sign1 by the key p256 over any protected header and payload.
func (g *gen) cose(header map[any]any, payload string, extra map[any]any) []byte {
	enc := must(cbor.CoreDetEncOptions().EncMode())
	raw := must(enc.Marshal(header))
	message := must(enc.Marshal([]any{"Signature1", raw, []byte{}, []byte(payload)}))
	s := rawECDSA(g.p256.sign(sha(signature.ECDSA, crypto.SHA256), 0, message), 32)
	var certs [][]byte
	for _, c := range g.chain(g.p256) {
		certs = append(certs, c.Raw)
	}
	unsigned := map[any]any{int64(33): certs}
	for k, v := range extra {
		unsigned[k] = v
	}
	return must(enc.Marshal(cbor.Tag{Number: 18, Content: []any{raw, unsigned, []byte(payload), s}}))
}

func (g *gen) notaryCOSE() {
	s := g.modelSubject
	header := func() map[any]any {
		return map[any]any{
			int64(1): int64(-7), int64(2): []any{"io.cncf.notary.signingScheme"}, int64(3): "application/vnd.cncf.notary.payload.v1+json",
			"io.cncf.notary.signingScheme": "notary.x509", "io.cncf.notary.signingTime": cbor.Tag{Number: 1, Content: signed.Unix()},
		}
	}
	add := func(name, comment, expect, reason string, envelope []byte) {
		g.add("notary-cose-"+name, comment, expect, reason, withPolicy(nil, trustsCA()),
			withReferrer(notaryReferrer(s, notary.MediaTypeCOSE, envelope)))
	}
	payload := target(s, s.MediaType(), s.Size())
	good := g.cose(header(), payload, nil)
	add("other-size", "the payload has another size", subjectIs, "subject differs", g.cose(header(), target(s, s.MediaType(), s.Size()+1), nil))
	h := header()
	h[int64(1)] = int64(-35)
	add("algorithm", "the header says ES384, the certificate's key needs ES256", format, "its algorithm is", g.cose(h, payload, nil))
	h = header()
	h[int64(2)] = []any{"io.cncf.notary.signingScheme", "com.example.unknown"}
	h["com.example.unknown"] = "x"
	add("unknown-critical", "a critical header that nobody knows", format, "is not understood", g.cose(h, payload, nil))
	h = header()
	h["io.cncf.notary.expiry"] = cbor.Tag{Number: 1, Content: past.Unix()}
	h[int64(2)] = []any{"io.cncf.notary.signingScheme", "io.cncf.notary.expiry"}
	add("expired", "its signed expiry has passed", expired, "expired at", g.cose(h, payload, nil))
	add("untagged", "the array without its tag", format, "no tagged COSE_Sign1", bytes.TrimPrefix(good, []byte{0xd2}))
	add("trailing", "a byte behind the envelope", format, "no tagged COSE_Sign1", append(bytes.Clone(good), 0))
	add("tampered", "a byte of the signature is changed", sig, "the key does not accept the signature", flipLast(good))
}

func flipLast(b []byte) []byte {
	out := bytes.Clone(b)
	out[len(out)-1] ^= 1
	return out
}
