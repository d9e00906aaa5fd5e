// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Kind says what went wrong with a registry, for a caller that has to act.
type Kind int

// The kinds.
const (
	// NotFound: no such repository, manifest or blob (404); Code tells which.
	NotFound Kind = iota + 1
	// Unauthorized: no credentials, or not accepted ones (401).
	Unauthorized
	// Denied: the credentials do not allow it (403).
	Denied
	// RateLimited: 429 until the retry budget was spent.
	RateLimited
	// Unavailable: 408 or 5xx until the retry budget was spent.
	Unavailable
	// Unreachable: no connection, or one that broke or stalled.
	Unreachable
	// TLS: the handshake failed, such as for an unknown authority.
	TLS
	// PlainHTTP: one side speaks TLS and the other plain HTTP.
	PlainHTTP
	// Protocol: the answer is not what the distribution spec says.
	Protocol
	// Corrupt: bytes that are not those of their digest or size.
	Corrupt
	// TooLarge: over a limit of ours, or of the registry's (413).
	TooLarge
	// NotListed: a referrer was pushed and never appeared in the list.
	NotListed
	// Refused: any other 4xx; Code and Detail hold the registry's reason.
	Refused
	// ProxyRefused: a proxy on the way does not let us through (403 or 407 of its own).
	ProxyRefused
)

var kindText = map[Kind]string{
	NotFound:     "not found",
	Unauthorized: "not authenticated",
	Denied:       "access denied",
	RateLimited:  "rate limited",
	Unavailable:  "the registry is unavailable",
	Unreachable:  "the registry cannot be reached",
	TLS:          "TLS failed",
	PlainHTTP:    "TLS and plain HTTP do not meet",
	Protocol:     "the registry gave a malformed answer",
	Corrupt:      "content does not match its digest",
	TooLarge:     "too large",
	NotListed:    "pushed, and the registry does not list it",
	Refused:      "the registry refused the request",
	ProxyRefused: "not let through",
}

func (k Kind) String() string { return kindText[k] }

// Error is a failed exchange with a registry. It never holds a credential: URLs
// lose their query and user, and what the server says is bounded and cleaned.
type Error struct {
	// Op is what was being done: "resolve", "push blob".
	Op string
	// Reference is what it was done to, as far as it is known.
	Reference string
	Kind      Kind
	// Status is the HTTP status, zero when there was no answer.
	Status int
	// Code is the registry's error code, such as MANIFEST_UNKNOWN; "" without one.
	Code string
	// Detail is the registry's message, or ours when there was none.
	Detail string
	Err    error

	retryAfter time.Duration
	lied       bool   // the bytes came and are others
	token      bool   // the token endpoint said so
	again      bool   // a mirror may have it, and failed in a way that passes
	mirrors    string // what those said that were asked as well
	total      int64  // what a 416 says that there is, -1 when it does not
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s %s: %s", e.Op, e.Reference, e.reason())
	if e.mirrors != "" {
		text += "; " + e.mirrors
	}
	return text
}

