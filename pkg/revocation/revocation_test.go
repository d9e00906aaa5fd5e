// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package revocation_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testrevocation"
	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// pki is an issuer whose certificates can be looked up at srv.
type pki struct {
	key  *testkey.Key
	root *x509.Certificate
	srv  *testrevocation.Server
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{key: testkey.New(t, signature.ECDSAP256)}
	p.root = p.key.Issue(t, testkey.Authority(time.Now(), "root"), nil, nil)
	p.srv = testrevocation.Start(t, p.root, p.key.Private())
	return p
}

// leaf issues a certificate and returns its chain.
func (p *pki) leaf(t testing.TB, edit func(*x509.Certificate)) []*x509.Certificate {
	t.Helper()
	template := testkey.Leaf(time.Now(), "signer")
	edit(template)
	return []*x509.Certificate{testkey.New(t, signature.ECDSAP256).Issue(t, template, p.key, p.root), p.root}
}

func (p *pki) byOCSP(c *x509.Certificate) { c.OCSPServer = []string{p.srv.URL + "/ocsp"} }
func (p *pki) byCRL(c *x509.Certificate)  { c.CRLDistributionPoints = []string{p.srv.URL + "/crl"} }

func check(t testing.TB, chain []*x509.Certificate) revocation.Answer {
	t.Helper()
	answers := revocation.New(revocation.Options{}).Check(t.Context(), chain)
	if len(answers) != len(chain) || answers[len(chain)-1].Status != revocation.Unnamed {
		t.Fatalf("%d answers %+v", len(answers), answers)
	}
	return answers[0]
}

func TestGoodAndRevoked(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	for name, edit := range map[string]func(*x509.Certificate){"OCSP": p.byOCSP, "CRL": p.byCRL} {
		chain := p.leaf(t, edit)
		if a := check(t, chain); a.Status != revocation.Good || !strings.HasPrefix(a.Source, name+" http://127.0.0.1") {
			t.Errorf("%s: %+v", name, a)
		}
		p.srv.Revoke(chain[0].SerialNumber)
		if a := check(t, chain); a.Status != revocation.Revoked || a.RevokedAt.IsZero() || a.Err != nil {
			t.Errorf("%s, revoked: %+v", name, a)
		}
	}
	if a := check(t, p.leaf(t, func(*x509.Certificate) {})); a.Status != revocation.Unnamed || a.Err != nil {
		t.Errorf("names nobody: %+v", a)
	}
	// An intermediate is looked up at its own issuer.
	mid := testkey.New(t, signature.ECDSAP256)
	template := testkey.Authority(time.Now(), "intermediate")
	p.byCRL(template)
	authority := mid.Issue(t, template, p.key, p.root)
	leaf := testkey.New(t, signature.ECDSAP256).Issue(t, testkey.Leaf(time.Now(), "signer"), mid, authority)
	chain := []*x509.Certificate{leaf, authority, p.root}
	p.srv.Revoke(authority.SerialNumber)
	if a := revocation.New(revocation.Options{}).Check(t.Context(), chain); a[0].Status != revocation.Unnamed || a[1].Status != revocation.Revoked {
		t.Errorf("a revoked intermediate: %+v", a)
	}
}

// The CRL is asked where the responder cannot tell, and only there.
func TestFallsBackToTheList(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	chain := p.leaf(t, func(c *x509.Certificate) { p.byOCSP(c); p.byCRL(c) })
	if a := check(t, chain); a.Status != revocation.Good || p.srv.CRL.Load() != 0 {
		t.Fatalf("%+v, %d lists", a, p.srv.CRL.Load())
	}
	p.srv.Status = ocsp.Unknown
	if a := check(t, chain); a.Status != revocation.Good || !strings.HasPrefix(a.Source, "CRL ") {
		t.Errorf("a responder that does not know: %+v", a)
	}
	p.srv.This, p.srv.Next = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
	a := check(t, chain)
	if a.Status != revocation.Unknown || a.Err == nil || strings.Count(a.Err.Error(), "stale") != 2 {
		t.Errorf("both stale: %+v", a)
	}
}

