// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package testkey

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Private is the private half, for what is not a signature over a model.
func (k *Key) Private() crypto.Signer { return k.priv }

// Subject is that of every certificate here, with another common name.
func Subject(common string) pkix.Name {
	return pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Acme"}, CommonName: common}
}

// Leaf is a certificate template as Notary demands it, valid for an hour before
// now and a day after.
func Leaf(now time.Time, common string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      Subject(common),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
}

// Authority is the template of an issuer.
func Authority(now time.Time, common string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               Subject(common),
		NotBefore:             now.Add(-2 * time.Hour),
		NotAfter:              now.Add(48 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// Issue makes the certificate of k from template, issued by issuer with its
// certificate; a nil issuer is k itself.
func (k *Key) Issue(t testing.TB, template *x509.Certificate, issuer *Key, by *x509.Certificate) *x509.Certificate {
	t.Helper()
	if issuer == nil {
		issuer, by = k, template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, k.priv.Public(), issuer.priv)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// CertificatePEM encodes certificates in the order given.
func CertificatePEM(chain ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// IssueFor makes the certificate of a public key that somebody else holds.
func (k *Key) IssueFor(t testing.TB, template, by *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by, public, k.priv)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