// reason is the error without what was asked for.
func (e *Error) reason() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	switch {
	case e.Status != 0 && e.Code != "":
		fmt.Fprintf(&b, " (%d %s)", e.Status, e.Code)
	case e.Status != 0:
		fmt.Fprintf(&b, " (%d)", e.Status)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same request may succeed later, at a mirror too. A host
// name that was never found is not worth waiting for.
func (e *Error) Retryable() bool {
	if e.again {
		return true
	}
	switch e.Kind {
	case RateLimited:
		return true
	case Unavailable:
		return e.Status != http.StatusNotImplemented && e.Status != http.StatusHTTPVersionNotSupported
	case Unreachable:
		var dns *net.DNSError
		return !(errors.As(e.Err, &dns) && dns.IsNotFound)
	}
	return false
}

// RetryAfter is how long the registry asked to wait; zero when it did not.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// Answered reports whether the registry itself, or its token endpoint, said so, and no
// connection broke.
func (e *Error) Answered() bool { return e.Status != 0 || e.token }

// Retryable reports whether err is, or wraps, an *Error that may pass.
func Retryable(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Retryable()
}

// ConfigError is an option, or a file that an option names, that cannot be used.
type ConfigError struct {
	// Option says which: "CA file", "credentials".
	Option string
	Path   string
	Err    error
}

func (e *ConfigError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", e.Option, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Option, e.Path, e.Err)
}

func (e *ConfigError) Unwrap() error { return e.Err }

// ChangedError means that a file no longer holds the bytes it was hashed with.
// Nothing was committed to the registry.
type ChangedError struct{ Reference, Reason string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("push blob %s: the file changed while it was sent: %s", e.Reference, e.Reason)
}

// ProxyError means that a proxy did not connect us to a host, which need not be the
// registry: it may have sent us there.
type ProxyError struct {
	Proxy  string // without a user
	Host   string
	Status int
}

func (e *ProxyError) Error() string {
	return fmt.Sprintf("the proxy %s answered %d to CONNECT %s", e.Proxy, e.Status, e.Host)
}

// FallbackError means that the tag sha256-<hex>, which lists referrers on a
// registry without the API, holds something else. It is neither believed nor
// overwritten.
type FallbackError struct {
	Tag, Reason string
	// Itself says that the tag resolves to the subject, as GitLab has it for a tag
	// that does not exist.
	Itself bool
}

func (e *FallbackError) Error() string {
	return fmt.Sprintf("the tag %s is no list of referrers: %s", e.Tag, e.Reason)
}

// scrubbed prints a cleaned text in place of a chain whose own text may hold a
// signed URL, and keeps the chain for errors.Is and errors.As.
type scrubbed struct {
	text string
	err  error
}

func (s *scrubbed) Error() string { return s.text }
func (s *scrubbed) Unwrap() error { return s.err }

var (
	queryPattern = regexp.MustCompile(`\?[^\s"'<>]*`)
	userPattern  = regexp.MustCompile(`(://)[^\s"'/@]*@`)
)

func scrub(err error) error {
	return &scrubbed{text: scrubText(err.Error()), err: err}
}

func scrubText(s string) string {
	s = userPattern.ReplaceAllString(s, "$1")
	return clip(printable(queryPattern.ReplaceAllString(s, "")), 400)
}

// printable drops what could rewrite a terminal or forge a log line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// redirectError is a redirect or location that we do not follow.
type redirectError struct{ reason string }

func (e *redirectError) Error() string { return e.reason }

// errStalled is the cause of an attempt's context when the peer went silent.
var errStalled = errors.New("no answer in time")

// classify turns what a client returned instead of an answer into an *Error.
// Errors of other meaning (a cancelled context, a credential file) pass through.
func classify(ctx context.Context, op, ref string, err error) error {
	var known *Error
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errStalled) {
		if errors.As(cause, &known) {
			// Another request's, which ended this one: a 404 there is none here.
			cause = ctx.Err()
		}
		return fmt.Errorf("%s %s: %w", op, ref, cause)
	}
	var config *ConfigError
	if errors.As(err, &known) || errors.As(err, &config) {
		return err
	}
	e := &Error{Op: op, Reference: ref}
	if errors.Is(context.Cause(ctx), errStalled) {
		e.Kind, e.Err = Unreachable, errStalled
		return e
	}
	var token *errcode.ErrorResponse
	if errors.As(err, &token) {
		return tokenError(e, token)
	}
	e.Kind, e.Detail = kindOf(err)
	var broken *bodyError
	if errors.As(err, &broken) {
		// A TLS record or a trailer that is damaged on its way is a line that broke: the
		// handshake, and the answer's head, were good.
		e.Kind, e.Detail = Unreachable, ""
	}
	e.Err = scrub(innermost(err))
	return e
}

// bodyError is one of reading an answer that has begun.
type bodyError struct{ err error }

func (b *bodyError) Error() string { return b.err.Error() }
func (b *bodyError) Unwrap() error { return b.err }

// tokenError is for an answer of the token endpoint, which oras-go returns as an
// error. Its status is not the registry's: a 404 does not say what is not there.
func tokenError(e *Error, token *errcode.ErrorResponse) error {
	e.Kind, e.token = kindOfStatus(token.StatusCode), true
	e.Detail = fmt.Sprintf("the token endpoint %s answered %d", token.URL.Host, token.StatusCode)
	if len(token.Errors) > 0 {
		e.Code = clip(printable(token.Errors[0].Code), 60)
		e.Detail += ": " + scrubText(token.Errors[0].Message)
	}
	if e.Kind == NotFound || e.Kind == Refused {
		// 400 and 404 of a token endpoint say nothing about the artifact.
		e.Kind = Unauthorized
	}
	return e
}

// innermost drops the layer that repeats the whole URL.
func innermost(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func kindOf(err error) (Kind, string) {
	var (
		redirect *redirectError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		u        *url.Error
		proxy    *ProxyError
	)
	text := err.Error()
	switch {
	case errors.As(err, &proxy) && (proxy.Status == http.StatusForbidden || proxy.Status == http.StatusProxyAuthRequired):
		return ProxyRefused, ""
	case proxy != nil:
		return Unreachable, ""
	case errors.As(err, &redirect):
		return Protocol, ""
	case errors.Is(err, http.ErrSchemeMismatch):
		return PlainHTTP, "the registry speaks plain HTTP and was asked over TLS"
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid),
		errors.As(err, &verify), errors.As(err, &record), errors.As(err, &alert),
		strings.Contains(text, "tls: "):
		return TLS, ""
	case strings.Contains(text, `malformed HTTP response "\x15\x03`):
		return PlainHTTP, "the registry speaks TLS and was asked in plain HTTP"
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "malformed MIME header"):
		return Protocol, ""
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return Unauthorized, ""
	case errors.As(err, &u), isNetwork(err):
		return Unreachable, ""
	}
	// What is left comes from the challenge: a realm that is refused, a token
	// that cannot be read, half a credential.
	return Unauthorized, ""
}

