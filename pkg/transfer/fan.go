// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fan fetches the rest of a blob in segments over several connections and hands
// the bytes out in order. A segment is memory that is reserved, a connection that
// fills it, and its place in the order.
type fan struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	pool   *Pool
	src    RangeSource
	desc   ocispec.Descriptor
	o      Options

	order  chan *segment // in the blob's order
	enough chan struct{} // closed: no further segments
	slots  chan struct{} // one for each connection that may work
	took   int           // slots made so far, each with a connection of the pool
	// size is how much a connection fetches at a time, works how many there are, for
	// who dispatches.
	size, works atomic.Int64
	wg          sync.WaitGroup
	front       *segment
	rest        piece // of front

	received atomic.Int64
	tuning   tuning
}

// segment is filled by one connection and read by the stream's reader.
type segment struct {
	offset, end int64
	pieces      chan piece // room for the whole segment: its writer never waits
	unread      int64      // reserved memory that is not given back yet
	err         error      // set before pieces is closed
}

type piece struct {
	buffer *[]byte
	bytes  []byte // what is left of it
}

// newFan begins at offset. alone is the best rate that one stream had, in bytes a
// second. It is nil when all connections of the pool are in use.
func newFan(ctx context.Context, pool *Pool, src RangeSource, desc ocispec.Descriptor, offset int64, alone float64, o Options) *fan {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &fan{ctx: ctx, cancel: cancel, pool: pool, src: src, desc: desc, o: o,
		// The memory bounds how many segments there are; the channel never blocks.
		order:  make(chan *segment, pool.total/lastSegment+1),
		slots:  make(chan struct{}, pool.max+1),
		enough: make(chan struct{}),
		tuning: tuning{since: o.Now(), alone: alone},
	}
	f.size.Store(segmentSize)
	if f.grow(3) == 0 {
		cancel(nil)
		return nil
	}
	pool.fans.Add(1)
	// That of the stream, which is given up for this.
	f.slots <- struct{}{}
	f.wg.Go(func() { f.dispatch(offset) })
	return f
}

// grow asks the pool for n more connections and reports how many it got.
func (f *fan) grow(n int) int {
	got := 0
	for ; got < n && f.took < f.pool.max && f.pool.connections.TryAcquire(1); got++ {
		f.took++
		f.slots <- struct{}{}
	}
	f.works.Store(int64(f.took) + 1)
	return got
}

// adapt chooses how much a connection fetches at a time: what takes it a while at its
// rate, in bytes a second, and is long against the set-up of a request, as far as there
// is memory for as many of them as there can be.
func (f *fan) adapt(rate float64) {
	least := max(segmentTime, setUps*f.tuning.setUp)
	room := f.pool.total / int64(f.pool.max+1) / pieceSize * pieceSize
	f.size.Store(max(smallSegment, min(room, int64(rate*least.Seconds())/pieceSize*pieceSize)))
}

const (
	// segmentTime is how long a segment takes, setUps how many times as long as the
	// first bytes, at least.
	segmentTime = 250 * time.Millisecond
	setUps      = 8
)

// next is the size of the next segment, of what is left. The last ones are smaller, for
// all connections to end together.
func (f *fan) next(left int64) int64 {
	last := left / (2 * f.works.Load()) / pieceSize * pieceSize
	return min(left, f.size.Load(), max(lastSegment, last))
}

// dispatch starts a segment whenever there are a connection and memory for it.
func (f *fan) dispatch(offset int64) {
	defer close(f.order)
	for offset < f.desc.Size {
		select {
		case <-f.slots:
		case <-f.enough:
			return
		case <-f.ctx.Done():
			return
		}
		end := offset + f.next(f.desc.Size-offset)
		if f.pool.reserve(f.ctx, end-offset) != nil {
			return
		}
		s := &segment{offset: offset, end: end, unread: end - offset, pieces: make(chan piece, (end-offset)/pieceSize+1)}
		f.order <- s
		f.wg.Go(func() {
			f.fill(s)
			f.slots <- struct{}{}
		})
		offset = end
	}
}

// fill fetches one segment, through cuts of its connection.
func (f *fan) fill(s *segment) {
	defer close(s.pieces)
	open := func(ctx context.Context, at int64) (io.ReadCloser, int64, error) {
		body, err := f.src.OpenRange(ctx, f.desc, at, s.end)
		return body, at, err
	}
	r := newReader(f.ctx, open, f.desc, s.offset, s.end, f.o)
	defer r.Close()
	in := &arriving{r, &f.received}
	for left := s.end - s.offset; left > 0; {
		buffer := f.pool.piece()
		b := (*buffer)[:min(left, pieceSize)]
		n, err := io.ReadFull(in, b)
		if n > 0 {
			s.pieces <- piece{buffer, b[:n]}
			left -= int64(n)
		} else {
			f.pool.put(buffer)
		}
		if err != nil && left > 0 {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = &ShortError{Got: s.end - left, Want: f.desc.Size}
			}
			s.err = err
			return
		}
	}
}

// arriving counts what is read at once: on a slow connection a piece takes longer than
// a rate is measured.
type arriving struct {
	r io.Reader
	n *atomic.Int64
}

func (c *arriving) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// errDrained means that every segment was read.
var errDrained = errors.New("no segment is left")

