// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testrevocation"
	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// trusts writes the policy and the stores that notation and aegis-oci both read.
func (r *rig) trusts(t *testing.T, level, when string, ca *x509.Certificate, tsa *testtsa.TSA) string {
	t.Helper()
	stores := []string{"ca:acme"}
	write(t, filepath.Join(r.config, "notation/truststore/x509/ca/acme/ca.pem"), testkey.CertificatePEM(ca))
	if tsa != nil {
		stores = append(stores, "tsa:stamps")
		write(t, filepath.Join(r.config, "notation/truststore/x509/tsa/stamps/tsa.pem"), tsa.RootPEM())
	}
	verification := map[string]string{"level": level}
	if when != "" {
		verification["verifyTimestamp"] = when
	}
	policy, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{map[string]any{
		"name": "all", "registryScopes": []string{"*"}, "signatureVerification": verification, "trustStores": stores, "trustedIdentities": []string{acme},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.config, "notation", "trustpolicy.json")
	write(t, path, policy)
	return path
}

// signedAt signs past the command line, at another time.
func (r *rig) signedAt(t *testing.T, ref string, offset time.Duration, s aegis.Signing) {
	t.Helper()
	client, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := registry.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	c := aegis.New(client, aegis.Options{Now: func() time.Time { return time.Now().Add(offset) }})
	if _, err := c.Sign(t.Context(), parsed, s); err != nil {
		t.Fatal(err)
	}
}

type elsewhere struct{ *testtsa.TSA }

func (e elsewhere) Timestamp(ctx context.Context, _ []byte, h crypto.Hash) ([]byte, error) {
	return e.TSA.Timestamp(ctx, []byte("another signature"), h)
}

// notation and aegis-oci read one policy, and decide alike about expired
// certificates and their stamps.
func TestExpiredCertificatesAsNotationDecides(t *testing.T) {
	r := withReferrers(t)
	r.config = filepath.Join(t.TempDir(), "config")
	now := time.Now()
	k, ca := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	template := testkey.Authority(now, "ca")
	template.NotBefore = now.Add(-4 * time.Hour)
	authority := ca.Issue(t, template, nil, nil)
	issue := func(from, until time.Duration) []*x509.Certificate {
		leaf := testkey.Leaf(now, "signer")
		leaf.NotBefore, leaf.NotAfter = now.Add(from), now.Add(until)
		return []*x509.Certificate{k.Issue(t, leaf, ca, authority), authority}
	}
	expired, valid := issue(-3*time.Hour, -time.Hour), issue(-3*time.Hour, time.Hour)
	tsa, other := testtsa.Start(t), testtsa.Start(t)
	tsa.Time, other.Time = now.Add(-2*time.Hour), now.Add(-2*time.Hour)
	late := tsa.At(now.Add(-30 * time.Minute))
	for name, c := range map[string]struct {
		chain   []*x509.Certificate
		stamper signature.Timestamper
		// For verifyTimestamp always, afterCertExpiry, and without a store of type tsa.
		always, after, without bool
	}{
		"expired and stamped":          {expired, tsa, true, true, false},
		"expired and bare":             {expired, nil, false, false, false},
		"expired, stamped by another":  {expired, other, false, false, false},
		"expired, stamped elsewhere":   {expired, elsewhere{tsa}, false, false, false},
		"expired, and then stamped":    {expired, late, false, false, false},
		"valid and stamped":            {valid, tsa, true, true, true},
		"valid and bare":               {valid, nil, false, true, true},
		"valid, stamped by another":    {valid, other, false, true, true},
		"valid, and stamped elsewhere": {valid, elsewhere{tsa}, false, true, true},
	} {
		for i, format := range []signature.Format{signature.Notary, signature.NotaryCOSE} {
			ref := r.push(t, r.repo(t, strings.ReplaceAll(strings.ReplaceAll("-"+name, " ", "-"), ",", "")+string(rune('a'+i)))+":v1")
			r.signedAt(t, ref, -2*time.Hour, aegis.Signing{Signer: k, Formats: []signature.Format{format}, Certificates: c.chain, Timestamper: c.stamper})
			for when, want := range map[string]bool{"": c.always, "always": c.always, "afterCertExpiry": c.after, "without": c.without} {
				trusted, asked := tsa, when
				if when == "without" {
					trusted, asked = nil, ""
				}
				policy := r.trusts(t, "strict", asked, authority, trusted)
				theirs := r.notationVerify(t, ref)
				ours := run(t, r.command(t, "aegis-oci", "verify", "--quiet", "--notation-policy", policy, ref))
				if (theirs.code == exitOK) != want || ours.code != map[bool]int{true: exitOK, false: exitRejected}[want] {
					t.Errorf("%s, %s, %q: want accepted %v\nnotation %d: %s\naegis-oci %d: %s", name, format, when, want, theirs.code, theirs.stderr, ours.code, ours.stderr)
				}
			}
		}
	}
}

// The same for certificates that are revoked, by OCSP and by CRL.
func TestRevocationAsNotationDecides(t *testing.T) {
	r := withReferrers(t)
	r.config = filepath.Join(t.TempDir(), "config")
	now := time.Now()
	for by, name := range map[string]func(*x509.Certificate, string){
		"ocsp": func(c *x509.Certificate, url string) { c.OCSPServer = []string{url + "/ocsp"} },
		"crl":  func(c *x509.Certificate, url string) { c.CRLDistributionPoints = []string{url + "/crl"} },
	} {
		k, ca := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
		authority := ca.Issue(t, testkey.Authority(now, "ca"), nil, nil)
		srv := testrevocation.Start(t, authority, ca.Private())
		leaf := testkey.Leaf(now, "signer")
		name(leaf, srv.URL)
		chain := []*x509.Certificate{k.Issue(t, leaf, ca, authority), authority}
		ref := r.push(t, r.repo(t, "-"+by)+":v1")
		r.signedAt(t, ref, 0, aegis.Signing{Signer: k, Formats: []signature.Format{signature.Notary}, Certificates: chain})
		decide := func(what string, strict int) {
			t.Helper()
			// notation keeps lists.
			if err := os.RemoveAll(filepath.Join(r.home, ".cache", "notation")); err != nil {
				t.Fatal(err)
			}
			for level, want := range map[string]int{"strict": strict, "permissive": exitOK} {
				policy := r.trusts(t, level, "", authority, nil)
				theirs := r.notationVerify(t, ref)
				ours := run(t, r.command(t, "aegis-oci", "verify", "--quiet", "--notation-policy", policy, ref))
				if (theirs.code == exitOK) != (want == exitOK) || ours.code != want {
					t.Errorf("%s, %s, %s: want %d\nnotation %d: %s\naegis-oci %d: %s", by, what, level, want, theirs.code, theirs.stderr, ours.code, ours.stderr)
				}
			}
		}
		decide("good", exitOK)
		srv.This, srv.Next = now.Add(-3*time.Hour), now.Add(-2*time.Hour)
		decide("stale", 4)
		srv.This, srv.Next = time.Time{}, time.Time{}
		srv.Revoke(chain[0].SerialNumber)
		decide("revoked", exitRejected)
	}
}

// A leaf for the Transit key, and all else from notation's trust store: notation
// accepts what was signed so.
func TestNotationAcceptsChainsFromItsTrustStore(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		r.config = filepath.Join(t.TempDir(), "config")
		key, public := r.key(t, "", "ecdsa-p256")
		now := time.Now()
		ca, mid := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
		root := ca.Issue(t, testkey.Authority(now, "root"), nil, nil)
		between := mid.Issue(t, testkey.Authority(now, "intermediate"), ca, root)
		text, err := os.ReadFile(public)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		half, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		leaf := mid.IssueFor(t, testkey.Leaf(now, "models"), between, half)
		cert := filepath.Join(t.TempDir(), "leaf.pem")
		write(t, cert, testkey.CertificatePEM(leaf))
		r.trusts(t, "strict", "", root, nil)
		write(t, filepath.Join(r.config, "notation/truststore/x509/ca/acme/intermediate.crt"), between.Raw)
		ref := r.push(t, r.repo(t, "")+":v1")
		r.aegis(t, 2, "sign", "--quiet", "--key", key, "--signature-format", "notary", "--cert-chain", cert, ref)
		refuses(t, "notation before it is signed", r.notationVerify(t, ref), "no signature is associated")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", "notary", "--cert-chain", cert, "--trust-store", "acme", ref)
		accepts(t, "notation", r.notationVerify(t, ref))

		// The self-signed one, which is in the store and nowhere else.
		own := filepath.Join(t.TempDir(), "own.pem")
		r.aegis(t, exitOK, "key", "certificate", "--self-signed", "--subject", "C=US, ST=WA, O=Acme, CN=own", "--days", "2", "-o", own, key)
		r.must(t, "tools/notation", "cert", "add", "--type", "ca", "--store", "own", own)
		again := r.push(t, r.repo(t, "-own")+":v1")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", "notary-cose", "--trust-store", "own", again)
		r.notary(t, own, acme, nil)
		accepts(t, "notation", r.notationVerify(t, again))
	})
}