func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func kindOfStatus(status int) Kind {
	switch {
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusUnauthorized:
		return Unauthorized
	case status == http.StatusForbidden:
		return Denied
	case status == http.StatusProxyAuthRequired:
		return ProxyRefused
	case status == http.StatusTooManyRequests:
		return RateLimited
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
		return Unavailable
	case status == http.StatusRequestEntityTooLarge:
		return TooLarge
	case status >= 400:
		return Refused
	}
	return Protocol
}

// maxErrorBody bounds how much of a refusal is read, so that an endless one
// cannot hold the client.
const maxErrorBody = 8 << 10

// statusError makes an *Error of an answer with an unwanted status. It reads the
// body's beginning and does not close it.
func statusError(c call, registry *url.URL, resp *http.Response) *Error {
	e := &Error{Op: c.op, Reference: c.about, Kind: kindOfStatus(resp.StatusCode), Status: resp.StatusCode}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if code, message, ok := reasonOf(raw); ok {
		e.Code, e.Detail = code, message
	} else if spokeTLS(resp, raw) {
		e.Kind, e.Detail = PlainHTTP, "the registry speaks TLS and was asked in plain HTTP"
	} else if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == "text/plain" {
		e.Detail = clip(scrubText(strings.TrimSpace(string(raw))), 200)
	}
	if e.Kind == Protocol {
		e.Detail = "unexpected status"
	}
	e.total = -1
	if n, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */"); ok && e.Status == http.StatusRequestedRangeNotSatisfiable {
		if total, err := strconv.ParseInt(n, 10, 64); err == nil {
			e.total = total
		}
	}
	if from := resp.Request.URL; !sameOrigin(registry, from) {
		if (e.Kind == Unauthorized || e.Kind == Denied) && c.content {
			// The registry has let us through, and no credentials went there: its URL is no
			// longer good, or that host is not well.
			e.Kind = Unavailable
		}
		e.Detail = strings.TrimSuffix("from "+from.Host+": "+e.Detail, ": ")
	}
	return e
}

// reasonOf reads the first error of a refusal (distribution spec 1.1, "Error Codes").
func reasonOf(raw []byte) (code, message string, ok bool) {
	var body struct {
		Errors []struct {
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(raw, &body) != nil || len(body.Errors) == 0 {
		return "", "", false
	}
	return errorCode(body.Errors[0].Code), scrubText(body.Errors[0].Message), true
}

// errorCode reads the code of an error. Some put the status there, as a number.
func errorCode(raw json.RawMessage) string {
	var text string
	var number json.Number
	switch {
	case json.Unmarshal(raw, &text) == nil:
	case json.Unmarshal(raw, &number) == nil:
		text = number.String()
	}
	return clip(printable(text), 60)
}

// spokeTLS knows the 400 of Go's, nginx's and Apache's TLS ports to plain HTTP. To
// a HEAD they say less: Go's has no header at all, the others' is of a page, which
// no registry sends.
func spokeTLS(resp *http.Response, raw []byte) bool {
	if resp.StatusCode != http.StatusBadRequest || resp.Request.URL.Scheme != "http" {
		return false
	}
	if resp.Request.Method == http.MethodHead {
		return isPage(resp.Header) || len(resp.Header) == 0 && !resp.ProtoAtLeast(1, 1)
	}
	text := string(raw)
	return strings.Contains(text, "HTTP request to an HTTPS server") ||
		strings.Contains(text, "plain HTTP request was sent to HTTPS port") ||
		strings.Contains(text, "speaking plain HTTP to an SSL-enabled server port")
}

// inPlaceOfAnswer reports whether an answer is a web page and no registry's. Quay, which
// is written in Flask, says that it is one of each answer that has no type of its own:
// those to uploads, which have no body, and that to /v2/, which is "true". The beginning
// of the body may be read, and is put back.
func inPlaceOfAnswer(resp *http.Response) bool {
	if !isPage(resp.Header) {
		return false
	}
	if resp.Request.Method == http.MethodHead {
		return true
	}
	body := bufio.NewReaderSize(resp.Body, maxErrorBody)
	resp.Body = &peeked{body, resp.Body}
	begin, _ := body.Peek(maxErrorBody) // an error comes again
	return bytes.HasPrefix(bytes.TrimLeft(begin, "\ufeff \t\r\n"), []byte("<"))
}

// peeked is a body whose beginning was read.
type peeked struct {
	*bufio.Reader
	io.Closer
}

// isPage reports whether an answer says that it is a web page. A manifest that somebody
// pushed under that media type is not one: registries name its digest.
func isPage(header http.Header) bool {
	if header.Get(digestHeader) != "" {
		return false
	}
	t, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return t == "text/html" || t == "application/xhtml+xml"
}
