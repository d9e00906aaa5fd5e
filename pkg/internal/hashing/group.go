// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package hashing

import (
	"hash"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// Group hashes streams on as many cores as there are, two at a time where it can. Each
// stream has a fixed number of buffers, which bound its memory. What was written waits
// for another stream to be hashed with, as long as its writer has a buffer to go on
// with. It is safe for concurrent use; the zero value is not usable.
type Group struct {
	buffers, limit int
	pool           *buffer.Pool

	mu      sync.Mutex
	open    int       // streams that may still bring something
	ready   []*Stream // have something that nobody is hashing, the oldest first
	workers int
}

// NewGroup returns a Group whose streams have the given number of buffers, each of size
// bytes. Fewer than two would let nothing overlap. workers is how many cores hash, zero
// for all.
func NewGroup(size, buffers, workers int) *Group {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Group{buffers: max(2, buffers), limit: workers, pool: buffer.NewPool(size)}
}

// Stream is what one writer hashes, in order. Its methods are for one goroutine at a
// time.
type Stream struct {
	g    *Group
	sum  hash.Hash
	made int          // buffers taken from the pool
	free chan *[]byte // hashed
	over atomic.Bool  // what is free is the pool's
	done sync.Cond    // nothing is left to hash

	// Of g.mu.
	queue  []*chunk
	waited bool // for: a buffer, or the end
	closed bool

	now *chunk // of the worker that has it
}

type chunk struct {
	rest   []byte
	buffer *[]byte
	users  atomic.Int32 // of buffer
	then   func()
}

// urgent reports whether s does not wait for another stream: its writer waits, or has
// its last buffer and soon would. The caller holds g.mu.
func (s *Stream) urgent() bool { return s.waited || s.closed || len(s.queue) >= s.g.buffers-1 }

// Stream returns a stream that is hashed into sum. It has to be closed.
func (g *Group) Stream(sum hash.Hash) *Stream {
	s := &Stream{g: g, sum: sum, free: make(chan *[]byte, g.buffers)}
	s.done.L = &g.mu
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open++
	return s
}

// Buffer returns a buffer to fill, and waits for one if all are being hashed.
func (s *Stream) Buffer() *[]byte {
	select {
	case b := <-s.free:
		return b
	default:
	}
	if s.made < s.g.buffers {
		s.made++
		return s.g.pool.Get()
	}
	s.g.hurry(s)
	return <-s.free
}

// Write hashes the first n bytes of a buffer in its turn, calls then, unless it is nil,
// and takes the buffer back. The writer may read the buffer until it asks for another or
// closes the stream.
func (s *Stream) Write(buffer *[]byte, n int, then func()) {
	if n == 0 && then == nil {
		s.give(buffer)
		return
	}
	s.enqueue(&chunk{rest: (*buffer)[:n], buffer: buffer, then: then}, 1)
}

// Share is Write of a buffer that somebody else reads as well: it is taken back when
// that one has called done, too.
func (s *Stream) Share(buffer *[]byte, n int, then func()) (done func()) {
	c := &chunk{rest: (*buffer)[:n], buffer: buffer, then: then}
	s.enqueue(c, 2)
	return func() { s.release(c) }
}

func (s *Stream) enqueue(c *chunk, users int32) {
	c.users.Store(users)
	g := s.g
	g.mu.Lock()
	defer g.mu.Unlock()
	s.queue = append(s.queue, c)
	if len(s.queue) == 1 {
		g.ready = append(g.ready, s)
	}
	g.employ()
}

// release takes a buffer back after its last user. It never blocks.
func (s *Stream) release(c *chunk) {
	if c.users.Add(-1) == 0 {
		s.give(c.buffer)
	}
}

// give takes a buffer back that nobody has any more, also after s was closed.
func (s *Stream) give(buffer *[]byte) {
	s.free <- buffer
	if s.over.Load() {
		s.drain()
	}
}

func (s *Stream) drain() {
	for {
		select {
		case b := <-s.free:
			s.g.pool.Put(b)
		default:
			return
		}
	}
}

// Flush waits until everything is in the hash.
func (s *Stream) Flush() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.flush()
}