// cosign stamps what it signs, over the same bytes as we do, and such a bundle
// satisfies an age of timestamps. It accepts ours, with and without judging its stamp.
func TestStampedBundlesOfCosign(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		tsa := testtsa.Start(t)
		dir := t.TempDir()
		root, chain := filepath.Join(dir, "tsa.pem"), filepath.Join(dir, "chain.pem")
		write(t, root, tsa.RootPEM())
		write(t, chain, tsa.ChainPEM())
		key, public := r.key(t, "", "ecdsa-p256")
		text, err := os.ReadFile(public)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "k.pub"), text)
		policy := filepath.Join(dir, "policy.yaml")
		write(t, policy, []byte(`version: 1
policies:
- name: all
  scopes: ["*"]
  timestamps: {certificatesFile: tsa.pem}
  maxAge: {of: timestamp, is: 1h}
  keys: [{name: k, publicKeyFile: k.pub}]
`))
		theirs := r.push(t, r.repo(t, "-theirs")+":v1")
		r.cosignSign(t, key, theirs)
		r.aegis(t, exitOK, "verify", "--key", public, theirs)
		r.aegis(t, exitRejected, "verify", "--policy", policy, theirs)
		if got := r.cosignSign(t, key, theirs, "--timestamp-server-url", tsa.URL); got.code != exitOK {
			t.Fatalf("cosign: %s", got.stderr)
		}
		r.aegis(t, exitOK, "verify", "--policy", policy, theirs)

		ours := r.push(t, r.repo(t, "-ours")+":v1")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--timestamp-url", tsa.URL, "--timestamp-root-cert", root, ours)
		r.aegis(t, exitOK, "verify", "--policy", policy, ours)
		accepts(t, "cosign", r.cosignVerify(t, public, ours))
		trusted := filepath.Join(dir, "trusted_root.json")
		r.must(t, "tools/cosign", "trusted-root", "create", "--tsa", "url="+tsa.URL+",certificate-chain="+chain, "--out", trusted)
		accepts(t, "cosign, and it judges the stamp", r.cosignVerify(t, public, ours, "--use-signed-timestamps", "--trusted-root", trusted))
		bare := r.push(t, r.repo(t, "-bare")+":v1")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, bare)
		refuses(t, "cosign without a stamp", r.cosignVerify(t, public, bare, "--use-signed-timestamps", "--trusted-root", trusted), "timestamp")
	})
}
