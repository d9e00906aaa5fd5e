// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// maxAnswer bounds what a server may make us hold, in bytes. A key with many
	// RSA versions and certificate chains is the largest honest answer.
	maxAnswer = 8 << 20
	// attemptTimeout bounds one attempt; keys behind an HSM can take seconds.
	attemptTimeout = time.Minute
)

// Client sends requests to one Vault. It holds no token: that comes with each
// request. It is what a TokenSource logs in through.
type Client struct {
	cfg      Config
	endpoint endpoint
	api      *api.Client
	base     *http.Transport
	requests atomic.Int64
}

func newClient(cfg Config) (*Client, error) {
	end, err := cfg.parseAddress()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, endpoint: end}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	c.base = &http.Transport{
		DialContext:         dialer.DialContext,
		Proxy:               cfg.Proxy,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	if end.socket != "" {
		c.base.Proxy = nil
		c.base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", end.socket)
		}
	}
	hc := &http.Client{
		Transport: c.base,
		// A redirect would carry the token along: follow() decides, not net/http.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ac := &api.Config{
		Address:          end.url.String(),
		HttpClient:       hc,
		DisableRedirects: true,
		CheckRetry:       func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	}
	// Vault's own reading of the files, so that what works with its CLI works here.
	if err := ac.ConfigureTLS(&api.TLSConfig{
		CACert: cfg.CAFile, CAPath: cfg.CAPath, ClientCert: cfg.CertFile, ClientKey: cfg.KeyFile,
		TLSServerName: cfg.TLSServerName, Insecure: cfg.SkipVerify,
	}); err != nil {
		return nil, &Error{Op: "open Vault", Kind: BadConfig, Detail: clip(err.Error(), 300), Err: err}
	}
	hc.Transport = roundTripper(c.roundTrip)
	if c.api, err = api.NewClient(ac); err != nil {
		return nil, &Error{Op: "open Vault", Kind: BadConfig, Detail: clip(err.Error(), 300)}
	}
	// NewClient takes token, namespace, headers and wrapping from the environment.
	// They are replaced here, before anything is sent.
	c.api.ClearToken()
	c.api.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	if cfg.UserAgent != "" {
		c.api.AddHeader("User-Agent", cfg.UserAgent)
	}
	c.api.SetWrappingLookupFunc(func(string, string) string { return "" })
	return c, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip counts, and bounds every body: vault/api reads error bodies whole.
func (c *Client) roundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	resp, err := c.base.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// call is one API request.
type call struct {
	op         string
	path       string
	body       any // nil: read; otherwise it is written as JSON
	namespace  string
	token      string
	capability string
	once       bool // not repeated once it may have reached the server
	optional   bool // a refusal is expected and needs no explanation
	// login has the answer waited for when the context ends meanwhile: a token in
	// an answer that nobody reads could not be revoked.
	login   bool
	secrets []string // what the body holds and no text may show
}

// answer is what every API answer has in common.
type answer struct {
	RequestID string          `json:"request_id"`
	Data      json.RawMessage `json:"data"`
	Auth      *authAnswer     `json:"auth"`

	raw []byte
}

type authAnswer struct {
	ClientToken   string   `json:"client_token"`
	LeaseDuration int64    `json:"lease_duration"`
	TokenType     string   `json:"token_type"`
	Renewable     bool     `json:"renewable"`
	NumUses       int      `json:"num_uses"`
	Policies      []string `json:"policies"`
}

// attempt sends cl once, and once more where a redirect stays on the same server.
func (c *Client) attempt(ctx context.Context, cl call) (answer, *Error) {
	a, location, e := c.send(ctx, cl)
	if location == nil {
		return a, e
	}
	path, ok := c.sameServer(location)
	if !ok {
		// The token must not travel to where an answer points.
		return answer{}, &Error{Op: cl.op, Path: cl.path, Kind: Standby,
			Detail: "it redirects to " + clip(location.Scheme+"://"+location.Host, 200) + ", which is not followed; set the address to that server if it is the active node"}
	}
	cl.path = path
	if a, location, e = c.send(ctx, cl); location != nil {
		return answer{}, &Error{Op: cl.op, Path: cl.path, Kind: Malformed, Detail: "it redirects in a circle"}
	}
	return a, e
}

// sameServer returns the API path of a redirect that keeps scheme, host and port.
func (c *Client) sameServer(u *url.URL) (path string, ok bool) {
	base := c.endpoint.url
	if u.Scheme != base.Scheme || u.Host != base.Host || u.User != nil {
		return "", false
	}
	return strings.CutPrefix(u.Path, strings.TrimSuffix(base.Path, "/")+"/v1/")
}

func (c *Client) send(ctx context.Context, cl call) (answer, *url.URL, *Error) {
	if cl.login {
		patient, stop := outlast(ctx, loginGrace)
		defer stop()
		ctx = patient
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	a, location, e := c.exchange(ctx, cl)
	if e != nil {
		e.sent = sent.Load()
	}
	return a, location, e
}

// loginGrace is how long a login is waited for after its command was ended.
const loginGrace = 5 * time.Second

// outlast returns a context that ends grace after ctx does.
func outlast(ctx context.Context, grace time.Duration) (context.Context, func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}

func (c *Client) exchange(ctx context.Context, cl call) (answer, *url.URL, *Error) {
	ac := c.api.WithNamespace(cl.namespace)
	ac.SetToken(cl.token)
	var resp *api.Response
	var err error
	if cl.body == nil {
		resp, err = ac.Logical().ReadRawWithContext(ctx, cl.path)
	} else {
		var body []byte
		if body, err = json.Marshal(cl.body); err == nil {
			resp, err = ac.Logical().WriteRawWithContext(ctx, cl.path, body)
		}
	}
	if resp != nil {
		defer resp.Body.Close()
	}
	var refusal *api.ResponseError
	switch {
	case errors.As(err, &refusal):
		return c.refused(cl, resp, refusal)
	case err != nil:
		return answer{}, nil, c.broken(cl, err)
	case resp.StatusCode >= 300:
		location, err := resp.Location()
		if err != nil {
			return answer{}, nil, &Error{Op: cl.op, Path: cl.path, Kind: Malformed, Status: resp.StatusCode, Detail: "a redirect to nowhere"}
		}
		return answer{}, location, nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, nil, c.broken(cl, err)
	}
	a, e := c.decode(cl, resp.StatusCode, body)
	return a, nil, e
}

func (c *Client) decode(cl call, status int, body []byte) (answer, *Error) {
	var a answer
	if status == http.StatusNoContent {
		return a, nil
	}
	if err := json.Unmarshal(body, &a); err != nil {
		// The text of the error is ours; the body may hold anything.
		return answer{}, &Error{Op: cl.op, Path: cl.path, Kind: Malformed, Status: status, Detail: "it is not JSON of the API's form; is this address a Vault server?"}
	}
	a.RequestID, a.raw = requestID(a.RequestID, cl.secrets), body
	return a, nil
}
