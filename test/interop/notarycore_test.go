// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	core "github.com/notaryproject/notation-core-go/signature"
	_ "github.com/notaryproject/notation-core-go/signature/cose"
	_ "github.com/notaryproject/notation-core-go/signature/jws"
	corex509 "github.com/notaryproject/notation-core-go/x509"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

var envelopes = []struct {
	format    signature.Format
	mediaType string
	parse     func([]byte) (*signature.Envelope, error)
}{
	{signature.Notary, notary.MediaTypeJWS, notary.ParseJWS},
	{signature.NotaryCOSE, notary.MediaTypeCOSE, notary.ParseCOSE},
}

var notaryKeys = []signature.KeyType{
	signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521, signature.RSA2048, signature.RSA3072, signature.RSA4096,
}

// chained is a key with a chain of three.
func chained(t *testing.T, typ signature.KeyType, now time.Time) (*testkey.Key, []*x509.Certificate) {
	t.Helper()
	root, middle, leaf := testkey.New(t, signature.ECDSAP384), testkey.New(t, signature.ECDSAP256), testkey.New(t, typ)
	r := root.Issue(t, testkey.Authority(now, "root"), nil, nil)
	m := middle.Issue(t, testkey.Authority(now, "middle"), root, r)
	return leaf, []*x509.Certificate{leaf.Issue(t, testkey.Leaf(now, "models"), middle, m), m, r}
}

