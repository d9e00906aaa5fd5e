// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// One request for every format of a P-256 key, one more for what wants another
// hash or PSS.
func TestRequestsForSeveralFormats(t *testing.T) {
	srv := servertest.SharedStack(t)
	all := signature.Formats()
	for _, tc := range []struct {
		typ      signature.KeyType
		formats  []signature.Format
		requests int
	}{
		{signature.ECDSAP256, all, 1},
		{signature.ECDSAP384, all, 2},
		{signature.ECDSAP521, all, 2},
		{signature.RSA3072, []signature.Format{signature.Sigstore, signature.CosignTag}, 1},
		{signature.RSA2048, []signature.Format{signature.Sigstore, signature.Notary, signature.CosignTag, signature.NotaryCOSE}, 2},
		{signature.RSA3072, []signature.Format{signature.Sigstore, signature.Notary, signature.CosignTag, signature.NotaryCOSE}, 2},
		{signature.RSA4096, []signature.Format{signature.Notary, signature.NotaryCOSE}, 1},
		{signature.Ed25519, []signature.Format{signature.Sigstore, signature.CosignTag}, 1},
	} {
		t.Run(string(tc.typ)+" "+string(tc.formats[len(tc.formats)-1]), func(t *testing.T) {
			key := name(t)
			srv.TransitKey(t, key, string(tc.typ))
			ref := KeyRef{Mount: "transit", Name: key}
			s, _ := open(t, srv.VaultAddr, srv.RootToken)
			g, err := s.Signer(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			var msgs []signature.Message
			for _, f := range tc.formats {
				msgs = append(msgs, signature.Message{Format: f, Bytes: []byte("for " + f)})
			}
			before := s.Requests()
			prims, err := g.Sign(t.Context(), msgs)
			if err != nil {
				t.Fatal(err)
			}
			if n := s.Requests() - before; n != tc.requests {
				t.Errorf("%d requests, want %d", n, tc.requests)
			}
			local, err := signature.ParsePublicKeys("k", srv.PublicKeyPEM(t, key, 1))
			if err != nil {
				t.Fatal(err)
			}
			var checks []signature.Check
			for i, m := range msgs {
				checks = append(checks, signature.Check{Format: m.Format, Message: m.Bytes, Signature: prims[i].Signature, VersionHint: 1})
			}
			for _, k := range []signature.Key{local, s.Key(ref)} {
				for i, v := range k.Check(t.Context(), checks) {
					if v.Err != nil {
						t.Errorf("%T, %s: %v", k, tc.formats[i], v.Err)
					}
				}
			}
		})
	}
}

func TestFormatsRefuseKeysWithoutARow(t *testing.T) {
	srv := servertest.SharedStack(t)
	for _, tc := range []struct {
		typ    signature.KeyType
		format signature.Format
	}{{signature.Ed25519, signature.Notary}, {signature.Ed25519, signature.OMS}, {signature.RSA2048, signature.OMS}} {
		key := name(t) + string(tc.typ) + string(tc.format)
		srv.TransitKey(t, key, string(tc.typ))
		s, _ := open(t, srv.VaultAddr, srv.RootToken)
		g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: key})
		if err != nil {
			t.Fatal(err)
		}
		before := s.Requests()
		_, err = g.Sign(t.Context(), []signature.Message{{Format: tc.format, Bytes: []byte("m")}})
		wantKind(t, err, KeyUnsuitable)
		if s.Requests() != before {
			t.Errorf("%s with %s: Vault was asked", tc.format, tc.typ)
		}
	}
}

