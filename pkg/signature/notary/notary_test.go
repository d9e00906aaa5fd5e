// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

var (
	now   = time.Now().UTC().Truncate(time.Second)
	forms = []struct {
		format signature.Format
		parse  func([]byte) (*signature.Envelope, error)
	}{{signature.Notary, notary.ParseJWS}, {signature.NotaryCOSE, notary.ParseCOSE}}
	notaryTypes = []signature.KeyType{
		signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521,
		signature.RSA2048, signature.RSA3072, signature.RSA4096,
	}
)

func subject(t testing.TB) signature.Subject {
	t.Helper()
	s, err := signature.SubjectOf("application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion":2}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func claims() signature.Claims {
	return signature.Claims{
		SignedAt: now, Expires: now.Add(time.Hour), Repository: "registry.example.com/models/vad", Tag: "v1",
		Builder: map[string]string{"ref": "refs/heads/main"}, Annotations: map[string]string{"env": "prod"},
	}
}

// sign makes an envelope with k.
func sign(t testing.TB, f signature.Format, k signature.Signer, c signature.Claims, o notary.Options) signature.Attachment {
	t.Helper()
	d, err := notary.Prepare(f, subject(t), c, o)
	if err != nil {
		t.Fatal(err)
	}
	made, err := signature.Sign(context.Background(), k, d)
	if err != nil {
		t.Fatal(err)
	}
	return made[0]
}

func open(t testing.TB, k signature.Key, env *signature.Envelope) signature.Opened {
	t.Helper()
	return signature.Open(context.Background(), k, []*signature.Envelope{env})[0]
}

func TestRoundTripForEveryKeyType(t *testing.T) {
	t.Parallel()
	for _, typ := range notaryTypes {
		k, stranger := testkey.New(t, typ), testkey.New(t, typ)
		chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
		for _, form := range forms {
			t.Run(string(typ)+" "+string(form.format), func(t *testing.T) {
				t.Parallel()
				a := sign(t, form.format, k, claims(), notary.Options{Chain: chain, Agent: "test/1"})
				env, err := form.parse(a.Envelope)
				if err != nil {
					t.Fatal(err)
				}
				got := open(t, k.Public(t), env)
				if got.Err != nil {
					t.Fatal(got.Err)
				}
				st, s := got.Statement, subject(t)
				if st.Digest != s.Digest() || st.Size != s.Size() || st.MediaType != s.MediaType() {
					t.Errorf("statement %+v", st)
				}
				if c := st.Claims; !c.SignedAt.Equal(now) || !c.Expires.Equal(now.Add(time.Hour)) || c.Repository != claims().Repository ||
					c.Tag != "v1" || c.Builder["ref"] != "refs/heads/main" || len(c.Annotations) != 1 || c.Annotations["env"] != "prod" {
					t.Errorf("claims %+v", c)
				}
				if !st.ValidUntil.Equal(chain[0].NotAfter) || !st.ValidFrom.Equal(chain[0].NotBefore) {
					t.Errorf("valid from %s to %s", st.ValidFrom, st.ValidUntil)
				}
				if got := open(t, stranger.Public(t), env); !errors.Is(got.Err, signature.ErrInvalid) || !got.Statement.Claims.SignedAt.IsZero() {
					t.Errorf("a stranger's key: %+v", got)
				}
			})
		}
	}
}

func TestSignRefusesTheCertificateOfAnotherKey(t *testing.T) {
	t.Parallel()
	k, other := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	for _, form := range forms {
		d, err := notary.Prepare(form.format, subject(t), claims(), notary.Options{Chain: []*x509.Certificate{other.Issue(t, testkey.Leaf(now, "other"), nil, nil)}})
		if err != nil {
			t.Fatal(err)
		}
		made, err := signature.Sign(context.Background(), k, d)
		var bad *notary.ChainError
		if !errors.As(err, &bad) || made != nil {
			t.Errorf("%s: %v, %v, want a ChainError", form.format, made, err)
		}
	}
}

func TestPrepareRefusesClaimsWithoutAPlace(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	for name, change := range map[string]func(*signature.Claims){
		"no signing time":         func(c *signature.Claims) { c.SignedAt = time.Time{} },
		"expires before":          func(c *signature.Claims) { c.Expires = c.SignedAt },
		"a name of Notary's":      func(c *signature.Claims) { c.Annotations = map[string]string{"io.cncf.notary.x": "y"} },
		"a name of our own":       func(c *signature.Claims) { c.Annotations = map[string]string{signature.ClaimPrefix + "tag": "y"} },
		"a time as an annotation": func(c *signature.Claims) { c.Annotations = map[string]string{signature.ClaimPrefix + "expires": "y"} },
	} {
		c := claims()
		change(&c)
		for _, form := range forms {
			var bad *signature.ClaimError
			if _, err := notary.Prepare(form.format, subject(t), c, notary.Options{Chain: chain}); !errors.As(err, &bad) {
				t.Errorf("%s, %s: %v, want a ClaimError", name, form.format, err)
			}
		}
	}
}

func TestKeyAloneDoesNotCountUnderAnotherCertificate(t *testing.T) {
	t.Parallel()
	k, other := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	mine := k.Issue(t, testkey.Leaf(now, "models"), nil, nil)
	theirs := other.Issue(t, testkey.Leaf(now, "models"), nil, nil)
	for _, form := range forms {
		a := sign(t, form.format, k, claims(), notary.Options{Chain: []*x509.Certificate{mine}})
		swapped, err := form.parse(swapCertificate(t, form.format, a.Envelope, mine, theirs))
		if err != nil {
			t.Fatal(err)
		}
		if got := open(t, k.Public(t), swapped); !errors.Is(got.Err, signature.ErrInvalid) {
			t.Errorf("%s: %+v, want ErrInvalid", form.format, got)
		}
		env, err := form.parse(a.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		if env.Same(swapped) {
			t.Errorf("%s: an envelope with another certificate passes for a copy", form.format)
		}
	}
}

// swapCertificate writes the envelope again with another certificate.
func swapCertificate(t *testing.T, f signature.Format, envelope []byte, old, new *x509.Certificate) []byte {
	t.Helper()
	a, b := encodings(t, f, old), encodings(t, f, new)
	out := bytes.Replace(envelope, a, b, 1)
	if bytes.Equal(out, envelope) {
		t.Fatal("the certificate was not found")
	}
	return out
}
