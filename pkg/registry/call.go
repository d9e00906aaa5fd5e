// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// call is one request to a registry, as often as it takes.
type call struct {
	op     string
	about  string // what the operation is about, for errors
	method string
	url    url.URL
	header http.Header
	push   bool // ask for a token that may push
	// noScope asks for a token that allows nothing, as a login does.
	noScope bool
	// pullFrom is a further repository that the token must be able to read.
	pullFrom string
	accept   []int // statuses that are an answer; others are errors
	// content says that the answer is a blob, which may be of any type.
	content bool
	// pageToo says that a web page is an answer: the caller looks at the type.
	pageToo bool
	// limit bounds the answer's body, which is read whole. Zero leaves the body
	// out; negative leaves it open, as answer.stream.
	limit int64
	// body opens the content to send, of exactly size bytes.
	body func() (io.ReadCloser, error)
	size int64
	// blob says that it uploads a blob, or commits one: the registry may move it into its
	// place before it answers.
	blob bool
}

type answer struct {
	status int
	header http.Header
	length int64   // Content-Length, -1 when unknown
	from   url.URL // where it came from, after redirects; it may hold a signature
	body   []byte
	stream *stream
	tls    *tls.ConnectionState // nil for plain HTTP
}

// do sends c until it is answered.
func (r *Repository) do(ctx context.Context, c call) (*answer, error) {
	if r.once {
		return r.send(ctx, c)
	}
	var got *answer
	err := r.try(ctx, func(ctx context.Context) (bool, error) {
		var err error
		got, err = r.send(ctx, c)
		return false, err
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// watchdog cancels an attempt whose peer is silent for too long.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func watch(ctx context.Context, d time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watchdog{timer: time.AfterFunc(d, func() { cancel(errStalled) }), cancel: cancel}
}

func (w *watchdog) allow(d time.Duration) { w.timer.Reset(d) }

func (w *watchdog) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// send sends c once. Errors are those of classify and statusError.
func (r *Repository) send(ctx context.Context, c call) (*answer, error) {
	timeout := r.client.options.AnswerTimeout
	t := &tally{requests: &r.requests}
	attempt, dog := watch(context.WithValue(ctx, tallyKey{}, t), timeout)
	got, err := r.exchange(attempt, dog, c)
	if err != nil {
		err = classify(attempt, c.op, c.about, err)
		dog.end()
		if errors.Is(err, errStalled) {
			r.DropIdle()
		}
		// One that is wrapped is another request's, such as of a body that is read from one.
		if e, ok := err.(*Error); ok {
			e.retryAfter = time.Duration(t.retryAfter.Load())
		}
		return nil, err
	}
	if got.stream == nil {
		dog.end()
	}
	return got, nil
}

func (r *Repository) exchange(ctx context.Context, dog *watchdog, c call) (*answer, error) {
	resp, err := r.roundTrip(ctx, dog, c)
	if err != nil {
		return nil, err
	}
	dog.allow(r.client.options.AnswerTimeout)
	if !slices.Contains(c.accept, resp.StatusCode) {
		defer resp.Body.Close()
		return nil, statusError(c, &r.base, resp)
	}
	if !c.content && !c.pageToo && inPlaceOfAnswer(resp) {
		// A web server, a captive portal or a log-in page where a registry was
		// looked for: no word about the artifact.
		defer resp.Body.Close()
		e := newError(c.op, c.about, Protocol, "a web page")
		e.Status = resp.StatusCode
		return nil, e
	}
	if coding := coded(resp.Header); !c.content && coding != "" && c.limit != 0 {
		defer resp.Body.Close()
		return nil, codedError(c, resp.StatusCode, coding)
	}
	got := &answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, from: *resp.Request.URL, tls: resp.TLS}
	if c.limit < 0 {
		dog.timer.Stop()
		got.stream = &stream{body: resp.Body, dog: dog, ctx: ctx, op: c.op, about: c.about}
		return got, nil
	}
	defer resp.Body.Close()
	if c.limit == 0 {
		// Read what there is of a short one, so that the connection can be used
		// again.
		_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
		return got, nil
	}
	if resp.ContentLength > c.limit {
		return nil, tooLarge(c, "%d bytes announced, at most %d are read", resp.ContentLength, c.limit)
	}
	got.body, err = io.ReadAll(io.LimitReader(resp.Body, c.limit+1))
	if err != nil {
		return nil, &bodyError{err}
	}
	if int64(len(got.body)) > c.limit {
		return nil, tooLarge(c, "more than the %d bytes that are read", c.limit)
	}
	return got, nil
}

// coded is how an answer is coded, "" when it is as it was stored.
func coded(header http.Header) string {
	if coding := header.Get("Content-Encoding"); !strings.EqualFold(coding, "identity") {
		return coding
	}
	return ""
}

// codedError says nothing about the artifact: somebody on the way compresses, which was not
// asked for.
func codedError(c call, status int, coding string) error {
	e := newError(c.op, c.about, Unavailable, "the answer comes in the coding %q, which was not asked for", clip(printable(coding), 40))
	e.Status = status
	return e
}

// roundTrip sends c to the registry with credentials, or to another host, where
// an upload may be sent, with none.
func (r *Repository) roundTrip(ctx context.Context, dog *watchdog, c call) (*http.Response, error) {
	actions := []string{auth.ActionPull}
	if c.push {
		actions = append(actions, auth.ActionPush)
	}
	if !c.noScope {
		scopes := []string{auth.ScopeRepository(r.scope(), actions...)}
		if c.pullFrom != "" {
			scopes = append(scopes, auth.ScopeRepository(c.pullFrom, auth.ActionPull))
		}
		ctx = auth.WithScopesForHost(ctx, r.base.Host, scopes...)
	}
	build := func(ctx context.Context) (*http.Request, error) { return r.request(ctx, dog, c) }
	if sameOrigin(&r.base, &c.url) {
		return r.doAuthorized(ctx, dog, build)
	}
	req, err := build(ctx)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", r.client.options.UserAgent)
	return r.client.http.Do(req)
}

func (r *Repository) request(ctx context.Context, dog *watchdog, c call) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, c.url.String(), nil)
	if err != nil {
		return nil, err
	}
	for key, values := range c.header {
		req.Header[key] = slices.Clone(values)
	}
	if c.method == http.MethodGet {
		// Without it any coding would do (RFC 9110, section 12.5.3), and what is hashed is
		// what was stored.
		req.Header.Set("Accept-Encoding", "identity")
	}
	return req, r.setBody(req, dog, c)
}

