// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
)

// refused classifies an answer with an error status.
func (c *Client) refused(cl call, resp *api.Response, r *api.ResponseError) (answer, *url.URL, *Error) {
	body, _ := io.ReadAll(resp.Body) // a buffer by now
	var a answer
	decoded := json.Unmarshal(body, &a) == nil
	if r.StatusCode == http.StatusBadRequest && decoded && hasBatchResults(a.Data) {
		// Some releases answer 400 when items of a batch fail; the items say how.
		return a, nil, nil
	}
	text := strings.Join(r.Errors, "; ")
	e := &Error{
		Op: cl.op, Path: cl.path, Kind: kindOf(r.StatusCode, strings.ToLower(text)), Status: r.StatusCode,
		Detail: c.public(cl, text), RequestID: requestID(a.RequestID, cl.secrets), retryAfter: c.retryAfter(resp.Header),
	}
	switch e.Kind {
	case Denied:
		e.vague = !strings.Contains(text, "occurred")
		e.Capability, e.Detail = cl.capability, ""
	case Sealed, Standby:
		e.Detail = ""
	}
	return answer{}, nil, e
}

func hasBatchResults(data json.RawMessage) bool {
	var d struct {
		Results []json.RawMessage `json:"batch_results"`
	}
	return len(data) > 0 && json.Unmarshal(data, &d) == nil && len(d.Results) > 0
}

// kindOf follows the statuses of the HTTP API (Vault docs, "HTTP status codes")
// and, where one status means several things, the server's own text.
func kindOf(status int, text string) Kind {
	switch status {
	case http.StatusForbidden:
		if strings.Contains(text, "invalid token") || strings.Contains(text, "bad token") {
			return TokenInvalid
		}
		return Denied
	case http.StatusUnauthorized:
		return TokenInvalid
	case http.StatusNotFound:
		return KeyNotFound
	case http.StatusTooManyRequests:
		return RateLimited
	case 472, 473: // secondaries for disaster recovery and performance
		return Standby
	case http.StatusPreconditionFailed: // the node lags behind
		return Unavailable
	case http.StatusBadRequest:
		switch {
		case strings.Contains(text, "missing client token"):
			return NoToken
		case strings.Contains(text, "http request to an https server"):
			return TLS
		case strings.Contains(text, "key not found"):
			return KeyNotFound
		case strings.Contains(text, "does not support signing"), strings.Contains(text, "does not support verification"):
			return KeyUnsuitable
		}
	}
	if status < 500 {
		return BadRequest
	}
	switch {
	case strings.Contains(text, "is sealed"):
		return Sealed
	case strings.Contains(text, "standby"), strings.Contains(text, "active cluster node not found"):
		return Standby
	case strings.Contains(text, "not initialized"), strings.Contains(text, "not been initialized"):
		return Uninitialized
	}
	return Unavailable
}

// broken classifies the lack of an answer.
func (c *Client) broken(cl call, err error) *Error {
	e := &Error{Op: cl.op, Path: cl.path, Kind: Unreachable, Err: err}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its URL says no more than Path
	}
	e.Detail = c.public(cl, c.endpoint.url.Host+": "+err.Error())
	if c.endpoint.socket != "" {
		e.Detail = c.public(cl, err.Error())
	}
	var (
		tooLarge  *http.MaxBytesError
		unknownCA x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &tooLarge):
		e.Kind, e.Detail = Malformed, "it is longer than "+strconv.Itoa(maxAnswer)+" bytes"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		e.Kind, e.Detail = TLS, c.endpoint.url.Host+" speaks plain HTTP, and the address says https"
	case errors.As(err, &unknownCA), errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &verify), errors.As(err, &alert):
		e.Kind = TLS
	case errors.As(err, &dns):
		e.Detail = c.public(cl, dns.Error())
	}
	return e
}

// public makes a server's text fit to be shown: one line, bounded, and without
// the token and what else was sent in secret, which a hostile server could send
// back.
func (c *Client) public(cl call, text string) string { return public(text, cl.token, cl.secrets...) }

func public(text, token string, secrets ...string) string {
	if token != "" {
		text = strings.ReplaceAll(text, token, "[token]")
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	return clip(text, 300)
}

var uuid = lazyregexp.New(`^[0-9a-fA-F-]{1,64}$`)

// requestID is id if it has the form of one, which no token has. A secret_id has
// it, and must not come back as one.
func requestID(id string, secrets []string) string {
	if !uuid().MatchString(id) || slices.Contains(secrets, id) {
		return ""
	}
	return id
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date.
func (c *Client) retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return time.Duration(min(n, 24*3600)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(c.cfg.Now()))
	}
	return 0
}
