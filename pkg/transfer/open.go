// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// RangeSource is a Source that can also open a part of a blob.
type RangeSource interface {
	Source
	// OpenRange opens the bytes from offset up to end, both within the blob. An
	// error that is ErrNoRanges says that the server sends whole blobs only.
	OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, end int64) (io.ReadCloser, error)
}

// Ranging may be a body of a Source that knows what its server says of ranges.
type Ranging interface {
	// Ranges reports whether to ask for a part of the blob. It is called when one is
	// wanted and would be asked for at once.
	Ranges() bool
	// Part asks the very server that sends the body for the blob's bytes from offset up
	// to end. Its errors are those of RangeSource.
	Part(ctx context.Context, offset, end int64) (io.ReadCloser, error)
}

// ErrNoRanges means that a server answers a range with the whole blob.
var ErrNoRanges = errors.New("the server does not send ranges")

const (
	// watchFor is how long a stream is measured before it is judged, and watchLess where
	// all are farSlower times slower than what is enough: no hiccup looks like that. A far
	// connection, as its first read tells, is still getting faster then.
	watchFor  = 300 * time.Millisecond
	watchLess = 150 * time.Millisecond
	farSlower = 3
	// burst is for how long of it nothing is counted after the first bytes: who bounds a rate
	// lets more pass at once, as a rule.
	burst = 30 * time.Millisecond
	isFar = 80 * time.Millisecond // four round trips, most often
	// quietFor is how long nobody tries more connections after they did not help; a
	// pause begins with as much.
	quietFor = 10 * time.Second
	// worthwhile is how much must be left for more connections to pay.
	worthwhile = 4 * segmentSize
	// askFor is how long a first part may take to come.
	askFor = 10 * time.Second
)

// Open reads desc from offset on, as NewReader does. While one stream is slow and
// it is the network that its reader waits for, further connections of pool fetch
// the segments that come next into bounded memory, so that the bytes still come
// in order and what was handed out has no holes. The one stream is not given up before
// a part was sent: a cache may be storing what it sends, and has no parts until it has
// the whole. Read is for one goroutine at a time; Close may be called from another.
func Open(ctx context.Context, pool *Pool, src RangeSource, desc ocispec.Descriptor, offset int64, o Options) Reader {
	o = o.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{ctx: ctx, cancel: cancel, pool: pool, src: src, desc: desc, o: o, offset: offset, alone: pool == nil || pool.max == 0}
	if pool != nil {
		pool.streams.Add(1)
	}
	s.single = newSingle(ctx, src, desc, offset, o)
	return s
}

type stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	pool   *Pool
	src    RangeSource
	desc   ocispec.Descriptor
	o      Options

	mu     sync.Mutex // held by Read; Close waits for it
	offset int64
	single *reader // nil while there is a fan
	fan    *fan
	asked  chan error // what came of asking for a part, nil while nobody does
	alone  bool       // for good: there are no ranges, or no pool of connections
	asking sync.WaitGroup
	rate   float64 // of one stream, when it was last measured
	best   float64 // that any stream had
	gauge  gauge
	pause  pause // of trying more connections
	closed bool
}

// pause is how long a blob does not try again what did not help: twice as long each time.
// The zero value is over.
type pause struct {
	length time.Duration
	end    time.Time
}

func (p *pause) begin(now time.Time) {
	p.length = max(quietFor, 2*p.length)
	p.end = now.Add(p.length)
}

func (p *pause) over(now time.Time) bool { return !now.Before(p.end) }

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(&p, false)
}

// Reader is what Open returns.
type Reader interface {
	io.ReadCloser
	Exchanger
}

// Exchanger may be a reader whose bytes lie in buffers that it can spare. It is for package
// model, which has such buffers too.
type Exchanger interface {
	// Exchange fills *b, as io.ReadFull does but for the errors, which are those of Read,
	// or puts in its place a full one, which saves a copy: the one that was there is not
	// the caller's any more. It may fill less of *b where the next bytes are in another
	// buffer.
	Exchange(b *buffer.Block) (n int, err error)
}

// Exchange is that of an Exchanger.
func (s *stream) Exchange(b *buffer.Block) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fan != nil {
		return s.read((*[]byte)(b), true)
	}
	// In several connections the bytes begin in a buffer of their own.
	for n < len(*b) && err == nil && s.fan == nil {
		var k int
		p := []byte((*b)[n:])
		k, err = s.read(&p, false)
		n += k
	}
	return n, err
}

// read is Read or, when it may be exchanged, Exchange of what has come over several
// connections.
func (s *stream) read(b *[]byte, exchange bool) (int, error) {
	if s.fan != nil {
		n, err := s.fan.read(b, exchange)
		s.offset += int64(n)
		s.pool.moved.Add(int64(n))
		if n > 0 || !errors.Is(err, ErrNoRanges) && !errors.Is(err, errDrained) {
			return n, err
		}
		s.fan.close()
		// Parts were sent before: another source may have answered now, which will not do
		// so for good.
		s.fan, s.gauge = nil, gauge{}
		s.pause.begin(s.o.Now())
		s.single = newSingle(s.ctx, s.src, s.desc, s.offset, s.o)
	}
	before := s.o.Now()
	n, err := s.single.Read(*b)
	s.offset += int64(n)
	if s.alone {
		return n, err
	}
	all := s.pool.moved.Add(int64(n))
	now := s.o.Now()
	if s.asked != nil {
		if err == nil {
			s.hear(now)
		}
		return n, err
	}
	ended, slow := s.gauge.slow(int64(n), all, s.pool.enough, before, now)
	if !ended {
		return n, err
	}
	s.rate = s.gauge.rate
	s.best = s.pool.bestAlone(s.rate, now)
	if slow && err == nil && s.desc.Size-s.offset >= worthwhile && now.UnixNano() > s.pool.quiet.Load() && s.pause.over(now) {
		s.ask()
	}
	return n, err
}

