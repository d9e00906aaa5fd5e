// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testrevocation"
	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// A signature of two hours ago, whose certificate expired an hour ago, stamped in
// time: by flag, by policy and by notation's policy.
func TestCLIExpiredCertificateAndItsStamp(t *testing.T) {
	r := newPolicyRig(t)
	now := time.Now()
	k, ca := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	template := testkey.Authority(now, "ca")
	template.NotBefore = now.Add(-4 * time.Hour)
	authority := ca.Issue(t, template, nil, nil)
	leaf := testkey.Leaf(now, "signer")
	leaf.NotBefore, leaf.NotAfter = now.Add(-3*time.Hour), now.Add(-time.Hour)
	chain := []*x509.Certificate{k.Issue(t, leaf, ca, authority), authority}
	tsa := testtsa.Start(t)
	tsa.Time = now.Add(-2 * time.Hour)
	stamped, bare := r.ref(t, "stamped"), r.ref(t, "bare")
	notaryFormats := []signature.Format{signature.Notary, signature.NotaryCOSE}
	r.signedBy(t, stamped, -2*time.Hour, aegis.Signing{Formats: notaryFormats, Certificates: chain, Timestamper: tsa}, k)
	r.signedBy(t, bare, -2*time.Hour, aegis.Signing{Formats: notaryFormats, Certificates: chain}, k)
	cert := r.file(t, "k.pem", string(testkey.CertificatePEM(chain[0])))
	root := r.file(t, "tsa.pem", string(tsa.RootPEM()))
	other := r.file(t, "other.pem", string(testtsa.Start(t).RootPEM()))
	r.file(t, "ca.pem", string(testkey.CertificatePEM(authority)))

	r.refused(t, 3, "rejected", "verify", "--key", cert, stamped)
	r.ok(t, "verify", "--key", cert, "--timestamp-root-cert", root, stamped)
	r.refused(t, 3, "timestamp_invalid", "verify", "--key", cert, "--timestamp-root-cert", other, stamped)
	r.refused(t, 3, "rejected", "verify", "--key", cert, "--timestamp-root-cert", root, bare)
	r.refused(t, 2, "usage", "verify", "--key", cert, "--timestamp-root-cert", cert+".none", stamped)
	r.refused(t, 2, "usage", "verify", "--key", cert, "--timestamp-root-cert", cert, stamped)
	r.ok(t, "pull", "--key", cert, "--timestamp-root-cert", root, "-o", filepath.Join(r.dir, "out"), stamped)
	r.ok(t, "verify", "--dir", filepath.Join(r.dir, "out"), "--key", cert, "--timestamp-root-cert", root)
	r.refused(t, 3, "rejected", "verify", "--dir", filepath.Join(r.dir, "out"), "--key", cert)

	pki := []string{"timestamps: {certificatesFile: tsa.pem}", "keys:", `- {name: pki, certificatesFile: ca.pem, identities: ["*"]}`}
	policy := r.policy(t, pki...)
	r.ok(t, "verify", "--policy", policy, stamped)
	r.refused(t, 3, "rejected", "verify", "--policy", policy, bare)
	r.refused(t, 3, "rejected", "verify", "--policy", r.policy(t, pki[1:]...), stamped)
	r.ok(t, "verify", "--policy", r.policy(t, append([]string{"maxAge: {of: timestamp, is: 3h}"}, pki...)...), stamped)
	r.refused(t, 3, "too_old", "verify", "--policy", r.policy(t, append([]string{"maxAge: {of: timestamp, is: 1h}"}, pki...)...), stamped)
	r.refused(t, 2, "policy_invalid", "policy", "check", "--policy", r.policy(t, "timestamps: {certificatesFile: none.pem}", pki[1], pki[2]))
	// The flag is for --key. Its variable may be there for what sign asks.
	policy = r.policy(t, pki...)
	r.refused(t, 2, "usage", "verify", "--policy", policy, "--timestamp-root-cert", root, stamped)
	r.env["AEGIS_TIMESTAMP_ROOT_CERT"] = other
	r.ok(t, "verify", "--policy", policy, stamped)
	r.refused(t, 3, "timestamp_invalid", "verify", "--key", cert, stamped)
	delete(r.env, "AEGIS_TIMESTAMP_ROOT_CERT")
	if out := r.ok(t, "policy", "explain", "--policy", policy, stamped); !strings.Contains(out, "by CN=test TSA") {
		t.Errorf("explain says %s", out)
	}
	record := r.file(t, "record.json", r.ok(t, "policy", "explain", "--format", "json", "--policy", policy, stamped))
	if out := r.ok(t, "policy", "replay", record); !strings.Contains(out, "decision   accepted") {
		t.Errorf("replay says %s", out)
	}

	// notation's words for the same.
	r.file(t, "truststore/x509/ca/acme/ca.pem", string(testkey.CertificatePEM(authority)))
	r.file(t, "truststore/x509/tsa/stamps/tsa.pem", string(tsa.RootPEM()))
	r.file(t, "truststore/x509/tsa/other/tsa.crt", string(testtsa.Start(t).Root.Raw))
	r.file(t, "truststore/x509/tsa/leaf/tsa.pem", string(testkey.CertificatePEM(chain[0])))
	notation := func(when string, stores ...string) string {
		return r.file(t, "trustpolicy.json", fmt.Sprintf(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"],
			"signatureVerification": {"level": "strict"%s}, "trustStores": ["ca:acme"%s], "trustedIdentities": ["*"]}]}`, when, strings.Join(append([]string{""}, stores...), `, `)))
	}
	always, after := `, "verifyTimestamp": "always"`, `, "verifyTimestamp": "afterCertExpiry"`
	for _, when := range []string{"", always, after} {
		r.ok(t, "verify", "--notation-policy", notation(when, `"tsa:stamps"`), stamped)
		r.refused(t, 3, "timestamp_invalid", "verify", "--notation-policy", notation(when, `"tsa:stamps"`), bare)
		r.refused(t, 3, "timestamp_invalid", "verify", "--notation-policy", notation(when, `"tsa:other"`), stamped)
		r.refused(t, 3, "rejected", "verify", "--notation-policy", notation(when), stamped)
		r.refused(t, 2, "policy_invalid", "verify", "--notation-policy", notation(when, `"tsa:leaf"`), stamped)
		r.refused(t, 2, "policy_invalid", "verify", "--notation-policy", notation(when, `"tsa:none"`), stamped)
	}
	// Before a certificate has expired a stamp is needed always, and not looked at
	// with afterCertExpiry.
	valid := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "signer"), ca, authority), authority}
	fresh := r.ref(t, "fresh")
	r.signedBy(t, fresh, 0, aegis.Signing{Formats: notaryFormats, Certificates: valid}, k)
	r.ok(t, "verify", "--notation-policy", notation(after, `"tsa:stamps"`), fresh)
	r.refused(t, 3, "timestamp_invalid", "verify", "--notation-policy", notation(always, `"tsa:stamps"`), fresh)
}

// strict enforces what a responder says, permissive says it.
func TestCLIRevocation(t *testing.T) {
	r := newPolicyRig(t)
	now := time.Now()
	k, ca := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	authority := ca.Issue(t, testkey.Authority(now, "ca"), nil, nil)
	srv := testrevocation.Start(t, authority, ca.Private())
	leaf := testkey.Leaf(now, "signer")
	leaf.OCSPServer, leaf.CRLDistributionPoints = []string{srv.URL + "/none"}, []string{srv.URL + "/crl"}
	chain := []*x509.Certificate{k.Issue(t, leaf, ca, authority), authority}
	ref := r.ref(t, "v1")
	r.signedBy(t, ref, 0, aegis.Signing{Formats: []signature.Format{signature.Notary}, Certificates: chain}, k)
	r.file(t, "truststore/x509/ca/acme/ca.pem", string(testkey.CertificatePEM(authority)))
	notation := func(level string) string {
		return r.file(t, "trustpolicy.json", fmt.Sprintf(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"],
			"signatureVerification": {"level": %q}, "trustStores": ["ca:acme"], "trustedIdentities": ["*"]}]}`, level))
	}
	ours := func(mode string) string {
		return r.policy(t, "keys:", `- {name: pki, certificatesFile: truststore/x509/ca/acme/ca.pem, identities: ["*"]`+mode+`}`)
	}
	r.ok(t, "verify", "--notation-policy", notation("strict"), ref)
	r.ok(t, "verify", "--policy", ours(", revocation: enforce"), ref)
	srv.This, srv.Next = now.Add(-3*time.Hour), now.Add(-time.Hour)
	for _, args := range [][]string{{"--notation-policy", notation("strict")}, {"--policy", ours(", revocation: enforce")}} {
		dir := filepath.Join(r.dir, "doubt", "out")
		o := r.refused(t, 4, "revocation_unknown", append([]string{"pull", "-o", dir, ref}, args...)...)
		if !strings.Contains(o.stdout, "stale") || !strings.Contains(o.stdout, "404") {
			t.Errorf("the reasons are not told: %s", o.stdout)
		}
		if found, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(found) > 0 {
			t.Errorf("left behind: %q, %v", found, err)
		}
	}
	srv.This, srv.Next = time.Time{}, time.Time{}
	srv.Revoke(chain[0].SerialNumber)
	r.refused(t, 3, "revoked", "verify", "--notation-policy", notation("strict"), ref)
	r.refused(t, 3, "revoked", "verify", "--policy", ours(", revocation: enforce"), ref)
	before := srv.CRL.Load()
	r.ok(t, "verify", "--policy", ours(""), ref)
	if n := srv.CRL.Load() - before; n != 0 {
		t.Errorf("nothing is to be looked up, and %d lists were fetched", n)
	}
	for _, args := range [][]string{{"--notation-policy", notation("permissive")}, {"--policy", ours(", revocation: log")}} {
		o := r.run(t, "", append([]string{"verify", ref}, args...)...)
		if o.exit != 0 || !strings.Contains(o.stderr, "warning") || !strings.Contains(o.stderr, "is revoked, which the policy only logs") {
			t.Errorf("%q: exit %d\n%s", args, o.exit, o.stderr)
		}
	}
}

