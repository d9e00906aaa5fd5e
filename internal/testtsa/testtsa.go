// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package testtsa is a timestamp authority on loopback for tests (RFC 3161 over
// HTTP), with an issuer of its own.
package testtsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TSA is a running authority.
type TSA struct {
	URL string
	// Root is the issuer's certificate.
	Root *x509.Certificate
	// RootKey is the issuer's key.
	RootKey *ecdsa.PrivateKey
	// Requests counts the queries.
	Requests atomic.Int32
	// Time is stamped when it is set, instead of now.
	Time time.Time

	cert *x509.Certificate
	key  crypto.Signer
	rand io.Reader
}

// Of is the authority of a certificate and its root, at a time. It is not asked over
// HTTP, and makes the same stamps every time.
func Of(root, cert *x509.Certificate, key crypto.Signer, at time.Time) *TSA {
	return &TSA{Root: root, Time: at, cert: cert, key: key}
}

// Start starts an authority that ends with the test. edits change the template of
// its certificate.
func Start(t testing.TB, edits ...func(*x509.Certificate)) *TSA {
	t.Helper()
	a := &TSA{rand: rand.Reader}
	now := time.Now()
	rootKey, root := issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test TSA root"},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}, nil, nil)
	// RFC 3161, section 2.3: timestamping alone, and critical.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test TSA"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{Usage(t, true, 8)},
	}
	for _, edit := range edits {
		edit(template)
	}
	a.RootKey = rootKey
	a.key, a.cert = issue(t, template, root, rootKey)
	a.Root = root
	srv := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(srv.Close)
	a.URL = srv.URL
	return a
}

// Usage is an extended key usage of purposes below id-kp: 8 is timestamping.
func Usage(t testing.TB, critical bool, purposes ...int) pkix.Extension {
	t.Helper()
	var oids []asn1.ObjectIdentifier
	for _, p := range purposes {
		oids = append(oids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, p})
	}
	value, err := asn1.Marshal(oids)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}
}

func issue(t testing.TB, template, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by, byKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

// RootPEM is the issuer's certificate.
func (a *TSA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Root.Raw})
}

// Roots trusts the issuer alone.
func (a *TSA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Root)
	return pool
}

type query struct {
	Version int
	Imprint asn1.RawValue
	Policy  asn1.ObjectIdentifier `asn1:"optional"`
	Nonce   *big.Int              `asn1:"optional"`
	CertReq bool                  `asn1:"optional"`
}

func (a *TSA) serve(w http.ResponseWriter, r *http.Request) {
	a.Requests.Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "no query", http.StatusBadRequest)
		return
	}
	answer, err := a.answer(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = w.Write(answer)
}

var (
	oidSignedData  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidTSTInfo     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidDigest      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningCert = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSHA256      = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
)

type algorithm struct{ Algorithm asn1.ObjectIdentifier }

