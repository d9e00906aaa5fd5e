// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
)

var p256, p384, p521 = elliptic.P256(), elliptic.P384(), elliptic.P521()

var b64 = base64.StdEncoding.EncodeToString

// sha is an algorithm by its hash.
func sha(f signature.Family, h crypto.Hash) signature.Algorithm {
	return signature.Algorithm{Family: f, Hash: h}
}

// st is an in-toto statement, in the order of fields that Prepare writes.
func st(hex, predicateType, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":%s}`, hex, predicateType, predicate)
}

func (g *gen) plain() []byte {
	return st(g.modelSubject.Digest().Encoded(), sigstore.PredicateType, "{}")
}

// sigOf is k's own signature over a statement.
func sigOf(k key, payload []byte) []byte {
	return k.sign(signature.Algorithms(signature.Sigstore, k.typ)[0], 0, sigstore.PAE(payload))
}

func bundle(payload, sig []byte) []byte { return must(sigstore.Bundle(payload, sig, "")) }

// signs is a referrer with a bundle over the payload by k, both as they are.
func (g *gen) signs(k key, payload []byte) option {
	return withReferrer(bundleReferrer(g.modelSubject, bytesOf(bundle(payload, sigOf(k, payload)))))
}

func (g *gen) withBundle(raw []byte) option {
	return withReferrer(bundleReferrer(g.modelSubject, bytesOf(raw)))
}

// claims signs the model with claims by the key p256.
func (g *gen) claims(c signature.Claims) vectors.Manifest {
	return attached(made(g.p256, must(sigstore.Prepare(g.modelSubject, c))), g.modelSubject)
}

func (g *gen) sigstore() {
	const refused = "the key does not accept the signature"
	hex, otherHex := g.modelSubject.Digest().Encoded(), g.otherSubject.Digest().Encoded()
	for _, k := range []key{g.p256, g.p384, g.p521, g.ed25519, g.rsa2048, g.rsa3072} {
		g.add("sigstore-good-"+k.name, "a signature as it should be", success, "", withPolicy(nil, trusts(k)),
			withReferrer(attached(made(k, must(sigstore.Prepare(g.modelSubject, signature.Claims{SignedAt: signed, Expires: future, Repository: repository, Tag: "v1"}))), g.modelSubject)))
	}
	g.add("sigstore-another-key", "signed by a key that is not trusted", sig, refused, g.signs(g.other, g.plain()))
	g.add("sigstore-other-digest", "the payload is for another digest", subjectIs, "subject differs", g.signs(g.p256, st(otherHex, sigstore.PredicateType, "{}")))
	g.add("sigstore-other-predicate", "a provenance attestation by the same key is no signature", statement, "predicate type is",
		g.signs(g.p256, st(hex, "https://slsa.dev/provenance/v1", `{"buildDefinition":{},"runDetails":{}}`)))
	g.add("sigstore-old-statement", "a statement of another type", statement, "statement type is",
		g.signs(g.p256, bytes.Replace(g.plain(), []byte("Statement/v1"), []byte("Statement/v0.1"), 1)))
	g.add("sigstore-two-subjects", "the statement names this model and another", statement, "names 2 subjects",
		g.signs(g.p256, bytes.Replace(g.plain(), []byte(`"subject":[`), []byte(`"subject":[{"digest":{"sha256":"`+otherHex+`"}},`), 1)))
	g.add("sigstore-tampered-payload", "one byte more in the payload, the signature as it was", sig, refused,
		g.withBundle(bundle(append(g.plain(), '\n'), sigOf(g.p256, g.plain()))))
	g.add("sigstore-hash-swapped", "SHA-384 with a P-256 key, where the key's type demands SHA-256", sig, refused,
		g.withBundle(bundle(g.plain(), g.p256.sign(sha(signature.ECDSA, crypto.SHA384), 0, sigstore.PAE(g.plain())))))
	g.add("sigstore-pss-for-pkcs1", "RSASSA-PSS, where the format demands PKCS #1 v1.5", sig, refused, withPolicy(nil, trusts(g.rsa2048)),
		g.withBundle(bundle(g.plain(), g.rsa2048.sign(sha(signature.RSAPSS, crypto.SHA256), 32, sigstore.PAE(g.plain())))))
	g.add("sigstore-ed25519-in-ecdsa", "the bytes of an Ed25519 signature for an ECDSA key", sig, refused,
		g.withBundle(bundle(g.plain(), sigOf(g.ed25519, g.plain()))))
	g.add("sigstore-ecdsa-in-ed25519", "the bytes of an ECDSA signature for an Ed25519 key", sig, refused, withPolicy(nil, trusts(g.ed25519)),
		g.withBundle(bundle(g.plain(), sigOf(g.p256, g.plain()))))
	g.add("sigstore-raw-payload-signed", "the payload itself is signed and not its pre-authentication encoding", sig, refused,
		g.withBundle(bundle(g.plain(), g.p256.sign(sha(signature.ECDSA, crypto.SHA256), 0, g.plain()))))
	g.add("sigstore-unknown-field-in-statement", "the signed statement has a field that nobody knows", statement, "unknown field",
		g.signs(g.p256, bytes.Replace(g.plain(), []byte(`{"_type"`), []byte(`{"extra":1,"_type"`), 1)))
	g.add("sigstore-duplicate-key-in-statement", "the signed statement has its subject twice, of which readers take either", statement, "duplicate JSON key",
		g.signs(g.p256, bytes.Replace(g.plain(), []byte(`"subject":`), []byte(`"subject":[{"digest":{"sha256":"`+otherHex+`"}}],"subject":`), 1)))
	g.add("sigstore-expired", "its signed expiry has passed", expired, "expired at", withReferrer(g.claims(signature.Claims{SignedAt: signed, Expires: past})))
	g.add("sigstore-future", "it says that it was signed later than now", clock, "in the future", withReferrer(g.claims(signature.Claims{SignedAt: future})))
	g.add("sigstore-expiry-unreadable", "an expiry that is no time must not become none", statement, "is not an RFC 3339 time",
		g.signs(g.p256, st(hex, sigstore.PredicateType, `{"expires":"tomorrow"}`)))
}

