// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// revokedLeaf is a certificate, its issuer, and the issuer's key.
func revokedLeaf(f *testing.F) (cert, issuer *x509.Certificate, key *testkey.Key) {
	key = testkey.New(f, signature.ECDSAP256)
	issuer = key.Issue(f, testkey.Authority(time.Now(), "root"), nil, nil)
	template := testkey.Leaf(time.Now(), "signer")
	template.CRLDistributionPoints = []string{"http://crl.example.com/x"}
	return testkey.New(f, signature.ECDSAP256).Issue(f, template, key, issuer), issuer, key
}

// Whoever is on the way can answer anything; only the issuer can say good, and it
// never did.
func FuzzOCSP(f *testing.F) {
	cert, issuer, key := revokedLeaf(f)
	now := time.Now()
	for _, status := range []int{ocsp.Revoked, ocsp.Unknown} {
		der, err := ocsp.CreateResponse(issuer, issuer, ocsp.Response{
			Status: status, SerialNumber: cert.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour), RevokedAt: now,
		}, key.Private())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add(ocsp.TryLaterErrorResponse)
	c := New(Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readOCSP(body, cert, issuer, c)
		if (err != nil) != (a == Answer{}) || err == nil && a.Status != Revoked {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

func FuzzCRL(f *testing.F) {
	cert, issuer, key := revokedLeaf(f)
	now := time.Now()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: cert.SerialNumber, RevocationTime: now}},
	}, issuer, key.Private())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	c := New(Options{})
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := x509.ParseRevocationList(body)
		if err != nil {
			return
		}
		a, err := search(list, cert, issuer, c)
		if (err != nil) != (a == Answer{}) || err == nil && a.Status != Revoked {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

// A point that covers has to be readable to its end, by another reader too.
func FuzzCovers(f *testing.F) {
	cert, _, _ := revokedLeaf(f)
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0x03, 0x81, 0x01, 0xff})
	f.Add([]byte{0x30, 0x03, 0x84, 0x01, 0xff})
	f.Add(append([]byte{0x30, 0x1e, 0xa0, 0x1c, 0xa0, 0x1a, 0x86, 0x18}, "http://crl.example.com/x"...))
	f.Fuzz(func(t *testing.T, value []byte) {
		if err := covers(value, cert); err != nil {
			return
		}
		for _, banned := range [][]byte{{0x84, 0x01, 0xff}, {0x85, 0x01, 0xff}, {0x82, 0x01, 0xff}} {
			if len(value) == 2+len(banned) && string(value[2:]) == string(banned) {
				t.Fatalf("%x covers", value)
			}
		}
		if len(value) < 2 || value[0] != 0x30 {
			t.Fatalf("%x covers", value)
		}
	})
}
