// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// maxChain bounds the certificates of an envelope.
const maxChain = 10

// ChainError says which certificate of a chain does not meet the signature
// specification ("Certificate Requirements").
type ChainError struct {
	// Index counts from the leaf.
	Index   int
	Subject string
	Reason  string
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("certificate %d (%s): %s", e.Index, e.Subject, e.Reason)
}

// CheckChain reports whether chain, leaf first and root last, is one that Notary
// verifiers accept, apart from time and trust. Errors are *ChainError.
func CheckChain(chain []*x509.Certificate) error {
	_, err := checkChain(chain)
	return err
}

func checkChain(chain []*x509.Certificate) (algorithm, error) {
	if len(chain) == 0 {
		return algorithm{}, &ChainError{Reason: "there is none"}
	}
	if len(chain) > maxChain {
		return algorithm{}, &ChainError{Reason: fmt.Sprintf("%d certificates, more than %d", len(chain), maxChain)}
	}
	for i, c := range chain {
		reason := leafReason(c)
		if i > 0 {
			reason = authorityReason(c, i-1)
		}
		if reason != "" {
			return algorithm{}, &ChainError{Index: i, Subject: c.Subject.String(), Reason: reason}
		}
	}
	for i, c := range chain {
		if reason := issuerReason(chain, i); reason != "" {
			return algorithm{}, &ChainError{Index: i, Subject: c.Subject.String(), Reason: reason}
		}
	}
	typ, _ := signature.TypeOf(chain[0].PublicKey)
	return byType(typ), nil
}

// validAt reports the certificate that is not valid at t.
func validAt(chain []*x509.Certificate, t time.Time) error {
	for i, c := range chain {
		if t.Before(c.NotBefore) || t.After(c.NotAfter) {
			return &ChainError{Index: i, Subject: c.Subject.String(), Reason: fmt.Sprintf("it is valid from %s to %s only",
				c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))}
		}
	}
	return nil
}

// issuerReason holds the order: each certificate is issued by the next, only the
// last by itself. A root is demanded, so that nobody has to find it elsewhere.
func issuerReason(chain []*x509.Certificate, i int) string {
	c := chain[i]
	self := selfSigned(c)
	if i == len(chain)-1 {
		if !self {
			return "it is the last one and not self-signed: the chain has to end with its root"
		}
		return ""
	}
	if self {
		return "it is self-signed and not the last one"
	}
	if !bytes.Equal(c.RawIssuer, chain[i+1].RawSubject) || c.CheckSignatureFrom(chain[i+1]) != nil {
		return "it is not issued by the next one"
	}
	return ""
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// critical reports whether the extension is there and marked critical.
func critical(c *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return e.Critical
		}
	}
	return false
}

// bannedUsages are those of TLS, mail, stamping and OCSP: a certificate for
// another purpose must not sign artifacts.
var bannedUsages = []x509.ExtKeyUsage{
	x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth,
	x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageTimeStamping, x509.ExtKeyUsageOCSPSigning,
}

func leafReason(c *x509.Certificate) string {
	typ, ok := signature.TypeOf(c.PublicKey)
	switch {
	case !ok || len(signature.Algorithms(signature.Notary, typ)) == 0:
		return "its key is neither ECDSA P-256, P-384, P-521 nor RSA 2048, 3072, 4096"
	case weak(c.SignatureAlgorithm):
		return "it is signed with " + c.SignatureAlgorithm.String()
	case c.IsCA:
		return "it is an authority's and cannot sign artifacts"
	case !critical(c, oidKeyUsage):
		return "its key usage is missing or not critical"
	case c.KeyUsage&^x509.KeyUsageContentCommitment != x509.KeyUsageDigitalSignature:
		return "its key usage is not digital signature alone"
	}
	for _, u := range c.ExtKeyUsage {
		if slices.Contains(bannedUsages, u) {
			return "its extended key usage is for another purpose than signing code"
		}
	}
	return ""
}

// authorityReason checks an issuer with below intermediates under it.
func authorityReason(c *x509.Certificate, below int) string {
	k, isRSA := c.PublicKey.(*rsa.PublicKey)
	switch {
	case weak(c.SignatureAlgorithm):
		return "it is signed with " + c.SignatureAlgorithm.String()
	case isRSA && k.N.BitLen() < 2048:
		return "its RSA key is shorter than 2048 bits"
	case !c.BasicConstraintsValid || !c.IsCA || !critical(c, oidBasicConstraints):
		return "it is no authority's: basic constraints are missing, not critical, or say so"
	case c.MaxPathLen > 0 && below > c.MaxPathLen, c.MaxPathLenZero && below > 0:
		return "its path length allows no chain as long as this"
	case !critical(c, oidKeyUsage) || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return "its key usage is missing, not critical, or does not sign certificates"
	}
	return ""
}

func weak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA, x509.UnknownSignatureAlgorithm:
		return true
	}
	return false
}