func (s *Stream) flush() {
	for len(s.queue) > 0 {
		s.waited = true
		s.g.employ()
		s.done.Wait()
	}
}

// Close is Flush, and the stream's end. What is still shared, or was not written yet, may
// come back after it.
func (s *Stream) Close() {
	g := s.g
	g.mu.Lock()
	if !s.closed {
		s.closed = true
		// No other stream waits for this one any more.
		g.open--
		g.employ()
		s.flush()
	}
	g.mu.Unlock()
	s.over.Store(true)
	s.drain()
}

// hurry says that s has no buffer left, and those it had are not all somebody else's.
func (g *Group) hurry(s *Stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(s.free) == 0 && len(s.queue) > 0 {
		s.waited = true
		g.employ()
	}
}

// employ starts a worker if there is something to do. The caller holds g.mu.
func (g *Group) employ() {
	if g.workers < g.limit && len(g.ready) > 0 && (len(g.ready) > 1 || g.mayGoAlone(g.ready[0])) {
		g.workers++
		go g.work()
	}
}

// work hashes until there is nothing to hash.
func (g *Group) work() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		if len(g.ready) == 1 && pairing && g.open > 1 {
			// Its company may be about to run.
			g.mu.Unlock()
			runtime.Gosched()
			g.mu.Lock()
		}
		a, b := g.take()
		if a == nil {
			g.workers--
			return
		}
		g.mu.Unlock()
		hash2(a, b)
		g.mu.Lock()
		a.advance()
		if b != nil {
			b.advance()
		}
	}
}

// mayGoAlone reports whether s is hashed without another stream. The caller holds g.mu.
func (g *Group) mayGoAlone(s *Stream) bool { return s.urgent() || g.open <= 1 || !pairing }

// take returns two streams to hash together, or one that does not wait, or nothing. The
// caller holds g.mu.
func (g *Group) take() (a, b *Stream) {
	switch {
	case len(g.ready) == 0 || len(g.ready) == 1 && !g.mayGoAlone(g.ready[0]):
		return nil, nil
	case len(g.ready) == 1 || !pairing:
		return g.next(), nil
	}
	return g.next(), g.next()
}

// next takes the oldest of the streams that are urgent, or of all. The caller holds g.mu.
func (g *Group) next() *Stream {
	i := max(0, slices.IndexFunc(g.ready, (*Stream).urgent))
	s := g.ready[i]
	g.ready = slices.Delete(g.ready, i, i+1)
	s.now = s.queue[0]
	return s
}

// hash2 hashes the chunk of a that is its turn, or as much of it as b has, and of b as
// much as a has.
func hash2(a, b *Stream) {
	if b == nil {
		a.sum.Write(a.now.rest)
		a.hashed(len(a.now.rest))
		return
	}
	n := min(len(a.now.rest), len(b.now.rest))
	Write2(a.sum, b.sum, a.now.rest[:n], b.now.rest[:n])
	a.hashed(n)
	b.hashed(n)
}

// hashed takes note of n bytes.
func (s *Stream) hashed(n int) {
	if s.now.rest = s.now.rest[n:]; len(s.now.rest) == 0 && s.now.then != nil {
		s.now.then()
	}
}

// advance lets go of s, with what is left of its chunk. The caller holds g.mu.
func (s *Stream) advance() {
	if len(s.now.rest) == 0 {
		s.queue = slices.Delete(s.queue, 0, 1)
		s.waited = s.waited && len(s.queue) > 0
		s.release(s.now)
	}
	s.now = nil
	if len(s.queue) > 0 {
		s.g.ready = append(s.g.ready, s)
	} else {
		s.done.Signal()
	}
}
