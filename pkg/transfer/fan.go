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

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// fan fetches the rest of a blob in segments over several connections and hands
// the bytes out in order. A segment is a connection that fetches it, the memory for what
// came and was not read yet, and its place in the order.
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
	began  int64         // offset of the first segment
	latest int64         // most that the latest one could have
	took   int           // slots that there are, each with a connection of the pool
	// surplus are slots to be given up when their segment is done.
	surplus atomic.Int64
	// spare is memory for the segment in front when there is no other: what others fetched
	// ahead is not read before it.
	spare chan struct{}
	// size is how much a connection fetches at a time, works how many there are, for
	// who dispatches.
	size, works atomic.Int64
	wg          sync.WaitGroup
	front       *segment
	rest        piece // of front
	// waited is how long the connection of front was waited for, came what it brought in
	// that time, and drops how many of front were given up.
	waited time.Duration
	came   int64
	drops  int
	// each is the rate that a connection had of late while it was read, in bytes a second,
	// and first how long it took for the first piece, in nanoseconds.
	each, first atomic.Int64

	received atomic.Int64
	// firstBytes is how long after opened the very first ones came, in nanoseconds.
	opened     time.Time
	firstBytes atomic.Int64
	tuning     tuning
}

// segment is filled by one connection and read by the stream's reader.
type segment struct {
	offset, end int64
	pieces      chan piece // room for the whole segment: its writer never waits
	unread      int64      // of what it may hold up
	r           *reader
	err         error // set before pieces is closed
	// behind is over when the segment is in front.
	behind context.Context
	lead   context.CancelFunc
}

type piece struct {
	buffer *[]byte
	bytes  []byte // what is left of it
	spare  bool   // whose memory it has
}

// newFan begins at offset. rate is what the one stream had of late, alone the best rate that
// any one had, both in bytes a second. It is nil when all connections of the pool are in use,
// or all of its memory.
func newFan(ctx context.Context, pool *Pool, src RangeSource, desc ocispec.Descriptor, offset int64, rate, alone float64, o Options) *fan {
	ctx, cancel := context.WithCancelCause(ctx)
	now := o.Now()
	f := &fan{ctx: ctx, cancel: cancel, pool: pool, src: src, desc: desc, o: o,
		// What may run ahead bounds how many segments wait to be read; the channel never
		// blocks.
		order:  make(chan *segment, pool.mayRun/lastSegment+int64(pool.max)+1),
		slots:  make(chan struct{}, pool.max+1),
		spare:  make(chan struct{}, sparePieces),
		enough: make(chan struct{}),
		began:  offset,
		opened: now,
		tuning: tuning{since: now, alone: alone},
	}
	first, connections := int64(segmentSize), fewConnections
	if pool.fans.Load() == 0 {
		// What each brings while their rate is measured: fewer requests are less work where
		// they are all set up at once. Others would find nothing that may be under way.
		first = max(first, min(mostFirst, whole(int64(rate*settlesIn.Seconds()))))
		// Where plenty are few, a part of them need not be measured first. Other streams
		// may be about to spread, and are to find some connections as well.
		if all := f.plenty(); all <= pool.max+1 && pool.streams.Load() <= 1 {
			connections = max(connections, min(all, mostConnections))
		}
	}
	f.size.Store(first)
	if !pool.memory.TryAcquire(sparePieces * pieceSize) {
		cancel(nil)
		return nil
	}
	if f.grow(connections-1) == 0 {
		pool.memory.Release(sparePieces * pieceSize)
		cancel(nil)
		return nil
	}
	if more := f.took + 1 - fewConnections; more > 0 {
		// They have to show in the rate, as if the few had brought what they could.
		f.tuning.before, f.tuning.want = fewConnections, (fewConnections+worthGrowing*float64(more))*alone
	}
	for range sparePieces {
		f.spare <- struct{}{}
	}
	pool.fans.Add(1)
	pool.working.Add(1)
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
	f.pool.working.Add(int64(got))
	return got
}

// shrink gives connections back until there are n, each when its segment is done.
func (f *fan) shrink(n int) {
	less := f.took + 1 - n
	if less <= 0 {
		return
	}
	f.took -= less
	f.surplus.Add(int64(less))
	f.works.Store(int64(n))
	f.pool.working.Add(-int64(less))
}

// done is for a slot whose segment is done.
func (f *fan) done() {
	for n := f.surplus.Load(); n > 0; n = f.surplus.Load() {
		if f.surplus.CompareAndSwap(n, n-1) {
			f.pool.connections.Release(1)
			return
		}
	}
	f.slots <- struct{}{}
}