// ask asks for the blob's last byte, if there is a connection for it and the server may
// send parts. The stream goes on meanwhile: a cache that has the whole blob only while it
// fetches it would begin anew if nobody read, and not store it.
func (s *stream) ask() {
	if !s.pool.connections.TryAcquire(1) {
		return
	}
	part := func(ctx context.Context, offset, end int64) (io.ReadCloser, error) {
		return s.src.OpenRange(ctx, s.desc, offset, end)
	}
	if body, ok := s.single.body().(Ranging); ok {
		if part = body.Part; !body.Ranges() {
			s.pool.connections.Release(1)
			return
		}
	}
	asked := make(chan error, 1)
	s.asked = asked
	s.asking.Go(func() {
		err := s.lastByte(part)
		s.pool.connections.Release(1)
		asked <- err
	})
}

// lastByte fetches it, so that its connection can be used again.
func (s *stream) lastByte(part func(ctx context.Context, offset, end int64) (io.ReadCloser, error)) error {
	ctx, cancel := context.WithTimeout(s.ctx, askFor)
	defer cancel()
	body, err := part(ctx, s.desc.Size-1, s.desc.Size)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.CopyN(io.Discard, body, 1)
	return err
}

// hear goes on in several connections when a part has come, and alone when there is none
// to be had.
func (s *stream) hear(now time.Time) {
	var err error
	select {
	case err = <-s.asked:
	default:
		return
	}
	s.asked, s.gauge = nil, gauge{}
	if err != nil {
		s.o.Logger.Debug("no part to be had", "digest", s.desc.Digest.String(), "reason", err.Error())
	}
	switch {
	case err == nil:
		if s.desc.Size-s.offset >= worthwhile && now.UnixNano() > s.pool.quiet.Load() {
			s.spread()
			if s.fan == nil {
				s.pause.begin(now) // there is no memory for it, or no connection
			}
		}
	case errors.Is(err, ErrNoRanges):
		s.alone = true
	default:
		s.pause.begin(now)
		if asks := now.Add(retryWait(0, err)); asks.After(s.pause.end) {
			s.pause.end = asks
		}
	}
}

// spread gives the one stream up for several connections, which have to be better
// than the best rate of one.
func (s *stream) spread() {
	if s.fan = newFan(s.ctx, s.pool, s.src, s.desc, s.offset, s.rate, s.best, s.o); s.fan == nil {
		return
	}
	s.single.Close()
	s.single = nil
	s.o.Logger.Debug("transfer in parallel", "digest", s.desc.Digest.String(), "offset", s.offset)
}

// Close ends the transfer.
func (s *stream) Close() error {
	s.cancel(errClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking.Wait()
	if s.pool != nil && !s.closed {
		s.pool.streams.Add(-1)
	}
	s.closed = true
	if s.fan != nil {
		s.fan.close()
	}
	if s.single != nil {
		return s.single.Close()
	}
	return nil
}

// gauge measures one stream: how fast it and all of its pool are, and whether its
// reader waits for it.
type gauge struct {
	start   time.Time
	from    time.Time // when it began to count, zero while a burst may come
	bytes   int64
	others  int64 // the pool's bytes at from
	waiting time.Duration
	rate    float64       // of the last period, in bytes a second
	first   time.Duration // of the first read
}

// slow takes note of one read and reports the end of a period, and then whether all of
// the pool was slower than enough, in bytes a second, and most of the time was spent
// waiting for this stream. The first read holds the connection's set-up and is not
// counted, nor is a burst after it.
func (g *gauge) slow(n, all int64, enough float64, before, after time.Time) (ended, slow bool) {
	if g.start.IsZero() {
		g.start, g.first = after, after.Sub(before)
		return false, false
	}
	if g.from.IsZero() {
		if after.Sub(g.start) >= burst {
			// However long this read took: what waits in the connection then comes at once,
			// and says nothing about its rate.
			g.start, g.from, g.others = after.Add(-burst), after, all
		}
		return false, false
	}
	g.bytes += n
	g.waiting += after.Sub(before)
	elapsed, counted := after.Sub(g.start), after.Sub(g.from)
	together := float64(all-g.others) / counted.Seconds()
	if elapsed < watchLess || elapsed < watchFor && (together >= enough/farSlower || g.first > isFar) {
		return false, false
	}
	rate := float64(g.bytes) / counted.Seconds()
	slow = together < enough && g.waiting > counted/2
	*g = gauge{start: after, from: after, others: all, rate: rate, first: g.first}
	return true, slow
}