type info struct {
	Version  int
	Policy   asn1.ObjectIdentifier
	Imprint  asn1.RawValue
	Serial   *big.Int
	GenTime  time.Time `asn1:"generalized"`
	Accuracy struct{ Seconds int }
	Nonce    *big.Int `asn1:"optional"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue
}

type signerInfo struct {
	Version   int
	ID        issuerSerial
	Digest    algorithm
	Signed    asn1.RawValue
	Algorithm algorithm
	Signature []byte
}

type issuerSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type signedData struct {
	Version      int
	Digests      []algorithm `asn1:"set"`
	Content      encapsulated
	Certificates asn1.RawValue
	Signers      []signerInfo `asn1:"set"`
}

type encapsulated struct {
	Type    asn1.ObjectIdentifier
	Content []byte `asn1:"explicit,tag:0"`
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content signedData `asn1:"explicit,tag:0"`
}

func (a *TSA) answer(body []byte) ([]byte, error) {
	var q query
	if _, err := asn1.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	token, err := a.token(q)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Status struct{ Status int }
		Token  contentInfo
	}{Token: token})
}

// Timestamp stamps without being asked over HTTP, and without anybody looking at
// the token: for stamps that no client would take.
func (a *TSA) Timestamp(_ context.Context, content []byte, hash crypto.Hash) ([]byte, error) {
	oids := map[crypto.Hash]asn1.ObjectIdentifier{
		crypto.SHA256: oidSHA256, crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
	}
	h := hash.New()
	h.Write(content)
	imprint, err := asn1.Marshal(struct {
		Algorithm algorithm
		Sum       []byte
	}{algorithm{oids[hash]}, h.Sum(nil)})
	if err != nil {
		return nil, err
	}
	token, err := a.token(query{Imprint: asn1.RawValue{FullBytes: imprint}})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(token)
}

func (a *TSA) token(q query) (contentInfo, error) {
	at := a.Time
	if at.IsZero() {
		at = time.Now()
	}
	i := info{Version: 1, Policy: asn1.ObjectIdentifier{1, 2, 3, 4}, Imprint: q.Imprint, Serial: big.NewInt(at.UnixNano()), GenTime: at.UTC().Truncate(time.Second), Nonce: q.Nonce}
	i.Accuracy.Seconds = 1
	content, err := asn1.Marshal(i)
	if err != nil {
		return contentInfo{}, err
	}
	signer, err := a.sign(content)
	if err != nil {
		return contentInfo{}, err
	}
	return contentInfo{Type: oidSignedData, Content: signedData{
		Version: 3, Digests: []algorithm{{oidSHA256}}, Content: encapsulated{oidTSTInfo, content},
		Certificates: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: bytes.Join([][]byte{a.cert.Raw, a.Root.Raw}, nil)},
		Signers:      []signerInfo{signer},
	}}, nil
}

// sign makes the SignerInfo (RFC 5652, section 5.4; RFC 5816 for the certificate's
// hash).
func (a *TSA) sign(content []byte) (signerInfo, error) {
	sum, certSum := sha256.Sum256(content), sha256.Sum256(a.cert.Raw)
	type essCert struct{ Hash []byte }
	var attrs []byte
	for _, at := range []struct {
		oid   asn1.ObjectIdentifier
		value any
	}{
		{oidContentType, oidTSTInfo},
		{oidDigest, sum[:]},
		{oidSigningCert, struct{ Certs []essCert }{[]essCert{{certSum[:]}}}},
	} {
		value, err := asn1.Marshal(at.value)
		if err != nil {
			return signerInfo{}, err
		}
		one, err := asn1.Marshal(attribute{at.oid, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: value}})
		if err != nil {
			return signerInfo{}, err
		}
		attrs = append(attrs, one...)
	}
	// Signed as a SET, carried as [0].
	set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: attrs})
	if err != nil {
		return signerInfo{}, err
	}
	digest := sha256.Sum256(set)
	sig, err := a.key.Sign(a.rand, digest[:], crypto.SHA256)
	if err != nil {
		return signerInfo{}, err
	}
	return signerInfo{
		Version: 1, ID: issuerSerial{asn1.RawValue{FullBytes: a.cert.RawIssuer}, a.cert.SerialNumber}, Digest: algorithm{oidSHA256},
		Signed:    asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: attrs},
		Algorithm: algorithm{oidECDSASHA256}, Signature: sig,
	}, nil
}

// Serial is that of the authority's certificate.
func (a *TSA) Serial() *big.Int { return a.cert.SerialNumber }

// At is the same authority at another time. It is not asked over HTTP.
func (a *TSA) At(at time.Time) *TSA {
	return &TSA{Root: a.Root, RootKey: a.RootKey, Time: at, cert: a.cert, key: a.key, rand: a.rand}
}

// ChainPEM is the authority's certificate and its issuer's.
func (a *TSA) ChainPEM() []byte {
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), a.RootPEM()...)
}