// next is the size of the next segment, of what is left. Each may be a part longer than the
// one before, up to size, so that those which begin together do not end together: all of
// them would have come then, and waited for the first to be read. The last ones are smaller,
// for all connections to end together: what each has left on average, if that takes it no
// longer than lastTime, or else half of what is not under way.
func (f *fan) next(left int64) int64 {
	works, size := f.works.Load(), f.size.Load()
	// What may be under way is shared with blobs that began, or with what was reserved,
	// since size was chosen.
	size = min(size, max(smallSegment, whole(f.pool.room()/max(works, f.pool.working.Load()))))
	f.latest = min(size, max(f.latest, segmentSize)+whole(size/works))
	share := (f.desc.Size - f.began - f.received.Load()) / works
	last := max(left/(2*works), min(share, int64(lastTime.Seconds()*float64(f.each.Load()))))
	return min(left, f.latest, max(lastSegment, whole(last)))
}

// whole is n, or at least one, in whole pieces.
func whole(n int64) int64 { return max(1, n/pieceSize) * pieceSize }

// dispatch starts a segment whenever there is a connection for it, and what is under way
// is not too far ahead of the reader.
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
		if f.pool.ahead.Acquire(f.ctx, end-offset) != nil {
			return
		}
		s := &segment{offset: offset, end: end, unread: end - offset, pieces: make(chan piece, (end-offset)/pieceSize+1)}
		s.behind, s.lead = context.WithCancel(f.ctx)
		s.r = newReader(f.ctx, func(ctx context.Context, at int64) (io.ReadCloser, int64, error) {
			body, err := f.src.OpenRange(ctx, f.desc, at, s.end)
			return body, at, err
		}, f.desc, s.offset, s.end, f.o)
		f.order <- s
		f.wg.Go(func() {
			defer s.lead()
			f.fill(s)
			f.done()
		})
		offset = end
	}
}

// reserve waits for the memory of a piece of s. What is in front cannot have to wait for
// what is behind it, which holds its memory until it is read.
func (f *fan) reserve(s *segment) (spare bool, err error) {
	if f.pool.memory.TryAcquire(pieceSize) || f.pool.memory.Acquire(s.behind, pieceSize) == nil {
		return false, nil
	}
	select {
	case <-f.spare:
		return true, nil
	case <-f.ctx.Done():
		return false, context.Cause(f.ctx)
	}
}

// give gives a piece back.
func (f *fan) give(p piece) {
	f.pool.put(p.buffer)
	if p.spare {
		f.spare <- struct{}{}
	} else {
		f.pool.memory.Release(pieceSize)
	}
}

// fill fetches one segment, through cuts of its connection.
func (f *fan) fill(s *segment) {
	defer close(s.pieces)
	defer s.r.Close()
	in := &arriving{s.r, f}
	var took, first time.Duration
	for left := s.end - s.offset; left > 0; {
		spare, err := f.reserve(s)
		if err != nil {
			s.err = err
			return
		}
		p := piece{f.pool.piece(), nil, spare}
		began := f.o.Now()
		n, err := io.ReadFull(in, (*p.buffer)[:min(left, pieceSize)])
		took += f.o.Now().Sub(began)
		if left == s.end-s.offset {
			first = took
		}
		if p.bytes = (*p.buffer)[:n]; n > 0 {
			s.pieces <- p
			left -= int64(n)
		} else {
			f.give(p)
		}
		if err != nil && left > 0 {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = &ShortError{Got: s.end - left, Want: f.desc.Size}
			}
			s.err = err
			return
		}
	}
	lately(&f.first, int64(first))
	lately(&f.each, int64(float64(s.end-s.offset)/max(took, time.Millisecond).Seconds()))
}

// lately has a mean of late take one more value in.
func lately(mean *atomic.Int64, value int64) {
	if before := mean.Load(); before > 0 {
		value = (3*before + value) / 4
	}
	mean.Store(value)
}

