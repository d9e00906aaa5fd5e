// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
)

// Complete returns chain, leaf first, continued to its root by issuers out of
// store. Where chain is empty the leaf is the certificate in store whose DER
// SubjectPublicKeyInfo is spki. One certificate of the result is in store, so that
// whoever trusts the store accepts it. Errors are *ChainError.
func Complete(chain, store []*x509.Certificate, spki []byte) ([]*x509.Certificate, error) {
	out := slices.Clone(chain)
	if len(out) == 0 {
		i := slices.IndexFunc(store, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubjectPublicKeyInfo, spki) })
		if i < 0 {
			return nil, &ChainError{Reason: "no certificate in the trust store is of the key that signs"}
		}
		out = append(out, store[i])
	}
	for len(out) <= maxChain {
		last := out[len(out)-1]
		if selfSigned(last) {
			break
		}
		next := issuerIn(store, last)
		if next == nil {
			return nil, &ChainError{Index: len(out) - 1, Subject: last.Subject.String(), Reason: fmt.Sprintf("its issuer %s is not in the trust store", last.Issuer)}
		}
		out = append(out, next)
	}
	if !slices.ContainsFunc(out, func(c *x509.Certificate) bool { return slices.ContainsFunc(store, c.Equal) }) {
		root := out[len(out)-1]
		return nil, &ChainError{Index: len(out) - 1, Subject: root.Subject.String(), Reason: "neither it nor any other of the chain is in the trust store"}
	}
	if _, err := checkChain(out); err != nil {
		return nil, err
	}
	return out, nil
}

// issuerIn finds the issuer of c, a root before others: of two ways the shorter one.
func issuerIn(store []*x509.Certificate, c *x509.Certificate) *x509.Certificate {
	var found *x509.Certificate
	for _, s := range store {
		if !bytes.Equal(s.RawSubject, c.RawIssuer) || c.CheckSignatureFrom(s) != nil {
			continue
		}
		if selfSigned(s) {
			return s
		}
		if found == nil {
			found = s
		}
	}
	return found
}
