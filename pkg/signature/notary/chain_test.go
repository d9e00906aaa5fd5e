// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// pki is a root, an intermediate and a leaf.
type pki struct {
	root, middle, leaf *testkey.Key
	chain              []*x509.Certificate // leaf first
}

// newPKI changes the templates before they are issued; a nil change leaves them.
func newPKI(t *testing.T, leaf, middle func(*x509.Certificate)) pki {
	t.Helper()
	p := pki{root: testkey.New(t, signature.ECDSAP384), middle: testkey.New(t, signature.ECDSAP256), leaf: testkey.New(t, signature.ECDSAP256)}
	rootTemplate, middleTemplate, leafTemplate := testkey.Authority(now, "root"), testkey.Authority(now, "middle"), testkey.Leaf(now, "models")
	if middle != nil {
		middle(middleTemplate)
	}
	if leaf != nil {
		leaf(leafTemplate)
	}
	root := p.root.Issue(t, rootTemplate, nil, nil)
	mid := p.middle.Issue(t, middleTemplate, p.root, root)
	p.chain = []*x509.Certificate{p.leaf.Issue(t, leafTemplate, p.middle, mid), mid, root}
	return p
}

func TestCheckChain(t *testing.T) {
	t.Parallel()
	good, other := newPKI(t, nil, nil), newPKI(t, nil, nil)
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	extended := func(u x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	changed := func(leaf, middle func(*x509.Certificate)) []*x509.Certificate { return newPKI(t, leaf, middle).chain }
	loose, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
	if err != nil {
		t.Fatal(err)
	}
	ed := testkey.New(t, signature.Ed25519)
	for name, c := range map[string]struct {
		chain  []*x509.Certificate
		reason string // empty: accepted
	}{
		"good":                       {good.chain, ""},
		"no extended usage":          {changed(func(c *x509.Certificate) { c.ExtKeyUsage = nil }, nil), ""},
		"content commitment as well": {changed(usage(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment), nil), ""},
		"self-signed leaf":           {[]*x509.Certificate{good.leaf.Issue(t, testkey.Leaf(now, "x"), nil, nil)}, ""},
		"none":                       {nil, "there is none"},
		"no root":                    {good.chain[:2], "end with its root"},
		"leaf alone":                 {good.chain[:1], "end with its root"},
		"root first":                 {[]*x509.Certificate{good.chain[2], good.chain[1], good.chain[0]}, "authority's"},
		"intermediates swapped":      {[]*x509.Certificate{good.chain[0], good.chain[2], good.chain[1]}, "not issued by the next"},
		"intermediate missing":       {[]*x509.Certificate{good.chain[0], good.chain[2]}, "not issued by the next"},
		"intermediate of another":    {[]*x509.Certificate{good.chain[0], other.chain[1], other.chain[2]}, "not issued by the next"},
		"root twice":                 {append(append([]*x509.Certificate{}, good.chain...), good.chain[2]), "self-signed and not the last"},
		"leaf is an authority":       {[]*x509.Certificate{good.root.Issue(t, testkey.Authority(now, "ca"), nil, nil)}, "authority's"},
		"no key usage":               {changed(usage(0), nil), "missing or not critical"},
		"key encipherment":           {changed(usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment), nil), "alone"},
		"signs certificates":         {changed(usage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign), nil), "alone"},
		"for TLS servers":            {changed(extended(x509.ExtKeyUsageServerAuth), nil), "another purpose"},
		"for TLS clients":            {changed(extended(x509.ExtKeyUsageClientAuth), nil), "another purpose"},
		"for mail":                   {changed(extended(x509.ExtKeyUsageEmailProtection), nil), "another purpose"},
		"for stamping":               {changed(extended(x509.ExtKeyUsageTimeStamping), nil), "another purpose"},
		"for anything":               {changed(extended(x509.ExtKeyUsageAny), nil), "another purpose"},
		"usage not critical": {changed(func(c *x509.Certificate) {
			c.KeyUsage, c.ExtraExtensions = 0, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: loose}}
		}, nil), "not critical"},
		"issuer without usage":         {changed(nil, usage(x509.KeyUsageCRLSign)), "does not sign certificates"},
		"issuer is no authority":       {changed(nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }), "no authority's"},
		"a key that has no row":        {[]*x509.Certificate{ed.Issue(t, testkey.Leaf(now, "ed"), nil, nil)}, "its key is neither"},
		"longer than anybody's chains": {make([]*x509.Certificate, 11), "more than"},
	} {
		err := notary.CheckChain(c.chain)
		var bad *notary.ChainError
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.reason != "" && (!errors.As(err, &bad) || !strings.Contains(bad.Reason, c.reason)):
			t.Errorf("%s: %v, want a ChainError about %q", name, err, c.reason)
		}
	}
}

