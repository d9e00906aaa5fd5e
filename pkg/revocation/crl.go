// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxCRL bounds a list, as notation has it: the largest known have half of it.
const maxCRL = 32 << 20

// list is a CRL as it was fetched, or why it could not be.
type list struct {
	crl *x509.RevocationList
	err error
}

// searchLists looks a certificate up in every list that it names: they may be
// parts of one. Names of other schemes stand for the same lists and are passed over
// as long as there is one of http.
func (c *Checker) searchLists(ctx context.Context, cert, issuer *x509.Certificate) Answer {
	var last Answer
	usable := false
	for i, name := range cert.CRLDistributionPoints {
		source := "CRL " + name
		if err := checkURL(name); err != nil {
			if !usable {
				last = Answer{Source: source, Err: err}
			}
			continue
		}
		if i >= maxSources {
			return Answer{Source: source, Err: fmt.Errorf("more than %d lists", maxSources)}
		}
		usable = true
		l := c.list(ctx, name)
		if l.err != nil {
			return Answer{Source: source, Err: l.err}
		}
		a, err := search(l.crl, cert, issuer, c)
		a.Source = source
		if err != nil {
			return Answer{Source: source, Err: err}
		}
		if a.Status == Revoked {
			return a
		}
		last = a
	}
	return last
}

func (c *Checker) list(ctx context.Context, name string) *list {
	if l, found := c.lists[name]; found {
		return l
	}
	fetchCtx, cancel := context.WithTimeout(ctx, crlTime)
	defer cancel()
	l := &list{}
	req, err := http.NewRequestWithContext(fetchCtx, http.MethodGet, name, nil)
	if err == nil {
		var body []byte
		if body, err = c.fetch(req, maxCRL); err == nil {
			l.crl, err = x509.ParseRevocationList(body)
		}
	}
	l.err = err
	if ctx.Err() == nil {
		c.lists[name] = l
	}
	return l
}

var (
	oidDeltaIndicator = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistribution   = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidInvalidityDate = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidReason         = asn1.ObjectIdentifier{2, 5, 29, 21}
)

// search judges a list and looks cert up in it (RFC 5280, section 6.3.3, for
// complete lists by the certificate's own issuer).
func search(crl *x509.RevocationList, cert, issuer *x509.Certificate, c *Checker) (Answer, error) {
	if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
		return Answer{}, errors.New("it is of another issuer")
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		return Answer{}, fmt.Errorf("it is not signed by the issuer: %v", err)
	}
	if err := current(crl.ThisUpdate, crl.NextUpdate, c.now()); err != nil {
		return Answer{}, err
	}
	for _, ext := range crl.Extensions {
		switch {
		case ext.Id.Equal(oidDeltaIndicator):
			return Answer{}, errors.New("it has changes to another list alone")
		case ext.Id.Equal(oidDistribution):
			if err := covers(ext.Value, cert); err != nil {
				return Answer{}, err
			}
		case ext.Critical:
			return Answer{}, fmt.Errorf("its critical extension %v is not understood", ext.Id)
		}
	}
	for _, e := range crl.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(cert.SerialNumber) != 0 {
			continue
		}
		for _, ext := range e.Extensions {
			if ext.Critical && !ext.Id.Equal(oidInvalidityDate) && !ext.Id.Equal(oidReason) {
				return Answer{}, fmt.Errorf("the critical extension %v of the certificate's entry is not understood", ext.Id)
			}
		}
		// Also a certificate on hold, and whatever the reason is: here a signature
		// counts or does not.
		return Answer{Status: Revoked, RevokedAt: e.RevocationTime}, nil
	}
	return Answer{Status: Good}, nil
}

// covers reads an issuing distribution point and says why a list with it does not
// cover cert.
//
//	IssuingDistributionPoint ::= SEQUENCE {
//	     distributionPoint          [0] DistributionPointName OPTIONAL,
//	     onlyContainsUserCerts      [1] BOOLEAN DEFAULT FALSE,
//	     onlyContainsCACerts        [2] BOOLEAN DEFAULT FALSE,
//	     onlySomeReasons            [3] ReasonFlags OPTIONAL,
//	     indirectCRL                [4] BOOLEAN DEFAULT FALSE,
//	     onlyContainsAttributeCerts [5] BOOLEAN DEFAULT FALSE }
func covers(value []byte, cert *x509.Certificate) error {
	bad := errors.New("its distribution point cannot be read")
	var point, name cryptobyte.String
	var named bool
	in := cryptobyte.String(value)
	if !in.ReadASN1(&point, cryptobyteasn1.SEQUENCE) || !in.Empty() ||
		!point.ReadOptionalASN1(&name, &named, contextTag(0).Constructed()) {
		return bad
	}
	if named {
		ok, err := names(name, cert.CRLDistributionPoints)
		if err != nil {
			return bad
		}
		if !ok {
			return errors.New("it is for another distribution point than the certificate names")
		}
	}
	for _, flag := range []struct {
		tag   uint8
		wrong bool
		what  string
	}{
		{1, cert.IsCA, "it is for certificates of users alone"},
		{2, !cert.IsCA, "it is for certificates of authorities alone"},
		{3, true, "it is for some reasons alone"},
		{4, true, "it is for several issuers"},
		{5, true, "it is for attribute certificates alone"},
	} {
		var content cryptobyte.String
		var present bool
		if !point.ReadOptionalASN1(&content, &present, contextTag(flag.tag)) {
			return bad
		}
		off := flag.tag != 3 && bytes.Equal(content, []byte{0})
		if present && !off && flag.wrong {
			return errors.New(flag.what)
		}
	}
	if !point.Empty() {
		return bad
	}
	return nil
}

func contextTag(n uint8) cryptobyteasn1.Tag { return cryptobyteasn1.Tag(n).ContextSpecific() }

// names reports whether one of the full names of a distribution point is among
// those of the certificate. A name relative to the issuer is none of them.
func names(point cryptobyte.String, wanted []string) (bool, error) {
	bad := errors.New("malformed")
	var full cryptobyte.String
	var present bool
	if !point.ReadOptionalASN1(&full, &present, contextTag(0).Constructed()) {
		return false, bad
	}
	found := false
	for present && !full.Empty() {
		var one cryptobyte.String
		var tag cryptobyteasn1.Tag
		if !full.ReadAnyASN1(&one, &tag) {
			return false, bad
		}
		if tag == contextTag(6) && slices.Contains(wanted, string(one)) {
			found = true
		}
	}
	return found, nil
}
