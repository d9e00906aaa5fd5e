// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// issueCertificates makes a CA and, signed by it, the server's and a client's
// certificate, all for a day, as files in s.Dir.
func (s *Server) issueCertificates(t testing.TB) {
	t.Helper()
	s.CAFile = filepath.Join(s.Dir, "ca.pem")
	s.ClientCert, s.ClientKey = filepath.Join(s.Dir, "client.pem"), filepath.Join(s.Dir, "client-key.pem")
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "servertest CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey := writeCertificate(t, ca, nil, nil, s.CAFile, filepath.Join(s.Dir, "ca-key.pem"))
	writeCertificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "servertest vault"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, ca, caKey, filepath.Join(s.Dir, "server.pem"), filepath.Join(s.Dir, "server-key.pem"))
	writeCertificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "servertest client"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, caKey, s.ClientCert, s.ClientKey)
	if err := s.trust(); err != nil {
		t.Fatalf("servertest: %v", err)
	}
}

// writeCertificate issues a certificate, self-signed if parent is nil, and writes
// it and its key as PEM.
func writeCertificate(t testing.TB, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, certFile, keyFile string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		t.Fatalf("servertest: %v", err)
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatalf("servertest: %v", err)
		}
	}
	return key
}
