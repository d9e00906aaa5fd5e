// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fault is something that goes wrong between a client and a real server. Those
// with a Status are answered by the proxy; the others let the request reach the
// server and spoil what comes back.
type Fault struct {
	// Method and Path say which requests: Path is a substring of the path with its
	// query. Empty matches all.
	Method, Path string
	// Skip lets that many matching requests pass first.
	Skip int
	// Times is how many requests are hit after those. Zero means all of them.
	Times int

	// Delay comes before anything else.
	Delay time.Duration
	// Status is answered in the server's place, with Header and Body.
	Status int
	Body   string
	// Header is set on the answer, the server's own too. A nil value removes a name.
	Header http.Header
	// NoRange has the server see no Range header, as if it knew none.
	NoRange bool
	// Replace changes the body of the server's answer; Content-Length follows.
	Replace func(body []byte) []byte
	// Cut breaks the connection after CutAfter bytes of the body. With zero the
	// client gets nothing at all, though the server has done its work.
	Cut      bool
	CutAfter int64
	// CutBody breaks both connections once the server was given that many bytes of
	// the request's body. Zero is no cut.
	CutBody int64
	// Stall keeps the connection open and silent after CutAfter bytes of the body,
	// until the client gives up.
	Stall bool
}

var errCut = errors.New("cut by a fault")

// Request is one that the proxy has received.
type Request struct {
	Method string
	Path   string // with its query
	Header http.Header
}

// Proxy is a plain HTTP proxy in front of one real server. Its methods may be
// called while requests run.
type Proxy struct {
	URL  string // http://host:port
	Addr string // host:port

	reverse  *httputil.ReverseProxy
	received atomic.Int64

	mu        sync.Mutex
	server    *http.Server
	served    chan struct{} // closed when server no longer accepts
	faults    []*Fault
	intercept func(http.ResponseWriter, *http.Request) bool
	requests  []Request
}

// FaultProxy starts a proxy without faults in front of target, a host:port or an
// http URL. The Host header passes unchanged, so that upload locations lead
// through the proxy too. It ends with the test.
func FaultProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	to, err := url.Parse(target)
	if err != nil || to.Scheme != "http" {
		t.Fatalf("servertest: FaultProxy wants an http URL or host:port, not %q", target)
	}
	p := &Proxy{}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		// The body's digest is the client's to check, as sent.
		Transport:      &http.Transport{DisableCompression: true},
		FlushInterval:  -1,
		ModifyResponse: spoil,
		ErrorHandler:   failed,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	if err := p.listen("127.0.0.1:0"); err != nil {
		t.Fatalf("servertest: %v", err)
	}
	t.Cleanup(p.Down)
	return p
}

// Fail adds a fault. The first one that matches a request and is not used up is
// the one that hits it.
func (p *Proxy) Fail(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Times == 0 {
		f.Times = -1
	}
	p.faults = append(p.faults, &f)
}

// Intercept has fn see every request first; nil ends it. What fn answers, with
// true, does not reach the server.
func (p *Proxy) Intercept(fn func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = fn
}

// Reset takes away every fault and the intercepting function, and forgets the
// requests seen.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.intercept, p.requests = nil, nil, nil
	p.received.Store(0)
}

// Requests returns the requests seen, oldest first, those that were hit too.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.requests...)
}

// Count returns how many of the requests seen have path in theirs; "" counts all.
func (p *Proxy) Count(path string) int {
	n := 0
	for _, r := range p.Requests() {
		if strings.Contains(r.Path, path) {
			n++
		}
	}
	return n
}

// Received returns how many bytes of requests' bodies have come in.
func (p *Proxy) Received() int64 { return p.received.Load() }

// Down breaks all connections and refuses new ones.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		_ = p.server.Close()
		// The port stays open until the pending accept has returned.
		<-p.served
		p.server = nil
	}
}

// Up listens on the same port again after Down.
func (p *Proxy) Up(t testing.TB) {
	t.Helper()
	if err := p.listen(p.Addr); err != nil {
		t.Fatalf("servertest: %v", err)
	}
}