func TestPathLengthIsHeld(t *testing.T) {
	t.Parallel()
	root, a, b, leaf := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	template := testkey.Authority(now, "root")
	template.MaxPathLen = 1
	r := root.Issue(t, template, nil, nil)
	ca := a.Issue(t, testkey.Authority(now, "a"), root, r)
	cb := b.Issue(t, testkey.Authority(now, "b"), a, ca)
	var bad *notary.ChainError
	err := notary.CheckChain([]*x509.Certificate{leaf.Issue(t, testkey.Leaf(now, "l"), b, cb), cb, ca, r})
	if !errors.As(err, &bad) || bad.Index != 3 || !strings.Contains(bad.Reason, "path length") {
		t.Errorf("= %v", err)
	}
}

func TestPrepareRefusesCertificatesOutOfTime(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	for _, at := range []time.Time{chain[0].NotBefore.Add(-time.Second), chain[0].NotAfter.Add(time.Second)} {
		var bad *notary.ChainError
		if d, err := notary.Prepare(signature.Notary, subject(t), signature.Claims{SignedAt: at}, notary.Options{Chain: chain}); !errors.As(err, &bad) || d != nil {
			t.Errorf("at %s: %v, %v", at, d, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	t.Parallel()
	p, stranger := newPKI(t, nil, nil), newPKI(t, nil, nil)
	acme := []string{"x509.subject: C=US, ST=WA, O=Acme"}
	for name, c := range map[string]struct {
		trusted    *x509.Certificate
		identities []string
		accepts    bool
	}{
		"the root":               {p.chain[2], acme, true},
		"the intermediate":       {p.chain[1], acme, true},
		"with the common name":   {p.chain[2], []string{"x509.subject: CN=models, O=Acme, S=WA, C=US"}, true},
		"everybody":              {p.chain[2], []string{"*"}, true},
		"the second identity":    {p.chain[2], []string{"x509.subject: C=US, ST=WA, O=Other", acme[0]}, true},
		"another root":           {stranger.chain[2], acme, false},
		"another organisation":   {p.chain[2], []string{"x509.subject: C=US, ST=WA, O=Acm"}, false},
		"another common name":    {p.chain[2], []string{"x509.subject: C=US, ST=WA, O=Acme, CN=model"}, false},
		"more than the leaf has": {p.chain[2], []string{"x509.subject: C=US, ST=WA, O=Acme, OU=ML"}, false},
	} {
		a, err := notary.NewAuthority("pki", testkey.CertificatePEM(c.trusted), c.identities)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, form := range forms {
			made := sign(t, form.format, p.leaf, claims(), notary.Options{Chain: p.chain})
			env, err := form.parse(made.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			got := open(t, a, env)
			if c.accepts && (got.Err != nil || got.Statement.Digest != subject(t).Digest()) {
				t.Errorf("%s, %s: %v", name, form.format, got.Err)
			}
			if !c.accepts && !errors.Is(got.Err, signature.ErrInvalid) {
				t.Errorf("%s, %s: %+v, want ErrInvalid", name, form.format, got)
			}
		}
	}
}

// A trusted certificate in the chain is worth nothing when the leaf's key did not
// sign, or is none of the chain's.
func TestAuthorityWantsTheLeafsSignature(t *testing.T) {
	t.Parallel()
	p, thief := newPKI(t, nil, nil), testkey.New(t, signature.ECDSAP256)
	a, err := notary.NewAuthority("pki", testkey.CertificatePEM(p.chain[2]), []string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	prims, err := thief.Sign(t.Context(), []signature.Message{{Format: signature.Notary, Bytes: []byte("m")}})
	if err != nil {
		t.Fatal(err)
	}
	forged := p.leaf.Issue(t, testkey.Leaf(now, "models"), thief, thief.Issue(t, testkey.Authority(now, "middle"), nil, nil))
	for name, check := range map[string]signature.Check{
		"signed by another": {Format: signature.Notary, Message: []byte("m"), Signature: prims[0].Signature, Chain: p.chain},
		"a forged leaf":     {Format: signature.Notary, Message: []byte("m"), Signature: prims[0].Signature, Chain: append([]*x509.Certificate{forged}, p.chain[1:]...)},
		"no chain":          {Format: signature.Sigstore, Message: []byte("m"), Signature: prims[0].Signature},
	} {
		if v := a.Check(t.Context(), []signature.Check{check}); len(v) != 1 || !errors.Is(v[0].Err, signature.ErrInvalid) {
			t.Errorf("%s: %+v, want ErrInvalid", name, v)
		}
	}
}

func TestNewAuthorityRefuses(t *testing.T) {
	t.Parallel()
	p := newPKI(t, nil, nil)
	root := testkey.CertificatePEM(p.chain[2])
	for name, c := range map[string]struct {
		pem        []byte
		identities []string
		file       bool // a fault of the file, else of the identities
	}{
		"empty":                    {nil, []string{"*"}, true},
		"a leaf that others issue": {testkey.CertificatePEM(p.chain[0]), []string{"*"}, true},
		"a public key":             {p.leaf.PEM(), []string{"*"}, true},
		"text behind":              {append(root[:len(root):len(root)], "x"...), []string{"*"}, true},
		"no identity":              {root, nil, false},
		"all and one":              {root, []string{"*", "x509.subject: C=US, ST=WA, O=Acme"}, false},
		"no prefix":                {root, []string{"C=US, ST=WA, O=Acme"}, false},
		"no organisation":          {root, []string{"x509.subject: C=US, ST=WA"}, false},
		"no state":                 {root, []string{"x509.subject: C=US, O=Acme"}, false},
		"twice":                    {root, []string{"x509.subject: C=US, C=DE, ST=WA, O=Acme"}, false},
		"an unknown attribute":     {root, []string{"x509.subject: C=US, ST=WA, O=Acme, X=1"}, false},
		"an empty value":           {root, []string{"x509.subject: C=US, ST=, O=Acme"}, false},
		"overlap":                  {root, []string{"x509.subject: C=US, ST=WA, O=Acme", "x509.subject: C=US, ST=WA, O=Acme, CN=x"}, false},
	} {
		a, err := notary.NewAuthority("pki", c.pem, c.identities)
		var file *signature.KeyFileError
		var id *notary.IdentityError
		if a != nil || c.file != errors.As(err, &file) || c.file == errors.As(err, &id) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
}

func TestSubjectsRoundTrip(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"C=US, ST=WA, O=Acme, CN=models", `C=US, ST=WA, O=Acme\, Inc., CN=a\=b\\c`, "C=DE, ST=Bayern, L=München, O=Ä, OU=ML, CN=x"} {
		name, err := notary.ParseSubject(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		k := testkey.New(t, signature.ECDSAP256)
		template := testkey.Leaf(now, "")
		template.Subject = name
		cert := k.Issue(t, template, nil, nil)
		if got := notary.SubjectText(cert); got != "x509.subject: "+text {
			t.Errorf("%q became %q", text, got)
		}
		ids, err := notary.ParseIdentities([]string{notary.SubjectText(cert)})
		if err != nil || !ids[0].Matches(cert) {
			t.Errorf("%q does not match its own certificate: %v", text, err)
		}
	}
}