// hurry gives the connection in front up when it takes far longer than others do: everybody
// waits for it, and what others have fetched ahead fills the memory. One member of a trunk
// that loses packets is enough. The next one has twice the time: what takes long with all
// of them, as a mirror that hangs at one place, is for those to judge who give up later. It
// returns how long to wait until it is asked again.
func (f *fan) hurry() time.Duration {
	each := f.each.Load()
	if each == 0 {
		return leastPatience // nothing is known of others
	}
	others := float64(f.first.Load()) + float64(f.came)/float64(each)*float64(time.Second)
	allowed := max(leastPatience, time.Duration(min(patience*others, float64(time.Hour)))) << min(f.drops, 10)
	if f.waited < allowed {
		return allowed - f.waited
	}
	if f.front.r.drop(allowed) {
		f.drops++
	}
	f.awaits()
	return leastPatience
}

// awaits begins to wait for the segment in front, or another connection of it.
func (f *fan) awaits() { f.waited, f.came = 0, 0 }

const (
	// patience is how many times as long as others a connection may take for what it
	// brings while it is waited for, and leastPatience how long at least.
	patience      = 8
	leastPatience = 2 * time.Second
)

// arriving counts what is read at once: on a slow connection a piece takes longer than
// a rate is measured.
type arriving struct {
	r io.Reader
	f *fan
}

func (c *arriving) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && c.f.received.Add(int64(n)) == int64(n) {
		c.f.firstBytes.Store(int64(c.f.o.Now().Sub(c.f.opened)))
	}
	return n, err
}

// errDrained means that every segment was read.
var errDrained = errors.New("no segment is left")

// read hands out the bytes of the segment in front, in *b or, when it may be exchanged, in
// another buffer of that length.
func (f *fan) read(b *[]byte, exchange bool) (int, error) {
	for {
		if f.front == nil {
			s, ok := <-f.order
			if !ok {
				if f.ctx.Err() != nil {
					return 0, context.Cause(f.ctx)
				}
				return 0, errDrained
			}
			s.lead()
			f.front, f.drops = s, 0
			f.awaits()
		}
		n, err := f.readFront(b, exchange)
		if n > 0 || err != nil || len(*b) == 0 {
			f.tune()
			return n, err
		}
		f.front = nil
	}
}

// readFront fills *b with what there is of the segment in front, or exchanges it for the
// next piece; it waits for the first bytes only. It returns nothing and no error at the
// segment's end.
func (f *fan) readFront(b *[]byte, exchange bool) (n int, err error) {
	for n < len(*b) {
		if len(f.rest.bytes) == 0 && !f.nextPiece(n == 0) {
			break
		}
		full := exchange && n == 0 && len(f.rest.bytes) == len(*b) && buffer.Exchangeable(*b)
		k := len(*b)
		if full {
			*b, *f.rest.buffer = *f.rest.buffer, *b
		} else {
			k = copy((*b)[n:], f.rest.bytes)
		}
		n += k
		if f.rest.bytes = f.rest.bytes[k:]; len(f.rest.bytes) == 0 {
			f.give(f.rest)
			f.rest = piece{}
		}
		f.front.unread -= int64(k)
		f.pool.ahead.Release(int64(k))
		if exchange && len(f.rest.bytes) == 0 {
			break // the next one is whole again
		}
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
	select {
	case f.rest, ok = <-f.front.pieces:
		return ok
	default:
	}
	if !wait {
		return false
	}
	for {
		began, t := f.o.Now(), time.NewTimer(f.hurry())
		select {
		case f.rest, ok = <-f.front.pieces:
			t.Stop()
			f.waited += f.o.Now().Sub(began)
			f.came += int64(len(f.rest.bytes))
			return ok
		case <-t.C:
			f.waited += f.o.Now().Sub(began)
		}
	}
}

// close ends every connection and gives back what was taken from the pool.
func (f *fan) close() {
	f.cancel(errClosed)
	f.wg.Wait()
	if f.took == 0 {
		return // closed before
	}
	if len(f.rest.bytes) > 0 {
		f.give(f.rest)
	}
	if f.front != nil {
		f.drop(f.front)
	}
	for s := range f.order {
		f.drop(s)
	}
	f.front, f.rest = nil, piece{}
	f.pool.memory.Release(sparePieces * pieceSize)
	f.pool.connections.Release(int64(f.took) + f.surplus.Load())
	f.pool.working.Add(-int64(f.took) - 1)
	f.took = 0
	if !f.tuning.gaveUp {
		f.pool.fans.Add(-1)
	}
	if f.tuning.proved {
		f.pool.helped.Add(-1)
	}
	f.pool.freed.Add(1)
}

func (f *fan) drop(s *segment) {
	f.pool.ahead.Release(s.unread)
	for p := range s.pieces {
		f.give(p)
	}
}