// What anybody on the way, or another holder of a certificate, could answer.
func TestAnswersThatDoNotHold(t *testing.T) {
	t.Parallel()
	stranger := testkey.New(t, signature.ECDSAP256)
	other := stranger.Issue(t, testkey.Authority(time.Now(), "root"), nil, nil)
	// delegated is a responder's certificate by the issuer, for a purpose.
	delegated := func(t *testing.T, p *pki, edit func(*x509.Certificate)) {
		k := testkey.New(t, signature.ECDSAP256)
		template := testkey.Leaf(time.Now(), "responder")
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		edit(template)
		p.srv.Responder, p.srv.ResponderKey = k.Issue(t, template, p.key, p.root), k.Private()
	}
	ocspOnly := func(p *pki) func(*x509.Certificate) { return p.byOCSP }
	crlOnly := func(p *pki) func(*x509.Certificate) { return p.byCRL }
	for name, row := range map[string]struct {
		by     func(*pki) func(*x509.Certificate)
		spoil  func(*testing.T, *pki)
		reason string
	}{
		"OCSP, stale": {ocspOnly, func(_ *testing.T, p *pki) {
			p.srv.This, p.srv.Next = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
		}, "stale"},
		"OCSP, of the future": {ocspOnly, func(_ *testing.T, p *pki) { p.srv.This = time.Now().Add(30 * time.Minute) }, "of the future"},
		"OCSP, unknown":       {ocspOnly, func(_ *testing.T, p *pki) { p.srv.Status = ocsp.Unknown }, "does not know"},
		"OCSP, another signs": {ocspOnly, func(_ *testing.T, p *pki) { p.srv.Key = stranger.Private() }, "signature"},
		"OCSP, another's delegate": {ocspOnly, func(t *testing.T, p *pki) {
			k := testkey.New(t, signature.ECDSAP256)
			template := testkey.Leaf(time.Now(), "responder")
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			p.srv.Responder, p.srv.ResponderKey = k.Issue(t, template, stranger, other), k.Private()
		}, "signature"},
		"OCSP, a signer vouches for itself": {ocspOnly, func(t *testing.T, p *pki) {
			delegated(t, p, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })
		}, "not for OCSP"},
		"OCSP, the delegate has expired": {ocspOnly, func(t *testing.T, p *pki) {
			delegated(t, p, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
			})
		}, "not valid now"},
		"CRL, stale": {crlOnly, func(_ *testing.T, p *pki) {
			p.srv.This, p.srv.Next = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
		}, "stale"},
		"CRL, of the future": {crlOnly, func(_ *testing.T, p *pki) { p.srv.This = time.Now().Add(30 * time.Minute) }, "of the future"},
		"CRL, another signs": {crlOnly, func(_ *testing.T, p *pki) { p.srv.Issuer, p.srv.Key = other, stranger.Private() }, "not signed by the issuer"},
		"CRL, of changes alone": {crlOnly, func(t *testing.T, p *pki) {
			p.srv.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: der(t, 1)}}
		}, "changes to another list"},
		"CRL, of another point": {crlOnly, func(t *testing.T, p *pki) { p.srv.Extensions = []pkix.Extension{point(t, p.srv.URL+"/other", 0)} },
			"another distribution point"},
		"CRL, of authorities":     {crlOnly, func(t *testing.T, p *pki) { p.srv.Extensions = []pkix.Extension{point(t, "", 2)} }, "of authorities alone"},
		"CRL, of several issuers": {crlOnly, func(t *testing.T, p *pki) { p.srv.Extensions = []pkix.Extension{point(t, "", 4)} }, "several issuers"},
		"CRL, critically different": {crlOnly, func(t *testing.T, p *pki) {
			p.srv.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: der(t, 1)}}
		}, "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			chain := p.leaf(t, row.by(p))
			if a := check(t, chain); a.Status != revocation.Good {
				t.Fatalf("as it should be: %+v", a)
			}
			row.spoil(t, p)
			if a := check(t, chain); a.Status != revocation.Unknown || a.Err == nil || !strings.Contains(a.Err.Error(), row.reason) {
				t.Errorf("%+v, want a reason with %q", a, row.reason)
			}
		})
	}
	// A responder that the issuer has certified for it may answer.
	p := newPKI(t)
	delegated(t, p, func(*x509.Certificate) {})
	chain := p.leaf(t, p.byOCSP)
	if a := check(t, chain); a.Status != revocation.Good {
		t.Errorf("a delegate: %+v", a)
	}
	// And the list of the very point, and of users alone.
	p.srv.Extensions = []pkix.Extension{point(t, p.srv.URL+"/crl", 1)}
	if a := check(t, p.leaf(t, p.byCRL)); a.Status != revocation.Good {
		t.Errorf("a list of the point: %+v", a)
	}
}