func (g *gen) sigstoreEncoding() {
	const refused = "the key does not accept the signature"
	good := sigOf(g.p256, g.plain())
	body := good[2:]
	for _, c := range []struct {
		name, comment string
		sig           []byte
	}{
		{"long-form", "DER with the long form of a short length", append([]byte{0x30, 0x81, byte(len(body))}, body...)},
		{"trailing", "a byte after the DER", append(bytes.Clone(good), 0)},
		{"leading-zero", "an integer with a zero that it does not need", leadingZero(good)},
		{"raw", "r and s side by side and no DER", rawECDSA(good, 32)},
	} {
		g.add("sigstore-der-"+c.name, c.comment+": a second encoding of one signature", sig, refused, g.withBundle(bundle(g.plain(), c.sig)))
	}
	copied := bundleReferrer(g.modelSubject, bytesOf(bundle(g.plain(), malleated(good, p256))))
	g.add("sigstore-malleated", "(r, n-s) instead of (r, s): valid, Transit makes both", success, "", withReferrer(copied))
	g.add("sigstore-malleated-copy", "a signature and its malleated copy are one signer", policyRule, "1 of 2 signers", withRule("require"),
		withPolicy(fields{"require": 2}, trusts(g.p256), trusts(g.p384)), g.withBundle(bundle(g.plain(), good)), withReferrer(copied))

	text := string(bundle(g.plain(), good))
	edit := func(old, now string) []byte {
		if strings.Count(text, old) != 1 {
			panic("gen: not once in the bundle: " + old)
		}
		return []byte(strings.Replace(text, old, now, 1))
	}
	one := `{"sig":"` + b64(good) + `"}`
	rawCert := `"certificate":{"rawBytes":"` + b64(g.root.Raw) + `"}`
	for _, c := range []struct{ name, comment, reason, old, now string }{
		{"two-signatures", "two signatures in one envelope, both good", "2 signatures, not one", one, one + "," + one},
		{"no-signature", "an envelope without a signature", "0 signatures, not one", one, ""},
		{"second-signature-foreign", "a good signature and one of another key in one envelope", "2 signatures, not one", one, one + `,{"sig":"` + b64(sigOf(g.other, g.plain())) + `"}`},
		{"duplicate-key", "a field twice, of which readers take either", "duplicate JSON key", `"payloadType":`, `"payloadType":"text/plain","payloadType":`},
		{"unknown-field", "a field that nobody knows", "unknown field", `"payloadType":`, `"extra":1,"payloadType":`},
		{"payload-type", "another payload type", "payload type", `application/vnd.in-toto+json`, `text/plain`},
		{"old-media-type", "a bundle of version 0.1", "media type", `application/vnd.dev.sigstore.bundle.v0.3+json`, `application/vnd.dev.sigstore.bundle+json;version=0.1`},
		{"certificate", "a certificate stands where the public key must", "with a certificate", `"publicKey":{}`, rawCert},
		{"key-and-certificate", "both a public key and a certificate", "is already set", `"publicKey":{}`, `"publicKey":{},` + rawCert},
		{"trailing-data", "a second document behind the bundle", "data after the JSON value", `"dsseEnvelope"`, `"dsseEnvelope"`},
	} {
		raw := edit(c.old, c.now)
		if c.name == "trailing-data" {
			raw = append(raw, "{}"...)
		}
		g.add("sigstore-"+c.name, c.comment, format, c.reason, g.withBundle(raw))
	}
	g.add("sigstore-hint-of-another-key", "the unsigned hint names another key; it decides nothing", success, "",
		g.withBundle(must(sigstore.Bundle(g.plain(), good, b64(hashOf(g.other.spki()))))))

	before, after, _ := strings.Cut(text, b64(good))
	huge := func(times int) vectors.Blob {
		return vectors.Blob{{Text: before}, {Text: "AAAA", Times: times}, {Text: after}}
	}
	g.add("sigstore-huge", "base64 of more than a MiB", format, "more than 1048576", withReferrer(bundleReferrer(g.modelSubject, huge(300000))))
	g.add("sigstore-huge-signature", "a signature of 768 KiB in a bundle that may still be read", sig, refused, withReferrer(bundleReferrer(g.modelSubject, huge(250000))))
}

func hashOf(b []byte) []byte { sum := sha256.Sum256(b); return sum[:] }

// leadingZero gives r one more zero in front and mends the lengths.
func leadingZero(sig []byte) []byte {
	out := []byte{0x30, sig[1] + 1, 2, sig[3] + 1, 0}
	return append(out, sig[4:]...)
}

func rawECDSA(sig []byte, size int) []byte {
	r, s := scalars(sig)
	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}
