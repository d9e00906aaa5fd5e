// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"crypto/x509"
	"errors"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// FuzzAuthority reads files of certificates and trusted identities. What is taken
// is a set of authorities, and a leaf of none of them is trusted by nobody.
func FuzzAuthority(f *testing.F) {
	root, stranger := testkey.New(f, signature.ECDSAP256), testkey.New(f, signature.ECDSAP256)
	ca := root.Issue(f, testkey.Authority(now, "root"), nil, nil)
	leaf := stranger.Issue(f, testkey.Leaf(now, "models"), nil, nil)
	envelope := sign(f, forms[0].format, stranger, claims(), notary.Options{Chain: []*x509.Certificate{leaf}, Agent: "fuzz"}).Envelope
	for _, identity := range []string{
		"*", "x509.subject: C=US, ST=WA, O=Acme", "x509.subject:C=US,ST=WA,O=A\\,cme,CN=x", "x509.subject: C=US, S=WA, O=Acme, O=Two", "x509.subject:", "x509.subject: C=, ST=WA, O=x",
		"x509.subject: C=US, ST=WA, O=Acme\\", "did:x",
	} {
		f.Add(testkey.CertificatePEM(ca), identity)
		f.Add(append(testkey.CertificatePEM(ca, ca), "rest"...), identity)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "*")
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "*")
	f.Fuzz(func(t *testing.T, certificates []byte, identity string) {
		a, err := notary.NewAuthority("file", certificates, []string{identity})
		if err != nil {
			var bad *signature.KeyFileError
			var id *notary.IdentityError
			if !errors.As(err, &bad) && !errors.As(err, &id) || a != nil {
				t.Fatalf("%v, %v (%T)", a, err, err)
			}
			return
		}
		certs, err := notary.ParseCertificates("file", certificates)
		if err != nil || len(certs) == 0 {
			t.Fatalf("%d certificates, %v", len(certs), err)
		}
		known := false
		for _, c := range certs {
			known = known || c.Equal(leaf)
		}
		// One identity twice is an overlap, which is an error.
		if _, err := notary.ParseIdentities([]string{identity, identity}); err == nil {
			t.Fatalf("%q overlaps with itself", identity)
		}
		env, err := forms[0].parse(envelope)
		if err != nil {
			t.Fatal(err)
		}
		if got := open(t, a, env); got.Err == nil && !known {
			t.Fatalf("%q trusts a stranger", certificates)
		}
	})
}