// A Transit key's own certificate in a file, or in the store alone; its issuers in
// notation's trust store.
func TestCLITrustStore(t *testing.T) {
	r := newPolicyRig(t)
	name := "trust-store-" + r.id
	r.srv.TransitKey(t, name, "ecdsa-p256")
	r.as(t, "transit/sign/"+name, "update", "transit/keys/"+name, "read")
	key := "hashivault://" + name
	block, _ := pem.Decode(r.srv.PublicKeyPEM(t, name, 1))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca, mid := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	root := ca.Issue(t, testkey.Authority(now, "root"), nil, nil)
	between := mid.Issue(t, testkey.Authority(now, "intermediate"), ca, root)
	der, err := x509.CreateCertificate(rand.Reader, testkey.Leaf(now, "models"), between, public, mid.Private())
	if err != nil {
		t.Fatal(err)
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	alone := r.file(t, "leaf.pem", leaf)
	config := filepath.Join(r.env["HOME"], ".config", "notation", "truststore", "x509", "ca")
	for path, content := range map[string]string{
		filepath.Join(config, "acme", "root.pem"): string(testkey.CertificatePEM(root)), filepath.Join(config, "acme", "mid.crt"): string(between.Raw),
		filepath.Join(config, "roots", "root.pem"):                                    string(testkey.CertificatePEM(root)),
		filepath.Join(r.dir, "elsewhere/truststore/x509/ca/whole/chain.pem"):          leaf + string(testkey.CertificatePEM(between, root)),
		filepath.Join(r.dir, "xdg/notation/truststore/x509/ca/acme2/certificate.pem"): string(testkey.CertificatePEM(between, root)),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ref := r.ref(t, "v1")
	r.ok(t, "push", ref, r.file(t, "model/m.bin", "weights"))
	sign := func(args ...string) []string {
		return append([]string{"sign", "--key", key, "--signature-format", "notary", ref}, args...)
	}
	r.refused(t, 2, "certificate_unsuitable", sign("--cert-chain", alone)...)
	r.refused(t, 2, "usage", sign("--cert-chain", alone, "--trust-store", "none")...)
	r.refused(t, 2, "usage", sign("--cert-chain", alone, "--trust-store", "../acme")...)
	r.refused(t, 2, "certificate_unsuitable", sign("--cert-chain", alone, "--trust-store", "roots")...)
	r.refused(t, 2, "certificate_unsuitable", sign("--trust-store", "acme")...) // no certificate of the key there
	r.refused(t, 2, "usage", "sign", "--key", key, "--trust-store", "acme", ref)
	ca2 := r.file(t, "root.pem", string(testkey.CertificatePEM(root)))
	policy := r.policy(t, "keys:", `- {name: pki, certificatesFile: `+filepath.Base(ca2)+`, identities: ["*"]}`)
	r.refused(t, 3, "unsigned", "verify", "--policy", policy, ref)
	r.ok(t, sign("--cert-chain", alone, "--trust-store", "acme")...)
	r.ok(t, "verify", "--policy", policy, ref)
	r.env["XDG_CONFIG_HOME"] = filepath.Join(r.dir, "xdg")
	r.ok(t, sign("--cert-chain", alone, "--trust-store", "acme2")...)
	r.env["NOTATION_CONFIG"] = filepath.Join(r.dir, "elsewhere")
	r.refused(t, 2, "usage", sign("--cert-chain", alone, "--trust-store", "acme2")...)
	r.ok(t, sign("--trust-store", "whole")...)
}

// A Sigstore bundle is stamped too, and satisfies an age of timestamps.
func TestCLIStampedBundle(t *testing.T) {
	r := newPolicyRig(t)
	name := "stamped-" + r.id
	r.srv.TransitKey(t, name, "ecdsa-p256")
	r.as(t, "transit/sign/"+name, "update", "transit/keys/"+name, "read")
	tsa := testtsa.Start(t)
	root := r.file(t, "tsa.pem", string(tsa.RootPEM()))
	r.file(t, "k.pub", string(r.srv.PublicKeyPEM(t, name, 1)))
	policy := r.policy(t, "timestamps: {certificatesFile: tsa.pem}", "maxAge: {of: timestamp, is: 1h}", "keys:", "- {name: k, publicKeyFile: k.pub}")
	ref := r.ref(t, "v1")
	r.ok(t, "push", "--sign", "--key", "hashivault://"+name, ref, r.file(t, "model/m.bin", "weights"))
	r.refused(t, 3, "too_old", "verify", "--policy", policy, ref)
	r.refused(t, 2, "usage", "sign", "--key", "hashivault://"+name, "--signature-format", "cosign-tag", "--timestamp-url", tsa.URL, ref)
	// Without the authority's root it is no stamp of anybody known.
	r.refused(t, 4, "timestamp_failed", "sign", "--key", "hashivault://"+name, "--timestamp-url", tsa.URL, ref)
	r.refused(t, 3, "too_old", "verify", "--policy", policy, ref)
	r.ok(t, "sign", "--key", "hashivault://"+name, "--timestamp-url", tsa.URL, "--timestamp-root-cert", root, ref)
	r.ok(t, "verify", "--policy", policy, ref)
	r.ok(t, "verify", "--key", filepath.Join(r.dir, "k.pub"), "--timestamp-root-cert", root, ref)
}