func der(t testing.TB, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// point is an issuing distribution point with a name and one flag.
func point(t testing.TB, name string, flag int) pkix.Extension {
	t.Helper()
	tagged := func(n int, compound bool, content []byte) []byte {
		return der(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: n, IsCompound: compound, Bytes: content})
	}
	var content []byte
	if name != "" {
		content = tagged(0, true, tagged(0, true, tagged(6, false, []byte(name))))
	}
	if flag != 0 {
		content = append(content, tagged(flag, false, []byte{0xff})...)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: der(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})}
}

func TestWhoCannotBeAsked(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// Who leaves is noticed only when the question has been read.
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close)
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 33 << 4 { // 33 MiB
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(huge.Close)
	asked := 0
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, p.srv.URL+"/crl", http.StatusFound)
	}))
	t.Cleanup(moved.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, row := range map[string]struct {
		edit   func(*x509.Certificate)
		reason string
	}{
		"a responder that is gone":   {func(c *x509.Certificate) { c.OCSPServer = []string{gone.URL} }, "refused"},
		"a list that is gone":        {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{gone.URL} }, "refused"},
		"no responder there":         {func(c *x509.Certificate) { c.OCSPServer = []string{p.srv.URL + "/none"} }, "404"},
		"a responder without end":    {func(c *x509.Certificate) { c.OCSPServer = []string{huge.URL} }, "more than 65536 bytes"},
		"a list without end":         {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{huge.URL} }, "more than 33554432 bytes"},
		"a list that is elsewhere":   {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{moved.URL} }, "status 302"},
		"a responder that is silent": {func(c *x509.Certificate) { c.OCSPServer = []string{silent.URL} }, "deadline"},
		"TLS":                        {func(c *x509.Certificate) { c.OCSPServer = []string{"https://127.0.0.1/"} }, "only plain http"},
		"a file":                     {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"file:///etc/passwd"} }, "only plain http"},
		"a directory service":        {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"ldap:///CN=x"} }, "only plain http"},
		"one list of two":            {func(c *x509.Certificate) { c.CRLDistributionPoints = []string{p.srv.URL + "/crl", gone.URL} }, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if a := check(t, p.leaf(t, row.edit)); a.Status != revocation.Unknown || a.Err == nil || !strings.Contains(a.Err.Error(), row.reason) {
				t.Errorf("%+v, want a reason with %q", a, row.reason)
			}
		})
	}
	t.Run("the second responder", func(t *testing.T) {
		t.Parallel()
		a := check(t, p.leaf(t, func(c *x509.Certificate) { c.OCSPServer = []string{gone.URL, p.srv.URL + "/ocsp"} }))
		if a.Status != revocation.Good {
			t.Errorf("%+v", a)
		}
	})
	t.Run("a directory service beside http", func(t *testing.T) {
		t.Parallel()
		a := check(t, p.leaf(t, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"ldap:///CN=x", p.srv.URL + "/crl"} }))
		if a.Status != revocation.Good {
			t.Errorf("%+v", a)
		}
	})
}

// A Checker asks once; what it could not ask because its caller gave up it does not
// keep.
func TestAsksOnce(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	chain, listed := p.leaf(t, p.byOCSP), p.leaf(t, p.byCRL)
	c := revocation.New(revocation.Options{})
	gaveUp, cancel := context.WithCancel(t.Context())
	cancel()
	if a := c.Check(gaveUp, chain)[0]; a.Status != revocation.Unknown || !errors.Is(a.Err, context.Canceled) {
		t.Errorf("given up: %+v", a)
	}
	for range 3 {
		if a := c.Check(t.Context(), chain)[0]; a.Status != revocation.Good {
			t.Errorf("%+v", a)
		}
		if a := c.Check(t.Context(), listed)[0]; a.Status != revocation.Good {
			t.Errorf("%+v", a)
		}
	}
	if a := c.Check(t.Context(), p.leaf(t, p.byCRL))[0]; a.Status != revocation.Good || p.srv.OCSP.Load() != 1 || p.srv.CRL.Load() != 1 {
		t.Errorf("%+v after %d questions and %d lists", a, p.srv.OCSP.Load(), p.srv.CRL.Load())
	}
	// The same certificate later: its answer has grown stale.
	later := revocation.New(revocation.Options{Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	if a := later.Check(t.Context(), chain)[0]; a.Status != revocation.Unknown || !strings.Contains(a.Err.Error(), "stale") {
		t.Errorf("later: %+v", a)
	}
}
