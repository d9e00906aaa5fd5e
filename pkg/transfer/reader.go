// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package transfer moves one blob. NewReader reads it in one stream, through cut
// and stalled connections; Open does the same and adds connections where one is
// what limits the speed. It knows no registry and verifies nothing: the bytes
// come in order, and their reader hashes them.
package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/jitter"
)

// Source opens a blob at an offset. The bytes are unverified, and there may be
// fewer or more of them than desc says. at is where they begin: the offset, or zero
// where there is the whole blob to be had only, whose beginning the reader discards.
type Source interface {
	OpenBlob(ctx context.Context, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, at int64, err error)
}

const (
	defaultBudget = 2 * time.Minute
	defaultStall  = 30 * time.Second
	leastStall    = time.Second
	firstBackoff  = 250 * time.Millisecond
	maxBackoff    = 15 * time.Second
	// defaultLeast is 270 bytes a second: no line is as slow that is not broken.
	defaultLeast = 8 << 10
)

// Options tune a Reader. The zero value is usable.
type Options struct {
	// Budget bounds the time without a new byte, tries and waits together; every
	// byte starts it anew. Zero means two minutes.
	Budget time.Duration
	// Stall is how long one read may take before its connection is given up, and
	// within what time of reading it has to bring Least bytes. Time in which nobody
	// reads does not count. Zero means 30 seconds, or half of Budget where that is less.
	Stall time.Duration
	// Least is the fewest bytes that have to come within Budget and Stall (30 seconds, if
	// that is zero) together, however many connections it takes. Zero means 8 KiB, less
	// than zero none.
	Least int64
	// Retryable decides about a Source's errors. Nil asks the error itself
	// (Retryable() bool), and takes network errors and unexpected ends for
	// retryable.
	Retryable func(error) bool
	// OnRetry is told why before each new try. Nil is none.
	OnRetry func(error)
	// OnDiscard hears of bytes that came and lie before what was asked for. Nil is
	// nobody.
	OnDiscard func(n int64)
	// Logger gets a line for each retry, at debug level. Nil discards.
	Logger *slog.Logger
	// Now is the clock, nil means time.Now; Sleep waits, nil means a timer.
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error

	slow time.Duration // in which Least has to come
}

// ShortError means that a source ended cleanly before the size its descriptor
// says, twice at the same place.
type ShortError struct{ Got, Want int64 }

func (e *ShortError) Error() string {
	return fmt.Sprintf("the blob ends after %d of %d bytes", e.Got, e.Want)
}

// StalledError means that a connection brought nothing, or next to nothing, for too long.
type StalledError struct {
	// After is how long it was waited for.
	After time.Duration
}

func (e *StalledError) Error() string {
	return fmt.Sprintf("the transfer stalled: nothing came for %v", e.After)
}

// Retryable is always true.
func (e *StalledError) Retryable() bool { return true }

func isStalled(err error) bool {
	var stalled *StalledError
	return errors.As(err, &stalled)
}

// NewReader reads desc from offset on and ends at desc.Size, whatever the source
// sends. When a connection breaks or stalls it opens another one where it is,
// after a random wait, and a little more than the server asks for, until the
// budget is spent; then the last error is returned. It opens the source at the
// first Read. Read is for one goroutine at a time; Close may be called from
// another, and ends a Read that waits.
func NewReader(ctx context.Context, src Source, desc ocispec.Descriptor, offset int64, o Options) io.ReadCloser {
	return newSingle(ctx, src, desc, offset, o.withDefaults())
}

func newSingle(ctx context.Context, src Source, desc ocispec.Descriptor, offset int64, o Options) *reader {
	open := func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
		return src.OpenBlob(ctx, desc, offset)
	}
	return newReader(ctx, open, desc, offset, desc.Size, o)
}

func (o Options) withDefaults() Options {
	if o.Budget <= 0 {
		o.Budget = defaultBudget
	}
	o.slow = cmp.Or(o.slow, o.Budget+cmp.Or(max(0, o.Stall), defaultStall))
	if o.Stall <= 0 {
		// One connection that stalls leaves time for another.
		o.Stall = min(defaultStall, max(o.Budget/2, leastStall))
	}
	if o.Least == 0 {
		o.Least = defaultLeast
	}
	if o.Retryable == nil {
		o.Retryable = retryable
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return o
}

// newReader reads from offset up to end; open opens a body at an offset.
func newReader(ctx context.Context, open openFunc, desc ocispec.Descriptor, offset, end int64, o Options) *reader {
	r := &reader{open: open, desc: desc, offset: offset, end: end, o: o}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	if offset < 0 || offset > desc.Size {
		r.err = fmt.Errorf("offset %d is outside of the blob's %d bytes", offset, desc.Size)
	}
	return r
}

type openFunc func(ctx context.Context, offset int64) (body io.ReadCloser, at int64, err error)

type reader struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	open   openFunc
	desc   ocispec.Descriptor
	o      Options
	offset int64
	end    int64

	mu  sync.Mutex // held by Read; Close waits for it
	err error      // final

	conn *connection
	live atomic.Pointer[connection] // the last one, for who does not hold mu
	// spent is the time without a new byte, tries the tries in it, and inVain what was
	// discarded at this offset. slow is the time in which the bytes of arrived came,
	// which are fewer than Least.
	spent, slow time.Duration
	tries       int
	arrived     int64
	inVain      int64
	// ended counts clean early ends at this offset.
	ended int
}

// connection is one opened body with the watchdog over its reads.
type connection struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	// skip is what comes before the reader's offset. waited and arrived are slow and
	// arrived of this connection's reads.
	skip    int64
	waited  time.Duration
	arrived int64
}

