// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Authority trusts certificates instead of keys: an envelope counts when one of
// the trusted certificates is in its chain and the leaf's subject has one of the
// identities. It asks nobody. Revocation is not looked up.
type Authority struct {
	name       string
	trusted    []*x509.Certificate
	identities []Identity
}

var _ signature.Key = (*Authority)(nil)

// maxAuthorities bounds the certificates of one file.
const maxAuthorities = 64

// NewAuthority trusts the PEM certificates, each an authority's or a self-signed
// leaf's, for the identities, as a trust policy of the Notary Project writes
// them: "x509.subject: C=US, ST=WA, O=Acme", or "*" alone for every subject.
// Errors are *signature.KeyFileError and *IdentityError.
func NewAuthority(name string, certificates []byte, identities []string) (*Authority, error) {
	chain, err := ParseCertificates(name, certificates)
	if err != nil {
		return nil, err
	}
	for _, c := range chain {
		// A leaf that somebody else issued would be pinned without its issuer's
		// consent ever being looked at.
		if !c.IsCA && !selfSigned(c) {
			return nil, &signature.KeyFileError{Name: name, Reason: fmt.Sprintf("the certificate %q is neither an authority's nor self-signed", c.Subject)}
		}
	}
	ids, err := ParseIdentities(identities)
	if err != nil {
		return nil, err
	}
	return &Authority{name: name, trusted: chain, identities: ids}, nil
}

// ParseCertificates reads a file of PEM certificates and nothing else. name is
// what the user calls the file. Errors are *signature.KeyFileError.
func ParseCertificates(name string, data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, &signature.KeyFileError{Name: name, Reason: "not PEM: expected -----BEGIN CERTIFICATE-----"}
		}
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, &signature.KeyFileError{Name: name, Reason: "a PEM block is malformed or no certificate"}
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &signature.KeyFileError{Name: name, Reason: fmt.Sprintf("certificate %d: %v", len(chain), err)}
		}
		if chain = append(chain, c); len(chain) > maxAuthorities {
			return nil, &signature.KeyFileError{Name: name, Reason: fmt.Sprintf("more than %d certificates", maxAuthorities)}
		}
	}
	if len(chain) == 0 {
		return nil, &signature.KeyFileError{Name: name, Reason: "it holds no certificate"}
	}
	return chain, nil
}

// ID names the authority.
func (a *Authority) ID() signature.KeyID { return signature.KeyID{Name: a.name} }

// Local reports true: nobody is asked.
func (a *Authority) Local() bool { return true }

// Check accepts what the key of a trusted chain's leaf has signed. Formats
// without certificates are refused.
func (a *Authority) Check(_ context.Context, checks []signature.Check) []signature.Verdict {
	verdicts := make([]signature.Verdict, len(checks))
	for i, c := range checks {
		verdicts[i] = a.check(c)
	}
	return verdicts
}

func (a *Authority) check(c signature.Check) signature.Verdict {
	if len(c.Chain) == 0 {
		return refuse("it carries no certificate")
	}
	// The parser has checked this too; a chain that nobody checked must not count.
	if _, err := checkChain(c.Chain); err != nil {
		return refuse(err.Error())
	}
	if !slices.ContainsFunc(c.Chain, func(x *x509.Certificate) bool {
		return slices.ContainsFunc(a.trusted, x.Equal)
	}) {
		return refuse("its certificates lead to none that is trusted")
	}
	leaf := c.Chain[0]
	if !slices.ContainsFunc(a.identities, func(id Identity) bool { return id.Matches(leaf) }) {
		return refuse(fmt.Sprintf("the subject %q is no trusted identity", leaf.Subject))
	}
	if !signature.AcceptedByLeaf(c) {
		return signature.Verdict{Err: signature.ErrInvalid}
	}
	return signature.Verdict{SPKI: leaf.RawSubjectPublicKeyInfo}
}

func refuse(reason string) signature.Verdict {
	return signature.Verdict{Err: fmt.Errorf("%w: %s", signature.ErrInvalid, reason)}
}
