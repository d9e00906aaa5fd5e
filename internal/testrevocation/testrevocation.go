// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package testrevocation is an OCSP responder and a CRL server on loopback for
// tests, over HTTP as certificates name them.
package testrevocation

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Server answers for one issuer. Its fields may be changed until it is asked.
type Server struct {
	URL string
	// Issuer and Key sign, unless Responder and ResponderKey do for OCSP.
	Issuer       *x509.Certificate
	Key          crypto.Signer
	Responder    *x509.Certificate
	ResponderKey crypto.Signer
	// Status is what OCSP says of certificates that are not revoked: ocsp.Good.
	Status int
	// This and Next bound the answers; zero means an hour ago, and an hour from now.
	This, Next time.Time
	// Extensions are those of the list.
	Extensions []pkix.Extension
	// OCSP and CRL count what was asked.
	OCSP, CRL atomic.Int32

	mu      sync.Mutex
	revoked map[string]bool
}

// Start starts a server that ends with the test.
func Start(t testing.TB, issuer *x509.Certificate, key crypto.Signer) *Server {
	t.Helper()
	s := &Server{Issuer: issuer, Key: key, revoked: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("/ocsp", s.ocsp)
	mux.HandleFunc("/ocsp/", s.ocsp)
	mux.HandleFunc("/crl", s.crl)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Revoke revokes a certificate.
func (s *Server) Revoke(serial *big.Int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[serial.String()] = true
}

func (s *Server) isRevoked(serial *big.Int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[serial.String()]
}

func (s *Server) times() (this, next time.Time) {
	this, next = s.This, s.Next
	if this.IsZero() {
		this = time.Now().Add(-time.Hour)
	}
	if next.IsZero() {
		next = time.Now().Add(time.Hour)
	}
	return this, next
}

// ocsp takes both ways of RFC 6960, appendix A: notation asks with GET.
func (s *Server) ocsp(w http.ResponseWriter, r *http.Request) {
	s.OCSP.Add(1)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if r.Method == http.MethodGet {
		var text string
		if text, err = url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/ocsp/")); err == nil {
			if again, unescaped := url.PathUnescape(text); unescaped == nil {
				text = again
			}
			body, err = base64.StdEncoding.DecodeString(text)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q, err := ocsp.ParseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	this, next := s.times()
	answer := ocsp.Response{Status: s.Status, SerialNumber: q.SerialNumber, ThisUpdate: this, NextUpdate: next}
	if s.isRevoked(q.SerialNumber) {
		answer.Status, answer.RevokedAt = ocsp.Revoked, this
	}
	responder, key := s.Issuer, s.Key
	if s.Responder != nil {
		responder, key, answer.Certificate = s.Responder, s.ResponderKey, s.Responder
	}
	der, err := ocsp.CreateResponse(s.Issuer, responder, answer, key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = w.Write(der)
}

func (s *Server) crl(w http.ResponseWriter, _ *http.Request) {
	s.CRL.Add(1)
	this, next := s.times()
	list := &x509.RevocationList{Number: big.NewInt(this.Unix()), ThisUpdate: this, NextUpdate: next, ExtraExtensions: s.Extensions}
	s.mu.Lock()
	for serial := range s.revoked {
		n, _ := new(big.Int).SetString(serial, 10)
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: this})
	}
	s.mu.Unlock()
	der, err := x509.CreateRevocationList(rand.Reader, list, s.Issuer, s.Key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	_, _ = w.Write(der)
}
