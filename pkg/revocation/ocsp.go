// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"golang.org/x/crypto/ocsp"
)

// maxOCSP bounds an answer: real ones have a few kilobytes, certificate included.
const maxOCSP = 64 << 10

// askResponders returns the first answer that holds. Unknown carries the last
// failure.
func (c *Checker) askResponders(ctx context.Context, cert, issuer *x509.Certificate) Answer {
	var last Answer
	for i, server := range cert.OCSPServer {
		if i == maxSources {
			break
		}
		last = Answer{Source: "OCSP " + server}
		body, err := c.ask(ctx, server, cert, issuer)
		if err != nil {
			last.Err = err
			continue
		}
		a, err := readOCSP(body, cert, issuer, c)
		if err != nil {
			last.Err = err
			continue
		}
		a.Source = last.Source
		return a
	}
	return last
}

func (c *Checker) ask(ctx context.Context, server string, cert, issuer *x509.Certificate) ([]byte, error) {
	if err := checkURL(server); err != nil {
		return nil, err
	}
	// SHA-1 names the issuer here and protects nothing; many responders know no
	// other.
	query, err := ocsp.CreateRequest(cert, issuer, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ocspTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	return c.fetch(req, maxOCSP)
}

// fetch reads at most limit bytes.
func (c *Checker) fetch(req *http.Request, limit int64) ([]byte, error) {
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to the end or given up
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return body, nil
}

// readOCSP judges an answer about cert: signed by its issuer, or by a responder
// that the issuer has certified for that alone, and neither stale nor of the
// future. An answer that the status is not known is an error.
func readOCSP(body []byte, cert, issuer *x509.Certificate, c *Checker) (Answer, error) {
	now := c.now()
	// The library verifies the signature, and that the issuer has signed the
	// responder's certificate. It does not look at that certificate's purpose.
	r, err := ocsp.ParseResponseForCert(body, cert, issuer)
	if err != nil {
		return Answer{}, err
	}
	if r.SerialNumber == nil || r.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		return Answer{}, errors.New("it is about another certificate")
	}
	if d := r.Certificate; d != nil && !d.Equal(issuer) {
		switch {
		case !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return Answer{}, fmt.Errorf("it is signed by %q, whose certificate is not for OCSP", d.Subject)
		case !bytes.Equal(d.RawIssuer, issuer.RawSubject):
			return Answer{}, fmt.Errorf("it is signed by %q, of another issuer", d.Subject)
		case now.Add(clockSkew).Before(d.NotBefore), now.Add(-clockSkew).After(d.NotAfter):
			return Answer{}, fmt.Errorf("it is signed by %q, whose certificate is not valid now", d.Subject)
		}
	}
	if err := current(r.ThisUpdate, r.NextUpdate, now); err != nil {
		return Answer{}, err
	}
	switch r.Status {
	case ocsp.Good:
		return Answer{Status: Good}, nil
	case ocsp.Revoked:
		return Answer{Status: Revoked, RevokedAt: r.RevokedAt}, nil
	}
	return Answer{}, errors.New("the responder does not know the certificate")
}
