// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Probe is what a registry's base endpoint tells of the way to it.
type Probe struct {
	// URL is what was asked.
	URL string
	// TLS is the protocol's version, "" for plain HTTP.
	TLS string
	// Expires is when the server's certificate does, zero without TLS.
	Expires time.Time
	// Date is the registry's clock, zero when it does not say.
	Date time.Time
}

// Probe asks the registry for its base endpoint, with the credentials that are
// known for the repository. Errors are *Error or *ConfigError; one of Kind
// Unauthorized comes from a registry that can be reached.
func (r *Repository) Probe(ctx context.Context) (Probe, error) {
	at := r.path("/v2/")
	p := Probe{URL: at.String()}
	got, err := r.do(ctx, call{
		op: "probe", about: r.ref.Registry, method: http.MethodGet, url: at,
		accept: []int{http.StatusOK}, noScope: true,
	})
	if err != nil {
		return p, err
	}
	if got.tls != nil {
		p.TLS = tls.VersionName(got.tls.Version)
		if len(got.tls.PeerCertificates) > 0 {
			p.Expires = got.tls.PeerCertificates[0].NotAfter
		}
	}
	if t, err := http.ParseTime(got.header.Get("Date")); err == nil {
		p.Date = t
	}
	return p, nil
}

// HasCredential reports whether anything knows a credential for the repository.
// It does not say that the registry takes it.
func (r *Repository) HasCredential(ctx context.Context) (bool, error) {
	cred, err := r.client.credentials.find(ctx, r.ref.Registry, r.ref.Repository)
	return cred != auth.EmptyCredential, err
}
