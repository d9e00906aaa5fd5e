// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"strings"
	"time"
)

// notaryCertificates holds what is wrong with the certificates of a signature.
func (g *gen) notaryCertificates() {
	by := func(edit func(*x509.Certificate)) []byte {
		template := leaf("models")
		edit(template)
		j := g.good()
		j.chain = []*x509.Certificate{issue(g.p256, template, g.ca, g.root), g.root}
		return j.signed(g.p256)
	}
	with := func(chain ...*x509.Certificate) []byte {
		j := g.good()
		j.chain = chain
		return j.signed(g.p256)
	}
	good := g.chain(g.p256)
	g.addNotary("certificate-early", "the certificate is not yet valid", certificate, "valid from",
		by(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = future, later }))
	g.addNotary("certificate-expired", "the certificate has expired", certificate, "valid from",
		by(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = earlier, past }))
	expiredRoot := authority("root")
	expiredRoot.NotAfter = past
	g.addNotary("certificate-issuer-expired", "the issuer's certificate is another than the trusted one, by the same key, and has expired", sig, "lead to none that is trusted",
		with(good[0], issue(g.ca, expiredRoot, g.ca, nil)))
	for _, c := range []struct {
		name, comment string
		usage         x509.ExtKeyUsage
	}{{"tls", "TLS servers", x509.ExtKeyUsageServerAuth}, {"any", "anything", x509.ExtKeyUsageAny}, {"stamps", "timestamps", x509.ExtKeyUsageTimeStamping}} {
		g.addNotary("certificate-for-"+c.name, "the extended key usage is for "+c.comment, format, "extended key usage",
			by(func(t *x509.Certificate) { t.ExtKeyUsage = []x509.ExtKeyUsage{c.usage} }))
	}
	g.addNotary("certificate-key-usage", "the key usage is not that of signatures", format, "key usage",
		by(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }))
	ca := authority("models")
	g.addNotary("certificate-authority-as-leaf", "an authority's own certificate signs", format, "authority's", with(issue(g.p256, ca, g.ca, g.root), g.root))
	g.addNotary("certificate-reordered", "the root comes before the leaf", format, "certificate 0", with(good[1], good[0]))
	g.addNotary("certificate-twice", "the leaf is there twice", format, "certificate 1", with(good[0], good[0], good[1]))
	g.addNotary("certificate-without-root", "the chain ends before its root", format, "has to end with its root", with(good[0]))
	g.addNotary("certificate-none", "no certificate at all", format, "no certificates", with())
	g.addNotary("certificate-of-another-key", "the certificate is of another key than the one that signed", sig, "does not accept the signature", with(g.chain(g.other)...))
	g.addNotary("certificate-of-another-key-trusted", "the trusted key signed, under another key's certificate", sig, "does not accept the signature",
		with(g.chain(g.other)...), withPolicy(nil, trusts(g.p256)))
	g.addNotary("certificate-of-stranger", "an authority of the same name that is not trusted", sig, "lead to none that is trusted",
		with(issue(g.p256, leaf("models"), g.strangerCA, g.stranger), g.stranger))
	g.addNotary("certificate-forged-issuer", "the trusted root behind a leaf that it did not issue", format, "not issued by the next one",
		with(issue(g.p256, leaf("models"), g.strangerCA, g.stranger), g.root))
	g.addNotary("certificate-other-identity", "a subject that is not trusted, by the trusted authority", sig, "no trusted identity",
		by(func(c *x509.Certificate) { c.Subject.Organization = []string{"Other"} }))
	g.addNotary("certificate-two-organisations", "a subject with an attribute twice", sig, "no trusted identity",
		by(func(c *x509.Certificate) { c.Subject.Organization = []string{"Acme", "Other"} }))
}

// notaryHeaders holds what is wrong with the signed and the unsigned header.
func (g *gen) notaryHeaders() {
	change := func(old, now string) []byte {
		j := g.good()
		if strings.Count(j.protected, old) != 1 {
			panic("gen: not once in the header: " + old)
		}
		j.protected = strings.Replace(j.protected, old, now, 1)
		return j.signed(g.p256)
	}
	g.addNotary("algorithm", "the header says ES384, the certificate's key needs ES256", format, "its algorithm is", change("ES256", "ES384"))
	g.addNotary("algorithm-pkcs1", "the header says RS256, which the specification does not have", format, "algorithm", change("ES256", "RS256"))
	g.addNotary("algorithm-none", "the header says none", format, "algorithm", change("ES256", "none"))
	g.addNotary("duplicate-header", "a signed header twice, of which readers take either", format, "duplicate JSON key", change(`{"alg"`, `{"cty":"text/plain","alg"`))
	g.addNotary("content-type", "another content type", format, "content type", change("application/vnd.cncf.notary.payload.v1+json", "text/plain"))
	g.addNotary("unknown-critical", "a critical header that nobody knows", format, "is not understood",
		change(`"crit":["io.cncf.notary.signingScheme"]`, `"com.example.unknown":"x","crit":["io.cncf.notary.signingScheme","com.example.unknown"]`))
	g.addNotary("scheme-not-critical", "the signing scheme is not marked critical", format, "is not marked critical",
		change(`"crit":["io.cncf.notary.signingScheme"]`, `"crit":["io.cncf.notary.signingTime"]`))
	g.addNotary("scheme-authority", "the scheme of a signing authority, whose time others would take for now", format, "signing scheme", change("notary.x509", "notary.x509.signingAuthority"))
	expiry := func(t time.Time, crit string) []byte {
		return change(`"crit":["io.cncf.notary.signingScheme"]`, `"io.cncf.notary.expiry":"`+t.Format(time.RFC3339)+`","crit":["io.cncf.notary.signingScheme"`+crit+`]`)
	}
	const critical = `,"io.cncf.notary.expiry"`
	g.addNotary("expired", "its signed expiry has passed", expired, "expired at", expiry(past, critical))
	g.addNotary("expiry-not-critical", "an expiry that others may pass over", format, "is not marked critical", expiry(future, ""))
	g.addNotary("future", "it says that it was signed later than now", clock, "in the future", change("2026-01-15T12:00:00Z", future.Format(time.RFC3339)))
	g.addNotary("no-signing-time", "no signing time", format, "signingTime", change(`,"io.cncf.notary.signingTime":"2026-01-15T12:00:00Z"`, ""))

	text := string(g.good().signed(g.p256))
	g.addNotary("duplicate-key", "a field of the envelope twice, of which readers take either", format, "duplicate JSON key",
		[]byte(strings.Replace(text, `{"payload":`, `{"payload":"e30","payload":`, 1)))
	g.addNotary("unknown-field", "a field of the envelope that nobody knows", format, "unknown field", []byte(strings.Replace(text, `{"payload":`, `{"extra":1,"payload":`, 1)))
	g.addNotary("signatures", "the general serialization, with a list of signatures", format, "unknown field", []byte(strings.Replace(text, `{"payload":`, `{"signatures":[],"payload":`, 1)))
	padded := strings.Replace(text, `","protected"`, `=","protected"`, 1)
	g.addNotary("padded-base64", "base64 with padding: a second encoding of one signature", format, "is not base64url", []byte(padded))
	agent := g.good()
	agent.header = `,"com.example.note":"unsigned"`
	g.addNotary("unsigned-note", "the unsigned header may hold what others put there", success, "", agent.signed(g.p256))
}