// read hands out the bytes of the segment in front.
func (f *fan) read(p []byte) (int, error) {
	for {
		if f.front == nil {
			s, ok := <-f.order
			if !ok {
				if f.ctx.Err() != nil {
					return 0, context.Cause(f.ctx)
				}
				return 0, errDrained
			}
			f.front = s
		}
		n, err := f.readFront(p)
		if n > 0 || err != nil || len(p) == 0 {
			f.tune()
			return n, err
		}
		f.front = nil
	}
}

// readFront fills p with what there is of the segment in front; it waits for the
// first bytes only. It returns nothing and no error at the segment's end.
func (f *fan) readFront(p []byte) (n int, err error) {
	for n < len(p) {
		if len(f.rest.bytes) == 0 && !f.nextPiece(n == 0) {
			break
		}
		k := copy(p[n:], f.rest.bytes)
		n += k
		if f.rest.bytes = f.rest.bytes[k:]; len(f.rest.bytes) == 0 {
			f.pool.put(f.rest.buffer)
		}
		f.front.unread -= int64(k)
		f.pool.release(int64(k))
	}
	if n == 0 {
		err = f.front.err
	}
	return n, err
}

// nextPiece makes the next piece the rest to read, and reports whether there is
// one (yet).
func (f *fan) nextPiece(wait bool) bool {
	var ok bool
	if wait {
		f.rest, ok = <-f.front.pieces
		return ok
	}
	select {
	case f.rest, ok = <-f.front.pieces:
		return ok
	default:
		return false
	}
}

// close ends every connection and gives back what was taken from the pool.
func (f *fan) close() {
	f.cancel(errClosed)
	f.wg.Wait()
	if f.front != nil {
		f.pool.release(f.front.unread)
	}
	for s := range f.order {
		f.pool.release(s.unread)
	}
	f.front, f.rest = nil, piece{}
	if f.took == 0 {
		return // closed before
	}
	f.pool.connections.Release(int64(f.took))
	f.took = 0
	if !f.tuning.gaveUp {
		f.pool.fans.Add(-1)
	}
	f.pool.freed.Add(1)
}

// tuning decides how many connections there are: as many as still make it faster.
type tuning struct {
	since   time.Time
	counted int64
	// alone is the rate of a single stream, in bytes a second, and want the one that the
	// connections which came last have to bring it to, 0 when none came.
	alone, want float64
	setUp       time.Duration
	periods     int
	// helped means that several connections were found to help, gaveUp that they do not,
	// and settled that more do not, until the pause is over or others than freed have
	// given theirs back.
	helped, gaveUp, settled bool
	pause                   pause
	freed                   int64
}

const (
	// worthSpreading is how much faster several connections have to be than one.
	// On a busy processor one stream is slow too, and more of them make it slower.
	worthSpreading = 1.3
	// worthGrowing is how much of the connections that came must show in the rate.
	worthGrowing = 0.15
	// inFull is how much of a single stream's rate each of them brings where nothing but
	// the connections is the limit. Then there are three times as many next, not twice.
	inFull = 0.7
	// settlesIn is how long new connections have at least until a rate is measured, and
	// growFor for how long it is at least. Where the first bytes take long, the first
	// connections get twice that time, for the rate of a connection grows by round
	// trips, and as long again for each measurement. What takes longer than slowest is
	// no set-up.
	settlesIn = 150 * time.Millisecond
	growFor   = 200 * time.Millisecond
	slowest   = time.Second
	// givesUpAfter is how many measurements in a row find that they do not help.
	givesUpAfter = 2
)

// tune looks at the rate from time to time; its first call comes with the first bytes.
// The first period holds the set-up of the connections and is not judged. When they
// did not help, no further segments are begun, so that the stream goes on alone after
// those under way. When only more do not help, those that another blob gives back are
// tried too, and all of them less and less often: one measurement can be wrong.
func (f *fan) tune() {
	now, p := f.o.Now(), &f.tuning
	if p.gaveUp || p.settled && p.freed == f.pool.freed.Load() && !p.pause.over(now) {
		return
	}
	elapsed := now.Sub(p.since)
	if p.setUp == 0 {
		p.setUp = min(elapsed, slowest)
	}
	period := max(growFor, p.setUp)
	if p.periods == 0 {
		period = max(settlesIn, 2*p.setUp)
	}
	if elapsed < period {
		return
	}
	received := f.received.Load()
	rate := float64(received-p.counted) / elapsed.Seconds()
	p.since, p.counted = now, received
	if p.settled {
		// How fast it was meanwhile is not known.
		p.settled, p.want = false, 0
		return
	}
	p.periods++
	f.adapt(rate / float64(f.took+1))
	switch {
	case p.periods == 1:
		return
	case !p.helped && rate < worthSpreading*p.alone:
		if p.periods <= givesUpAfter {
			return
		}
		p.gaveUp = true
		f.pool.fans.Add(-1)
		f.pool.quiet.Store(now.Add(quietFor).UnixNano())
		close(f.enough)
	case rate < p.want:
		p.settled, p.freed = true, f.pool.freed.Load()
		p.pause.begin(now)
	default:
		if p.want > 0 {
			p.pause = pause{} // the last ones were worth it
		}
		p.helped, p.want = true, 0
		before := f.took + 1
		more := before
		if rate >= inFull*float64(before)*p.alone {
			more = 2 * before
		}
		if got := f.grow(more); got > 0 {
			p.want = (1 + worthGrowing*float64(got)/float64(before)) * rate
		}
	}
}