// selfSign makes a certificate for a key as key certificate does.
func selfSign(t *testing.T, s *Session, ref KeyRef) (*x509.Certificate, *X509Signer) {
	t.Helper()
	x, err := s.X509Signer(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := notary.ParseSubject("C=US, ST=WA, O=Acme, CN=models")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	template := notary.Template(subject, big.NewInt(7), now.Add(-time.Minute), now.Add(time.Hour))
	der, err := x509.CreateCertificate(rand.Reader, template, template, x.Public(), x)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, x
}

// A key whose type is not readable is asked by the row of the certificate's key,
// and signs by it.
func TestCertificateTellsTheTypeOfAnUnreadableKey(t *testing.T) {
	srv := servertest.SharedStack(t)
	for _, typ := range []signature.KeyType{signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521, signature.RSA2048, signature.RSA3072, signature.RSA4096} {
		t.Run(string(typ), func(t *testing.T) {
			key := name(t)
			srv.TransitKey(t, key, string(typ))
			ref := KeyRef{Mount: "transit", Name: key}
			root, _ := open(t, srv.VaultAddr, srv.RootToken)
			cert, _ := selfSign(t, root, ref)
			signs, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/"+key, "update"))
			g, err := signs.Signer(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			prims, err := g.Sign(t.Context(), []signature.Message{{Format: signature.Notary, Bytes: []byte("m"), Type: typ}})
			if err != nil {
				t.Fatal(err)
			}
			check := signature.Check{Format: signature.Notary, Message: []byte("m"), Signature: prims[0].Signature, Chain: []*x509.Certificate{cert}}
			if !signature.AcceptedByLeaf(check) {
				t.Error("the leaf's key refuses")
			}
			verifies, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/verify/"+key, "update"))
			before := verifies.Requests()
			if v := verifies.Key(ref).Check(t.Context(), []signature.Check{check})[0]; v.Err != nil || v.KeyVersion != 1 {
				t.Errorf("verify: %+v", v)
			}
			// One that reads the key in vain, and one that asks.
			if n := verifies.Requests() - before; n > 2 {
				t.Errorf("%d requests to verify", n)
			}
		})
	}
}

func TestCertificateOfAnotherTypeIsRefused(t *testing.T) {
	srv := servertest.SharedStack(t)
	p256, p384 := KeyRef{Mount: "transit", Name: name(t) + "-256"}, KeyRef{Mount: "transit", Name: name(t) + "-384"}
	srv.TransitKey(t, p256.Name, "ecdsa-p256")
	srv.TransitKey(t, p384.Name, "ecdsa-p384")
	s, _ := open(t, srv.VaultAddr, srv.RootToken)
	cert, _ := selfSign(t, s, p384)
	g, err := s.Signer(t.Context(), p256)
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Sign(t.Context(), []signature.Message{{Format: signature.Notary, Bytes: []byte("m"), Type: signature.ECDSAP384}})
	wantKind(t, err, KeyUnsuitable)
	prims, err := g.Sign(t.Context(), []signature.Message{{Format: signature.Notary, Bytes: []byte("m")}})
	if err != nil {
		t.Fatal(err)
	}
	v := s.Key(p256).Check(t.Context(), []signature.Check{{Format: signature.Notary, Message: []byte("m"), Signature: prims[0].Signature, Chain: []*x509.Certificate{cert}}})
	if !errors.Is(v[0].Err, signature.ErrInvalid) {
		t.Errorf("verify: %+v, want ErrInvalid", v[0])
	}
}

func TestCertificateIsMadeThroughTransitAndStored(t *testing.T) {
	srv := servertest.SharedStack(t)
	for _, typ := range []string{"ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096"} {
		t.Run(typ, func(t *testing.T) {
			key := name(t)
			srv.TransitKey(t, key, typ)
			ref := KeyRef{Mount: "transit", Name: key}
			s, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/"+key, "update", "transit/keys/"+key, "read", "transit/keys/"+key+"/set-certificate", "update"))
			cert, x := selfSign(t, s, ref)
			if err := notary.CheckChain([]*x509.Certificate{cert}); err != nil {
				t.Errorf("Notary verifiers refuse it: %v", err)
			}
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
			if err := s.InstallChain(t.Context(), ref, x.Version(), text); err != nil {
				t.Fatal(err)
			}
			d, err := s.Details(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(d.Versions[0].Chain)
			if block == nil || !bytes.Equal(block.Bytes, cert.Raw) {
				t.Errorf("the key holds %q", d.Versions[0].Chain)
			}
			g, err := s.Signer(t.Context(), ref)
			if err != nil || !bytes.Equal(bytes.TrimSpace(g.CertificateChain()), bytes.TrimSpace(text)) {
				t.Errorf("signer: %v, chain %q", err, g.CertificateChain())
			}
		})
	}
}

func TestInstallChainRefusesTheCertificateOfAnotherKey(t *testing.T) {
	srv := servertest.SharedStack(t)
	a, b := KeyRef{Mount: "transit", Name: name(t) + "-a"}, KeyRef{Mount: "transit", Name: name(t) + "-b"}
	srv.TransitKey(t, a.Name, "ecdsa-p256")
	srv.TransitKey(t, b.Name, "ecdsa-p256")
	s, _ := open(t, srv.VaultAddr, srv.RootToken)
	cert, _ := selfSign(t, s, a)
	err := s.InstallChain(t.Context(), b, 1, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	var e *Error
	if !errors.As(err, &e) || e.Status != 400 && e.Status != 500 {
		t.Fatalf("= %v, want a refusal", err)
	}
	d, err := s.Details(t.Context(), b)
	if err != nil || d.Versions[0].Chain != nil {
		t.Errorf("%v; the key holds %q", err, d.Versions[0].Chain)
	}
}

func TestX509SignerSignsNoDigests(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	s, _ := open(t, srv.VaultAddr, srv.RootToken)
	x, err := s.X509Signer(t.Context(), KeyRef{Mount: "transit", Name: name(t)})
	if err != nil {
		t.Fatal(err)
	}
	before := s.Requests()
	if sig, err := x.Sign(rand.Reader, make([]byte, 32), nil); err == nil || sig != nil || s.Requests() != before {
		t.Errorf("= %x, %v", sig, err)
	}
}
