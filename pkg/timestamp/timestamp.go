// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package timestamp has timestamp authorities stamp signatures (RFC 3161, as
// updated by RFC 5816), and verifies their tokens. A token is the one time that
// the key's holder cannot choose.
package timestamp

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/notaryproject/tspclient-go"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Error means that no timestamp could be had or trusted.
type Error struct {
	// URL is the authority's, empty when a token was judged.
	URL string
	Err error
}

func (e *Error) Error() string {
	if e.URL == "" {
		return "timestamp: " + e.Err.Error()
	}
	return "timestamp by " + e.URL + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// attempt bounds one request to an authority.
const attempt = 30 * time.Second

// Authority is a timestamp authority that is asked over HTTP.
type Authority struct {
	url   string
	roots *x509.CertPool
	asker tspclient.Timestamper
}

var _ signature.Timestamper = (*Authority)(nil)

// NewAuthority returns the authority at an http or https URL. Tokens must lead to
// one of roots; nil means the system's. Plain HTTP is what most authorities
// offer: tokens are signed. client may be nil.
func NewAuthority(rawURL string, roots *x509.CertPool, client *http.Client) (*Authority, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return nil, &Error{URL: rawURL, Err: errors.New("not an http or https URL without user")}
	}
	if client == nil {
		client = &http.Client{Timeout: attempt}
	}
	asker, err := tspclient.NewHTTPTimestamper(client, u.String())
	if err != nil {
		return nil, &Error{URL: rawURL, Err: err}
	}
	return &Authority{url: u.String(), roots: roots, asker: asker}, nil
}

// Timestamp has content stamped and verifies the token before it is returned.
// Errors are *Error.
func (a *Authority) Timestamp(ctx context.Context, content []byte, hash crypto.Hash) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, &Error{URL: a.url, Err: err} }
	req, err := tspclient.NewRequest(tspclient.RequestOptions{Content: content, HashAlgorithm: hash})
	if err != nil {
		return fail(err)
	}
	// The answer is held against the request: imprint, nonce, policy.
	resp, err := a.asker.Timestamp(ctx, req)
	if err != nil {
		return fail(err)
	}
	token := resp.TimestampToken.FullBytes
	if _, err := Verify(ctx, signature.Stamp{Token: token, Content: content, Hash: hash}, a.roots); err != nil {
		return fail(err)
	}
	return token, nil
}