func (p *Proxy) listen(addr string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return errors.New("the proxy is up already")
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	p.Addr = listener.Addr().String()
	p.URL = "http://" + p.Addr
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute, ErrorLog: p.reverse.ErrorLog}
	p.served = make(chan struct{})
	go func(s *http.Server, served chan<- struct{}) {
		defer close(served)
		_ = s.Serve(listener)
	}(p.server, p.served)
	return nil
}

// ServeHTTP answers or passes on one request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	intercept, fault := p.receive(r)
	body := &countedBody{ReadCloser: r.Body, count: &p.received, left: math.MaxInt64, unread: r.ContentLength}
	if fault != nil && fault.CutBody > 0 {
		body.left = fault.CutBody
	}
	if r.Body != http.NoBody {
		r.Body = body
	}
	if intercept != nil && intercept(w, r) {
		return
	}
	if fault == nil {
		p.reverse.ServeHTTP(w, r)
		return
	}
	select {
	case <-time.After(fault.Delay):
	case <-r.Context().Done():
		return
	}
	if fault.NoRange {
		r.Header.Del("Range")
	}
	if fault.Status == 0 {
		p.reverse.ServeHTTP(w, r.WithContext(withFault(r.Context(), fault)))
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	setHeader(w.Header(), fault.Header)
	w.WriteHeader(fault.Status)
	_, _ = io.WriteString(w, fault.Body)
}

// receive records the request and finds the fault that hits it.
func (p *Proxy) receive(r *http.Request) (func(http.ResponseWriter, *http.Request) bool, *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := r.URL.RequestURI()
	p.requests = append(p.requests, Request{Method: r.Method, Path: path, Header: r.Header.Clone()})
	for _, f := range p.faults {
		if f.Times == 0 || (f.Method != "" && f.Method != r.Method) || !strings.Contains(path, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		hit := *f
		return p.intercept, &hit
	}
	return p.intercept, nil
}

// spoil applies a fault to the server's answer.
func spoil(resp *http.Response) error {
	fault := faultOf(resp.Request.Context())
	if fault == nil {
		return nil
	}
	setHeader(resp.Header, fault.Header)
	if fault.Replace != nil && resp.Request.Method != http.MethodHead {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		body = fault.Replace(body)
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
		if values, named := fault.Header["Content-Length"]; named && values == nil {
			// Sent in chunks, so that only its end says how long it is.
			resp.Header.Del("Content-Length")
			resp.ContentLength = -1
		}
	}
	if fault.Cut && fault.CutAfter == 0 {
		return errCut
	}
	if fault.Cut || fault.Stall {
		resp.Body = &cutBody{ReadCloser: resp.Body, left: fault.CutAfter}
	}
	if fault.Stall {
		resp.Body.(*cutBody).gone = resp.Request.Context().Done()
	}
	return nil
}

// failed answers when there is nothing of the server's to pass on.
func failed(w http.ResponseWriter, _ *http.Request, err error) {
	if errors.Is(err, errCut) {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusBadGateway)
}

// cutBody fails after some bytes, at which the reverse proxy breaks the client's
// connection; with gone set it waits for that first.
type cutBody struct {
	io.ReadCloser
	left int64
	gone <-chan struct{}
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left <= 0 {
		if c.gone != nil {
			<-c.gone
		}
		return 0, errCut
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// countedBody counts a request's body, and fails where it is to be cut.
type countedBody struct {
	io.ReadCloser
	count *atomic.Int64
	left  int64
	// unread is how much of the announced length is to come, negative where none
	// was announced. At its end the body is not read again: net/http's transport
	// looks whether there is more, and by then its server may have begun to answer
	// and closed the body, at which the transport breaks a connection in the middle
	// of a good answer.
	unread int64
}

func (c *countedBody) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errCut
	}
	if c.unread == 0 {
		return 0, io.EOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	c.unread -= int64(n)
	c.count.Add(int64(n))
	return n, err
}

// faultKey carries a request's fault to spoil.
type faultKey struct{}

func withFault(ctx context.Context, f *Fault) context.Context {
	return context.WithValue(ctx, faultKey{}, f)
}

func faultOf(ctx context.Context) *Fault {
	f, _ := ctx.Value(faultKey{}).(*Fault)
	return f
}

func setHeader(dst, src http.Header) {
	for name, values := range src {
		dst.Del(name)
		for _, v := range values {
			dst.Add(name, v)
		}
	}
}