func notarySubject(t *testing.T) signature.Subject {
	t.Helper()
	s, err := signature.SubjectOf("application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion":2}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What we write, the Notary Project's own library reads to the same content.
func TestNotationCoreReadsOurEnvelopes(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	for _, typ := range notaryKeys {
		k, chain := chained(t, typ, now)
		for _, e := range envelopes {
			d, err := notary.Prepare(e.format, notarySubject(t), signature.Claims{SignedAt: now, Expires: now.Add(time.Hour)}, notary.Options{Chain: chain, Agent: "aegis-oci/test"})
			if err != nil {
				t.Fatal(err)
			}
			made, err := signature.Sign(context.Background(), k, d)
			if err != nil {
				t.Fatal(err)
			}
			env, err := core.ParseEnvelope(e.mediaType, made[0].Envelope)
			if err != nil {
				t.Fatalf("%s, %s: %v", typ, e.format, err)
			}
			content, err := env.Verify()
			if err != nil {
				t.Errorf("%s, %s: %v", typ, e.format, err)
				continue
			}
			info := content.SignerInfo
			if !info.SignedAttributes.SigningTime.Equal(now) || !info.SignedAttributes.Expiry.Equal(now.Add(time.Hour)) ||
				info.SignedAttributes.SigningScheme != core.SigningSchemeX509 || info.UnsignedAttributes.SigningAgent != "aegis-oci/test" ||
				len(info.SignedAttributes.ExtendedAttributes) != 0 || len(info.CertificateChain) != 3 ||
				content.Payload.ContentType != notary.PayloadType || !bytes.Contains(content.Payload.Content, []byte(notarySubject(t).Digest())) {
				t.Errorf("%s, %s: %+v", typ, e.format, content)
			}
		}
	}
}

// What the library writes, we read; a critical attribute that we do not know is
// refused, which the library leaves to its caller.
func TestWeReadNotationCoresEnvelopes(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	payload := []byte(`{"targetArtifact":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + notarySubject(t).Digest().String() + `","size":19,"annotations":{"env":"prod"}}}`)
	for _, typ := range notaryKeys {
		k, chain := chained(t, typ, now)
		signer, err := core.NewLocalSigner(chain, k.Private())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range envelopes {
			request := &core.SignRequest{
				Payload: core.Payload{ContentType: notary.PayloadType, Content: payload}, Signer: signer, SigningTime: now,
				Expiry: now.Add(time.Hour), SigningScheme: core.SigningSchemeX509, SigningAgent: "core/1",
			}
			sign := func() []byte {
				env, err := core.NewEnvelope(e.mediaType)
				if err != nil {
					t.Fatal(err)
				}
				raw, err := env.Sign(request)
				if err != nil {
					t.Fatal(err)
				}
				return raw
			}
			ours, err := e.parse(sign())
			if err != nil {
				t.Errorf("%s, %s: %v", typ, e.format, err)
				continue
			}
			got := signature.Open(context.Background(), k.Public(t), []*signature.Envelope{ours})[0]
			if c := got.Statement.Claims; got.Err != nil || got.Statement.Size != 19 || c.Annotations["env"] != "prod" || !c.SignedAt.Equal(now) || !c.Expires.Equal(now.Add(time.Hour)) {
				t.Errorf("%s, %s: %+v", typ, e.format, got)
			}
			request.ExtendedSignedAttributes = []core.Attribute{{Key: "io.cncf.notary.verificationPlugin", Value: "x", Critical: true}}
			var bad *notary.ParseError
			if env, err := e.parse(sign()); !errors.As(err, &bad) || env != nil {
				t.Errorf("%s, %s, a critical attribute: %v, %v", typ, e.format, env, err)
			}
			request.ExtendedSignedAttributes = []core.Attribute{{Key: "note", Value: "x", Critical: false}}
			if _, err := e.parse(sign()); err != nil {
				t.Errorf("%s, %s, another attribute: %v", typ, e.format, err)
			}
			request.ExtendedSignedAttributes, request.SigningScheme = nil, core.SigningSchemeX509SigningAuthority
			if env, err := e.parse(sign()); !errors.As(err, &bad) || env != nil {
				t.Errorf("%s, %s, a signing authority: %v, %v", typ, e.format, env, err)
			}
		}
	}
}

// Our rules for certificates are those of the library, but for what the
// specification bans and the library lets through.
func TestChainsAreJudgedAsNotationCoreDoes(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	with := func(change func(leaf, middle *x509.Certificate)) []*x509.Certificate {
		root, middle, leaf := testkey.New(t, signature.ECDSAP384), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
		lt, mt := testkey.Leaf(now, "models"), testkey.Authority(now, "middle")
		change(lt, mt)
		r := root.Issue(t, testkey.Authority(now, "root"), nil, nil)
		m := middle.Issue(t, mt, root, r)
		return []*x509.Certificate{leaf.Issue(t, lt, middle, m), m, r}
	}
	good := with(func(_, _ *x509.Certificate) {})
	self := testkey.New(t, signature.ECDSAP256)
	for name, c := range map[string]struct {
		chain       []*x509.Certificate
		ours, their bool
	}{
		"good":                 {good, true, true},
		"self-signed leaf":     {[]*x509.Certificate{self.Issue(t, testkey.Leaf(now, "x"), nil, nil)}, true, true},
		"self-signed CA":       {[]*x509.Certificate{self.Issue(t, testkey.Authority(now, "x"), nil, nil)}, false, false},
		"no root":              {good[:2], false, false},
		"swapped":              {[]*x509.Certificate{good[0], good[2], good[1]}, false, false},
		"root twice":           {append(good[:3:3], good[2]), false, false},
		"no usage":             {with(func(l, _ *x509.Certificate) { l.KeyUsage = 0 }), false, false},
		"encipherment":         {with(func(l, _ *x509.Certificate) { l.KeyUsage |= x509.KeyUsageKeyEncipherment }), false, false},
		"content commitment":   {with(func(l, _ *x509.Certificate) { l.KeyUsage |= x509.KeyUsageContentCommitment }), true, true},
		"no extended usage":    {with(func(l, _ *x509.Certificate) { l.ExtKeyUsage = nil }), true, true},
		"for servers":          {with(func(l, _ *x509.Certificate) { l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), false, false},
		"for anything":         {with(func(l, _ *x509.Certificate) { l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), false, true},
		"issuer without usage": {with(func(_, m *x509.Certificate) { m.KeyUsage = x509.KeyUsageCRLSign }), false, false},
	} {
		ours, theirs := notary.CheckChain(c.chain), corex509.ValidateCodeSigningCertChain(c.chain, nil)
		if (ours == nil) != c.ours || (theirs == nil) != c.their {
			t.Errorf("%s: ours %v, theirs %v", name, ours, theirs)
		}
	}
}