// commitPatience is how many times as long as any other answer the one is waited for that
// comes after a blob was moved into its place: a storage like S3 copies it.
const commitPatience = 10

// setBody makes the request's body one that can be sent again, as a 401 in the
// middle needs, and that keeps the watchdog awake while it flows.
func (r *Repository) setBody(req *http.Request, dog *watchdog, c call) error {
	timeout := r.client.options.AnswerTimeout
	last := timeout
	if c.blob {
		last *= commitPatience
	}
	if c.body == nil {
		return nil
	}
	open := func() (io.ReadCloser, error) {
		body, err := c.body()
		if err != nil {
			return nil, err
		}
		f := &flowing{ReadCloser: body, dog: dog, each: timeout, last: last, left: c.size}
		if b, ok := body.(piecer); ok {
			return &flowingPieces{flowing: f, pieces: b}, nil
		}
		return f, nil
	}
	req.ContentLength = c.size
	if c.size == 0 {
		dog.allow(last)
		req.Body = http.NoBody
		return nil
	}
	body, err := open()
	if err != nil {
		return err
	}
	req.Body, req.GetBody = body, open
	return nil
}

// flowing resets the watchdog with every read. It is patient while what is sent is
// waited for: that is no silence of the peer, and who reads it has a budget.
type flowing struct {
	io.ReadCloser
	dog        *watchdog
	each, last time.Duration
	left       int64
}

func (f *flowing) Read(p []byte) (int, error) {
	f.dog.allow(f.last)
	n, err := f.ReadCloser.Read(p)
	f.flowed(n)
	return n, err
}

func (f *flowing) flowed(n int) {
	if f.left -= int64(n); f.left > 0 {
		f.dog.allow(f.each)
	} else {
		f.dog.allow(f.last)
	}
}

// flowingPieces is flowing for a body that shows its bytes. Who sends a piece calls
// flowed as it goes out.
type flowingPieces struct {
	*flowing
	pieces piecer
}

func (f *flowingPieces) Piece(n int64) (p []byte, done func(), err error) {
	f.dog.allow(f.last)
	defer f.flowed(0)
	return f.pieces.Piece(n)
}

// stream is an open answer. Its read errors are *Error, its Close ends the attempt.
type stream struct {
	body      io.ReadCloser
	dog       *watchdog
	ctx       context.Context
	op, about string
	left      int64 // that were promised, zero when nothing was
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if s.left = max(0, s.left-int64(n)); err == io.EOF && s.left > 0 {
		// Without a length a connection that breaks looks like the end of the blob.
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		err = classify(s.ctx, s.op, s.about, &bodyError{err})
	}
	return n, err
}

func (s *stream) Close() error {
	err := s.body.Close()
	s.dog.end()
	return err
}

func tooLarge(c call, format string, args ...any) *Error {
	return newError(c.op, c.about, TooLarge, format, args...)
}
