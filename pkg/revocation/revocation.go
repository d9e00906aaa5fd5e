// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package revocation looks up whether certificates are revoked, at the OCSP
// responders (RFC 6960) and in the CRLs (RFC 5280, section 6.3) that they name, as
// the Notary Project demands of code signing certificates: OCSP first, the CRL
// where no responder can tell.
//
// It is stricter than notation in what anybody on the way could use, for both are
// fetched over plain HTTP: a delegated responder's certificate must be one for
// OCSP, or whoever holds any other certificate of the same issuer could vouch for a
// revoked one; and a CRL that says which distribution point it is for must be for
// one that the certificate names, or another part of the issuer's list would pass
// for it.
package revocation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Status is what is known of a certificate.
type Status int

// The statuses.
const (
	// Unknown means that nobody could tell.
	Unknown Status = iota
	Good
	Revoked
	// Unnamed means that the certificate names nobody who could tell, or is a root,
	// which nobody revokes.
	Unnamed
)

// Answer is what is known of one certificate.
type Answer struct {
	Status Status
	// Source is who told, or was to tell last: "OCSP URL" or "CRL URL".
	Source string
	// RevokedAt is set with Revoked.
	RevokedAt time.Time
	// Err is why the status is Unknown.
	Err error
}

const (
	// clockSkew is how far the clock of whoever answers may be from ours.
	clockSkew = 5 * time.Minute
	// The time for one responder, one list, and a whole chain.
	ocspTime  = 5 * time.Second
	crlTime   = 15 * time.Second
	chainTime = 45 * time.Second
	// maxSources bounds the responders, and the lists, of one certificate.
	maxSources = 8
)

// Options of a Checker. The zero value is usable.
type Options struct {
	// Transport makes the requests. Nil means http.DefaultTransport.
	Transport http.RoundTripper
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Checker looks certificates up. What it has learned it keeps: one responder is
// asked once about one certificate, and one list is fetched once.
type Checker struct {
	client *http.Client
	now    func() time.Time

	mu    sync.Mutex
	known map[[sha256.Size]byte]Answer
	lists map[string]*list
}

// New returns a Checker.
func New(o Options) *Checker {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Checker{
		client: &http.Client{
			Transport: o.Transport,
			// Only what the certificate names is asked.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		now:   o.Now,
		known: make(map[[sha256.Size]byte]Answer),
		lists: make(map[string]*list),
	}
}

// Check looks up every certificate of chain, leaf first and root last, and returns
// an answer for each. Its signatures must have been verified: whoever makes up a
// certificate could have anybody asked.
func (c *Checker) Check(ctx context.Context, chain []*x509.Certificate) []Answer {
	ctx, cancel := context.WithTimeout(ctx, chainTime)
	defer cancel()
	answers := make([]Answer, len(chain))
	for i := range chain {
		if i == len(chain)-1 {
			answers[i] = Answer{Status: Unnamed}
			break
		}
		answers[i] = c.one(ctx, chain[i], chain[i+1])
	}
	return answers
}

func (c *Checker) one(ctx context.Context, cert, issuer *x509.Certificate) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := sha256.Sum256(cert.Raw)
	if a, found := c.known[id]; found {
		return a
	}
	a := c.lookUp(ctx, cert, issuer)
	// What could not be told because the caller gave up is no knowledge.
	if ctx.Err() == nil {
		c.known[id] = a
	}
	return a
}

func (c *Checker) lookUp(ctx context.Context, cert, issuer *x509.Certificate) Answer {
	if len(cert.OCSPServer) == 0 && len(cert.CRLDistributionPoints) == 0 {
		return Answer{Status: Unnamed}
	}
	var failed Answer
	if len(cert.OCSPServer) > 0 {
		if failed = c.askResponders(ctx, cert, issuer); failed.Status != Unknown || len(cert.CRLDistributionPoints) == 0 {
			return failed
		}
	}
	a := c.searchLists(ctx, cert, issuer)
	if a.Status == Unknown && failed.Err != nil {
		a.Err = fmt.Errorf("%s: %w; %s: %w", failed.Source, failed.Err, a.Source, a.Err)
		a.Source = ""
	}
	return a
}

var errScheme = errors.New("only plain http is asked: the answer is signed, and TLS would need certificates to be looked up in turn")

// checkURL takes http alone, as RFC 5280 recommends for what certificates name.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case !strings.EqualFold(u.Scheme, "http") || u.Host == "" || u.User != nil:
		return errScheme
	}
	return nil
}

// current holds the time in which an answer is good against the clock.
func current(thisUpdate, nextUpdate, now time.Time) error {
	switch {
	case nextUpdate.IsZero():
		return errors.New("it does not say until when it is good")
	case thisUpdate.After(now.Add(clockSkew)):
		return fmt.Errorf("it is of the future, %s", thisUpdate.UTC().Format(time.RFC3339))
	case now.After(nextUpdate.Add(clockSkew)):
		return fmt.Errorf("it is stale: good until %s", nextUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}