func (c *connection) close() {
	c.timer.Stop()
	c.body.Close()
	c.cancel(context.Canceled)
}

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for r.offset < r.end {
		n, err := r.once(p)
		if n > 0 {
			r.offset += int64(n)
			r.spent, r.tries, r.ended, r.inVain = 0, 0, 0, 0
		}
		if err != nil {
			r.disconnect()
		}
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if err := r.again(err); err != nil {
			return 0, r.fail(err)
		}
	}
	r.disconnect()
	return 0, r.fail(io.EOF)
}

// once opens a connection if there is none, and reads from it once. It returns
// nothing, and no error, when what it read is to be discarded.
func (r *reader) once(p []byte) (int, error) {
	if r.conn == nil {
		if err := r.connect(); err != nil {
			return 0, err
		}
	}
	c := r.conn
	if c.waited > r.o.Stall && r.o.Least > 0 {
		return 0, &StalledError{r.o.Stall}
	}
	left := r.end - r.offset
	if c.skip > 0 {
		left = c.skip
	}
	if int64(len(p)) > left {
		p = p[:left]
	}
	began := r.o.Now()
	c.timer.Reset(r.o.Stall)
	n, err := c.body.Read(p)
	c.timer.Stop()
	r.took(c, n, r.o.Now().Sub(began))
	if cause := context.Cause(c.ctx); err != nil && err != io.EOF && isStalled(cause) {
		err = cause
	}
	if c.skip == 0 || n == 0 {
		return n, err
	}
	c.skip -= int64(n)
	r.inVain += int64(n)
	if r.o.OnDiscard != nil {
		r.o.OnDiscard(int64(n))
	}
	return 0, err
}

// took takes note of how long a read of n bytes took.
func (r *reader) took(c *connection, n int, d time.Duration) {
	if n == 0 {
		r.spent += d
	}
	r.slow += d
	c.waited += d
	r.arrived += int64(n)
	if c.arrived += int64(n); c.arrived >= r.o.Least {
		c.waited, c.arrived = 0, 0
	}
	if r.arrived >= r.o.Least {
		r.slow, r.arrived = 0, 0
	}
}

// failed takes note of time that brought nothing.
func (r *reader) failed(d time.Duration) {
	r.spent += d
	r.slow += d
}

func (r *reader) connect() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	began := r.o.Now()
	body, at, err := r.open(ctx, r.offset)
	r.failed(r.o.Now().Sub(began))
	if err != nil {
		cancel(context.Canceled)
		return err
	}
	timer := time.AfterFunc(time.Hour, func() { cancel(&StalledError{r.o.Stall}) })
	timer.Stop()
	r.conn = &connection{body: body, ctx: ctx, cancel: cancel, timer: timer, skip: r.offset - at}
	r.live.Store(r.conn)
	return nil
}

// again waits for the next try, or returns the error to end with.
func (r *reader) again(err error) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if err == io.EOF {
		// A connection that is closed instead of cut also looks like an end.
		if r.ended++; r.ended > 1 {
			return &ShortError{Got: r.offset, Want: r.desc.Size}
		}
	} else if !isStalled(err) && !r.o.Retryable(err) {
		return err
	}
	wait := retryWait(r.tries, err)
	if r.spent+wait > r.o.Budget || r.o.Least > 0 && r.slow+wait > r.o.slow || r.inVain > max(maxInVain, maxRestarts*r.desc.Size) {
		if err == io.EOF {
			return &ShortError{Got: r.offset, Want: r.desc.Size}
		}
		return err
	}
	room := r.o.Budget - r.spent
	if r.o.Least > 0 {
		room = min(room, r.o.slow-r.slow)
	}
	wait = max(wait, jitter.After(retryAfter(err), room))
	r.tries++
	r.failed(wait)
	r.o.Logger.LogAttrs(r.ctx, slog.LevelDebug, "transfer retry",
		slog.String("digest", r.desc.Digest.String()), slog.Int64("offset", r.offset),
		slog.String("reason", err.Error()), slog.Duration("wait", wait))
	if r.o.OnRetry != nil {
		r.o.OnRetry(err)
	}
	return r.o.Sleep(r.ctx, wait)
}

// drop gives the connection up as one that stalled: another one goes on where it is. It
// reports whether there was one, and may be called while a Read waits.
func (r *reader) drop(after time.Duration) bool {
	c := r.live.Load()
	if c == nil || c.ctx.Err() != nil {
		return false
	}
	c.cancel(&StalledError{after})
	return true
}

// body is what is read now, nil between two connections.
func (r *reader) body() io.ReadCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		return nil
	}
	return r.conn.body
}

func (r *reader) disconnect() {
	if r.conn != nil {
		r.conn.close()
		r.conn = nil
	}
}

func (r *reader) fail(err error) error {
	r.err = err
	return err
}

// Close ends the transfer. Reads after it fail.
func (r *reader) Close() error {
	r.cancel(errClosed)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disconnect()
	if r.err == nil {
		r.err = errClosed
	}
	return nil
}

var errClosed = errors.New("the reader is closed")

func retryable(err error) bool {
	var says interface{ Retryable() bool }
	if errors.As(err, &says) {
		return says.Retryable()
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
}

// retryWait is how long to wait after so many tries and an error, which may ask for more.
func retryWait(tries int, err error) time.Duration {
	return max(backoff(tries), retryAfter(err))
}

func retryAfter(err error) time.Duration {
	var asks interface{ RetryAfter() time.Duration }
	if errors.As(err, &asks) {
		return asks.RetryAfter()
	}
	return 0
}

// backoff is full jitter under a doubling bound.
func backoff(n int) time.Duration {
	bound := maxBackoff
	if n < 10 {
		bound = min(maxBackoff, firstBackoff<<n)
	}
	return rand.N(bound) + time.Millisecond
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
