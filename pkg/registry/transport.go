// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// newTransport is the one transport of a Client.
func newTransport(o Options) (*http.Transport, error) {
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	timeout := 15 * time.Second
	if o.mirror != nil {
		timeout = o.mirror.DialTimeout
	}
	dial, err := dialer(o.Resolve, timeout)
	if err != nil {
		return nil, err
	}
	// Connections of parallel ranges are used again and again.
	idle := max(o.Concurrency, 16)
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  o.Proxy,
		OnProxyConnectResponse: proxyAnswered,
		DialContext:            sending(remembering(dial)),
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    15 * time.Second,
		// HTTP/2 would put all parallel ranges on one TCP connection, which is what
		// they are there to get around, under flow-control windows of its own.
		Protocols:             http1,
		MaxIdleConns:          4 * idle,
		MaxIdleConnsPerHost:   idle,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		// An endless header must not fill the memory.
		MaxResponseHeaderBytes: 1 << 20,
		// Content is hashed as it is stored, never after a decompression that
		// the transport chose.
		DisableCompression: true,
	}, nil
}

// proxyAnswered says who refused a CONNECT, where net/http has the text of the status only.
func proxyAnswered(_ context.Context, proxy *url.URL, connect *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &ProxyError{Proxy: proxy.Host, Host: connect.Host, Status: resp.StatusCode}
}

func tlsConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureSkipTLS}
	if err := addAuthorities(config, o); err != nil {
		return nil, err
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, &ConfigError{Option: "client certificate", Err: errors.New("a certificate file and a key file belong together")}
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, &ConfigError{Option: "client certificate", Path: o.CertFile, Err: err}
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if o.mirror == nil {
		return config, nil
	}
	for _, client := range o.mirror.Clients {
		pair, err := tls.LoadX509KeyPair(client[0], cmp.Or(client[1], client[0]))
		if err != nil {
			return nil, &ConfigError{Option: "client certificate of the mirror " + o.mirror.URL, Path: client[0], Err: err}
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return config, nil
}

// addAuthorities adds those that files name to the system's.
func addAuthorities(config *tls.Config, o Options) error {
	var files []string
	if o.CAFile != "" {
		files = append(files, o.CAFile)
	}
	if o.mirror != nil {
		files = append(files, o.mirror.CAFiles...)
	}
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return &ConfigError{Option: "CA file", Path: file, Err: cause(err)}
		}
		if config.RootCAs == nil {
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				config.RootCAs = x509.NewCertPool()
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return &ConfigError{Option: "CA file", Path: file, Err: errors.New("it holds no PEM certificate")}
		}
	}
	return nil
}

// cause drops the path that an os error repeats.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dialer connects to where --resolve points a host and port, as oras and curl
// have it.
func dialer(resolve []string, timeout time.Duration) (dialFunc, error) {
	d := &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}
	if len(resolve) == 0 {
		return d.DialContext, nil
	}
	targets := make(map[string]string)
	for _, entry := range resolve {
		from, to, err := parseResolve(entry)
		if err != nil {
			return nil, &ConfigError{Option: "resolve", Err: fmt.Errorf("%q: %w", entry, err)}
		}
		if _, taken := targets[from]; !taken {
			targets[from] = to
		}
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if to, ok := targets[strings.ToLower(address)]; ok {
			address = to
		}
		return d.DialContext(ctx, network, address)
	}, nil
}

var errResolveForm = errors.New("it must be host:port:address[:port]")

// parseResolve reads host:port:address[:port]; IPv6 addresses are in brackets.
func parseResolve(entry string) (from, to string, err error) {
	var fields []string
	for rest := entry; ; {
		var field string
		if strings.HasPrefix(rest, "[") {
			inner, after, closed := strings.Cut(rest[1:], "]")
			if !closed || (after != "" && after[0] != ':') {
				return "", "", errResolveForm
			}
			field, rest = inner, after
		} else if i := strings.IndexByte(rest, ':'); i >= 0 {
			field, rest = rest[:i], rest[i:]
		} else {
			field, rest = rest, ""
		}
		fields = append(fields, field)
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	if len(fields) != 3 && len(fields) != 4 {
		return "", "", errResolveForm
	}
	host, port, address := fields[0], fields[1], fields[2]
	target := port
	if len(fields) == 4 {
		target = fields[3]
	}
	if host == "" || net.ParseIP(address) == nil || !isPort(port) || !isPort(target) {
		return "", "", errResolveForm
	}
	return strings.ToLower(net.JoinHostPort(host, port)), net.JoinHostPort(address, target), nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// maxRedirects bounds a chain of redirects.
const maxRedirects = 5

// checkRedirect refuses redirects from TLS to plain HTTP, and those that would
// carry a body to another host. Credentials are dropped on the way to another
// host by oras-go (GHSA-vh4v-2xq2-g5cg).
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return &redirectError{reason: fmt.Sprintf("more than %d redirects", maxRedirects)}
	}
	first := via[0].URL
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return &redirectError{reason: "redirected from TLS to plain HTTP at " + clip(printable(req.URL.Host), 200)}
	}
	if via[0].Method != http.MethodGet && via[0].Method != http.MethodHead && !sameOrigin(first, req.URL) {
		return &redirectError{reason: "redirected with a body to " + clip(printable(req.URL.Host), 200)}
	}
	// net/http names the URL that sent us there. One that is signed is a credential, and
	// the query of any is nobody else's concern.
	req.Header.Del("Referer")
	return nil
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

// tally is what the meter keeps for one attempt, through the request's context.
type tally struct {
	requests   *atomic.Int64
	retryAfter atomic.Int64 // nanoseconds
}

type tallyKey struct{}

// meter counts requests, those for tokens too, and keeps the Retry-After of
// refusals, which oras-go's errors do not carry.
type meter struct {
	next http.RoundTripper
	log  *slog.Logger
	now  func() time.Time
}

func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	t, _ := req.Context().Value(tallyKey{}).(*tally)
	if t != nil {
		t.requests.Add(1)
	}
	resp, err := m.next.RoundTrip(req)
	// No query and no header: both can hold credentials.
	attrs := []slog.Attr{slog.String("method", req.Method), slog.String("host", req.URL.Host), slog.String("path", req.URL.Path)}
	if err != nil {
		m.log.LogAttrs(req.Context(), slog.LevelDebug, "registry request failed", attrs...)
		return nil, err
	}
	m.log.LogAttrs(req.Context(), slog.LevelDebug, "registry request", append(attrs, slog.Int("status", resp.StatusCode))...)
	if resp.StatusCode == http.StatusUnauthorized {
		oneChallenge(resp.Header)
	}
	if t != nil {
		if wait, ok := retryAfter(resp.Header.Get("Retry-After"), m.now()); ok {
			t.retryAfter.Store(int64(wait))
		}
	}
	return resp, nil
}

// oneChallenge leaves of several challenges the one that can be met: oras-go reads the
// first, which behind a proxy for Kerberos is Negotiate.
func oneChallenge(header http.Header) {
	all := header.Values("WWW-Authenticate")
	if len(all) < 2 {
		return
	}
	for _, scheme := range []string{"bearer", "basic"} {
		for _, challenge := range all {
			if name, _, _ := strings.Cut(strings.TrimSpace(challenge), " "); strings.EqualFold(name, scheme) {
				header.Set("WWW-Authenticate", challenge)
				return
			}
		}
	}
}
