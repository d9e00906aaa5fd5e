// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// slowLine passes connections on to a server, each at a bounded rate.
type slowLine struct {
	listener  net.Listener
	target    string
	perSecond int64
}

func newSlowLine(target string, perSecond int64) (*slowLine, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &slowLine{listener: listener, target: target, perSecond: perSecond}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.pass(conn)
		}
	}()
	return s, nil
}

func (s *slowLine) addr() string { return s.listener.Addr().String() }

func (s *slowLine) close() { s.listener.Close() }

func (s *slowLine) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", s.target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	// The kernel moves each step from one socket to the other; the processor is left
	// to what is measured.
	const step = 256 << 10
	start, sent := time.Now(), int64(0)
	for {
		began := time.Now()
		n, err := io.CopyN(client, server, step)
		if n == 0 && err != nil {
			return
		}
		sent += n
		due := start.Add(time.Duration(float64(sent) / float64(s.perSecond) * float64(time.Second)))
		if began.Sub(due) > 100*time.Millisecond {
			// The connection was silent: nobody may save rate up.
			start, sent = began, n
			due = start.Add(time.Duration(float64(n) / float64(s.perSecond) * float64(time.Second)))
		}
		time.Sleep(time.Until(due))
		if err != nil {
			return
		}
	}
}

// meter passes requests on to a registry, counts them and the bytes of blobs, and
// spoils some of the answers.
type meter struct {
	server              *http.Server
	addr                string
	requests, blobBytes atomic.Int64
	// cut is the share of blobs' answers that end in their middle, refused that of
	// those that are 503.
	cut, refused float64

	mu     sync.Mutex
	random *rand.Rand
}

func newMeter(target string) (*meter, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &meter{addr: listener.Addr().String(), random: rand.New(rand.NewPCG(1, 2))}
	to := &url.URL{Scheme: "http", Host: target}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		Transport:      &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
		ModifyResponse: m.spoil,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	m.server = &http.Server{
		ErrorLog: proxy.ErrorLog, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.requests.Add(1)
			if isBlob(r) && m.chance(m.refused) {
				http.Error(w, "overloaded", http.StatusServiceUnavailable)
				return
			}
			proxy.ServeHTTP(w, r)
		}),
	}
	go m.server.Serve(listener) //nolint:errcheck // ends with Close
	return m, nil
}

func (m *meter) close() { m.server.Close() }

// reset begins to count anew.
func (m *meter) reset() {
	m.requests.Store(0)
	m.blobBytes.Store(0)
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func (m *meter) chance(p float64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.random.Float64() < p
}

func (m *meter) spoil(resp *http.Response) error {
	if !isBlob(resp.Request) {
		return nil
	}
	left := int64(-1)
	if resp.ContentLength > 1 && m.chance(m.cut) {
		m.mu.Lock()
		left = m.random.Int64N(resp.ContentLength)
		m.mu.Unlock()
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, m: m, left: left}
	return nil
}

var errCut = errors.New("cut")

// countedBody counts what is read, and ends with an error after left bytes unless
// that is negative.
type countedBody struct {
	io.ReadCloser
	m    *meter
	left int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errCut
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	b.m.blobBytes.Add(int64(n))
	return n, err
}

// waitFor gives a process that was killed or ended a moment to be seen by a proxy, or a
// disk one to rest. It ends with ctx.
func waitFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
