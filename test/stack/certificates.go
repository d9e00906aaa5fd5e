// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"time"
)

// certificates are the private CA of one run and what it issued.
type certificates struct {
	caFile         string
	clientCertFile string
	clientKeyFile  string
	server         tls.Certificate
}

// newCertificates makes a CA and, signed by it, one certificate for loopback
// servers and one for a client; the files go into dir. All live for a day.
func newCertificates(dir string, now time.Time) (*certificates, error) {
	ca := template("aegis-stack CA", now)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caCert, caKey, err := issue(ca, nil, nil)
	if err != nil {
		return nil, err
	}
	server := template("aegis-stack", now)
	server.KeyUsage, server.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames, server.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	serverCert, serverKey, err := issue(server, caCert, caKey)
	if err != nil {
		return nil, err
	}
	client := template("aegis-stack client", now)
	client.KeyUsage, client.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	clientCert, clientKey, err := issue(client, caCert, caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the client key: %w", err)
	}
	c := &certificates{
		caFile:         filepath.Join(dir, "ca.pem"),
		clientCertFile: filepath.Join(dir, "client.pem"),
		clientKeyFile:  filepath.Join(dir, "client-key.pem"),
		server:         tls.Certificate{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey, Leaf: serverCert},
	}
	files := []struct {
		path string
		pem.Block
	}{
		{c.caFile, pem.Block{Type: "CERTIFICATE", Bytes: caCert.Raw}},
		{c.clientCertFile, pem.Block{Type: "CERTIFICATE", Bytes: clientCert.Raw}},
		{c.clientKeyFile, pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}},
	}
	for _, f := range files {
		if err := writeWhole(f.path, pem.EncodeToMemory(&f.Block)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// serverConfig asks clients for a certificate, which only Vault's cert auth uses.
func (c *certificates) serverConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.server}, ClientAuth: tls.RequestClientCert}
}

func template(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(24 * time.Hour),
	}
}

// issue makes a key and a certificate for it, self-signed if parent is nil.
func issue(tmpl, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, fmt.Errorf("making a serial number: %w", err)
	}
	if parent == nil {
		parent, parentKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing %s: %w", tmpl.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing %s: %w", tmpl.Subject.CommonName, err)
	}
	return cert, key, nil
}
