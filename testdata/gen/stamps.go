// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
)

func (g *gen) tsaRoot() *x509.Certificate { return issue(g.tsa, authority("timestamps"), g.tsa, nil) }

// authorityOf is an authority for timestamps under the key root, whose certificate
// has the purposes, which are below id-kp.
func authorityOf(root key, at time.Time, purposes ...int) *testtsa.TSA {
	by := issue(root, authority("timestamps"), root, nil)
	var usages []asn1.ObjectIdentifier
	for _, p := range purposes {
		usages = append(usages, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, p})
	}
	template := leaf("timestamps of 2020")
	template.ExtKeyUsage = nil
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: must(asn1.Marshal(usages))}}
	k := ec(root.name+" stamps", signature.ECDSAP256, p256)
	return testtsa.Of(by, issue(k, template, root, by), k.priv, at)
}

// forStamps is the purpose of a timestamp authority's certificate, forCode another.
const (
	forStamps = 8
	forCode   = 3
)

// stamps holds what is wrong with the timestamp of a signature whose certificate has
// expired; and of one that has none.
func (g *gen) stamps() {
	template := leaf("models")
	template.NotBefore, template.NotAfter = signed.AddDate(-1, 0, 0), past
	j := g.good()
	j.chain = []*x509.Certificate{issue(g.p256, template, g.ca, g.root), g.root}
	primitive := rawECDSA(g.p256.sign(sha(signature.ECDSA, crypto.SHA256), 0, j.message()), 32)
	by := func(tsa *testtsa.TSA, over []byte) []byte {
		k := j
		k.header = `,"io.cncf.notary.timestampSignature":"` + b64(must(tsa.Timestamp(context.Background(), over, crypto.SHA256))) + `"`
		return k.with(primitive)
	}
	trusted := func(keys ...fields) option {
		return withPolicy(fields{"timestamps": fields{"certificatesFile": "keys/tsa.pem"}}, keys...)
	}
	good := authorityOf(g.tsa, signed, forStamps)
	add := func(name, comment, expect, reason string, envelope []byte) {
		rule := ""
		if expect == policyRule {
			rule = "timestamp"
		}
		g.addNotary("stamp-"+name, comment, expect, reason, envelope, trusted(trustsCA()), withRule(rule))
	}
	add("good", "the certificate has expired, and the signature was stamped before", success, "", by(good, primitive))
	add("none", "the certificate has expired, and there is no stamp", certificate, "valid from", j.with(primitive))
	add("of-another-signature", "the stamp is over another signature", policyRule, "mismatch", by(good, []byte("another signature")))
	add("of-stranger", "the stamp is by an authority of the same name that is not trusted", policyRule, "unknown authority",
		by(authorityOf(g.strangerCA, signed, forStamps), primitive))
	add("for-code", "the stamp is by a certificate for signing code", policyRule, "incompatible key usage", by(authorityOf(g.tsa, signed, forCode), primitive))
	add("for-both", "the stamp is by a certificate for timestamps and code", policyRule, "must have and only have",
		by(authorityOf(g.tsa, signed, forStamps, forCode), primitive))
	add("late", "stamped after the certificate had expired", policyRule, "valid from", by(authorityOf(g.tsa, past.Add(time.Minute), forStamps), primitive))
	add("early", "stamped before the certificate was valid", policyRule, "valid from", by(authorityOf(g.tsa, signed.AddDate(-2, 0, 0), forStamps), primitive))
	junk := j
	junk.header = `,"io.cncf.notary.timestampSignature":"MAA="`
	add("junk", "what should be a stamp is none", policyRule, "timestamp", junk.with(primitive))

	bundle := func(tsa signature.Timestamper) option {
		d := must(sigstore.Prepare(g.modelSubject, signature.Claims{SignedAt: signed})).WithTimestamper(tsa)
		return withReferrer(attached(made(g.p256, d), g.modelSubject))
	}
	aged := withPolicy(fields{"timestamps": fields{"certificatesFile": "keys/tsa.pem"}, "maxAge": fields{"of": "timestamp", "is": "876000h"}}, trusts(g.p256))
	g.add("policy-age-stamped", "a bundle that is stamped, where that is demanded", success, "", aged, bundle(good))
	g.add("policy-age-stamped-by-stranger", "a bundle that somebody has stamped", policyRule, "unknown authority", aged, withRule("timestamp"),
		bundle(authorityOf(g.strangerCA, signed, forStamps)))
}
