// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	farRegistry = "registry.bench.example"
	farVault    = "vault.bench.example"
)

// far is a site behind a CONNECT proxy: a registry and a Vault with TLS certificates
// of a private CA, which count what they are asked.
type far struct {
	proxy, caFile         string
	requests, connections atomic.Int64
	servers               []*http.Server
}

func (b *bench) newFar() (*far, error) {
	f := &far{caFile: filepath.Join(b.dir, "far-ca.pem")}
	certificate, err := f.certify()
	if err != nil {
		return nil, err
	}
	vaultAt, err := url.Parse(b.vault.addr)
	if err != nil {
		return nil, err
	}
	sites := make(map[string]string)
	for name, target := range map[string]string{farRegistry: b.olareg, farVault: vaultAt.Host} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		sites[name+":443"] = listener.Addr().String()
		front := f.front(target, certificate)
		go front.ServeTLS(listener, "", "") //nolint:errcheck // ends with Close
	}
	listener, err := net.Listen("tcp", linkHere+":0")
	if err != nil {
		return nil, err
	}
	f.proxy = "http://" + listener.Addr().String()
	proxy := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connect(w, r, sites[r.Host])
	})}
	f.servers = append(f.servers, proxy)
	go proxy.Serve(listener) //nolint:errcheck // ends with Close
	return f, nil
}

func (f *far) close() {
	for _, s := range f.servers {
		s.Close()
	}
}

func (f *far) front(target string, certificate tls.Certificate) *http.Server {
	to := &url.URL{Scheme: "http", Host: target}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
	s := &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.requests.Add(1)
			proxy.ServeHTTP(w, r)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				f.connections.Add(1)
			}
		},
	}
	f.servers = append(f.servers, s)
	return s
}

// connect is the CONNECT method, to the sites there are.
func connect(w http.ResponseWriter, r *http.Request, target string) {
	if r.Method != http.MethodConnect || target == "" {
		http.Error(w, "no way to there", http.StatusForbidden)
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// certify makes a CA, writes its certificate, and a certificate of it for the sites.
func (f *far) certify() (tls.Certificate, error) {
	fail := func(err error) (tls.Certificate, error) { return tls.Certificate{}, err }
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return fail(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: farRegistry}, DNSNames: []string{farRegistry, farVault},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return fail(err)
	}
	err = os.WriteFile(f.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
