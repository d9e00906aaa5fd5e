// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"time"
)

// Template is a self-signed signing certificate as the specification demands it:
// key usage digital signature alone and critical, extended key usage code
// signing, no basic constraints. serial is positive and unique for the key.
func Template(subject pkix.Name, serial *big.Int, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    from,
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
}

// Request is a certificate request that asks for the same usages. Authorities may
// ignore them: Vault's PKI does unless its role is set so.
func Request(subject pkix.Name) (*x509.CertificateRequest, error) {
	// RFC 5280, sections 4.2.1.3 and 4.2.1.12: bit 0 is digitalSignature.
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
	if err != nil {
		return nil, err
	}
	extended, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 3}})
	if err != nil {
		return nil, err
	}
	return &x509.CertificateRequest{
		Subject: subject,
		ExtraExtensions: []pkix.Extension{
			{Id: oidKeyUsage, Critical: true, Value: usage},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: extended},
		},
	}, nil
}

// ParseSubject reads a subject such as "C=US, ST=WA, O=Acme, CN=models". C, ST
// and O must be there: trusted identities name them. Errors are *IdentityError.
func ParseSubject(text string) (pkix.Name, error) {
	id, err := parseIdentity(identityPrefix + " " + text)
	if err != nil {
		return pkix.Name{}, err
	}
	one := func(name string) []string {
		if v := id.attrs[name]; v != "" {
			return []string{v}
		}
		return nil
	}
	return pkix.Name{
		Country: one("C"), Province: one("ST"), Locality: one("L"), StreetAddress: one("STREET"), PostalCode: one("POSTALCODE"),
		Organization: one("O"), OrganizationalUnit: one("OU"), CommonName: id.attrs["CN"], SerialNumber: id.attrs["SERIALNUMBER"],
	}, nil
}

// SubjectText writes a leaf's subject as a trusted identity of a trust policy.
func SubjectText(c *x509.Certificate) string {
	attrs, ok := subjectOf(c.Subject)
	if !ok {
		return ""
	}
	var parts []string
	for _, name := range []string{"C", "ST", "L", "STREET", "POSTALCODE", "O", "OU", "CN", "SERIALNUMBER"} {
		if v := attrs[name]; v != "" {
			parts = append(parts, name+"="+strings.NewReplacer(`\`, `\\`, ",", `\,`, "=", `\=`).Replace(v))
		}
	}
	return identityPrefix + " " + strings.Join(parts, ", ")
}
