// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
)

const (
	defaultConnections = 12
	defaultMemory      = 64 << 20
	// pieceSize is the unit in which segments move through memory.
	pieceSize = buffer.Large
	// sparePieces are what a blob can always read on with.
	sparePieces = 2
	// segmentSize is what one connection fetches at a time before its rate is known, and
	// mostFirst what it may where nobody else does: large against the request for it, small
	// enough for many to fit into the memory.
	segmentSize = 4 << 20
	mostFirst   = 12 << 20
	// smallSegment is the least after that, and lastSegment at the end of a blob, where
	// all connections are to end together.
	smallSegment = 2 << 20
	lastSegment  = 1 << 20
	// enoughEach is Limits.Enough for one processor.
	enoughEach = 128 << 20
)

// Limits bound what the readers of one Pool use together, beside the one stream
// that each of them has anyway. The zero value is usable.
type Limits struct {
	// Connections is how many there may be in parallel. Zero means 12; a negative
	// value leaves every blob at one stream.
	Connections int
	// Memory bounds what was fetched ahead of the reader, in bytes. Zero means
	// 64 MiB; less than one segment of 4 MiB is raised to that.
	Memory int64
	// Enough is the rate of all together, in bytes a second, from which on no further
	// connections are tried. Zero means 128 MiB/s for each processor, and for two at
	// least, which is also the most: then the processors may be the limit, and are
	// better spent on hashing. Connections that would bring twice as much, at the rate
	// of one alone, are as many as are tried at first.
	Enough int64
}

// Pool is what blobs that move at the same time share. It is safe for concurrent
// use.
type Pool struct {
	max         int
	connections *semaphore.Weighted
	memory      *semaphore.Weighted
	total       int64
	// ahead bounds what is under way by mayRun bytes. That is more than the memory: of a
	// segment only a part has come, and of the first the least is still there.
	ahead  *semaphore.Weighted
	mayRun int64
	// reserved is what of the memory is for something else.
	reserved  atomic.Int64
	reserving sync.Mutex
	enough    float64
	pieces    *buffer.Pool
	hashes    *hashing.Group // of what is pushed
	// moved counts the bytes of all streams. quiet is until when, in Unix
	// nanoseconds, no blob tries further connections: they did not help another.
	moved, quiet atomic.Int64
	// streams counts the blobs that are open.
	streams atomic.Int64
	// fans counts the blobs that several connections are good for, helped those of which
	// it was measured, freed those that gave theirs back.
	fans, helped, freed atomic.Int64
	// working counts the connections of fans.
	working atomic.Int64
	// swift is the best rate that one stream alone had, in bytes a second, and until
	// when that counts, for as long as quiet lasts.
	swift struct {
		sync.Mutex
		rate  float64
		until time.Time
	}
}

// bestAlone takes note of what one stream alone did, and returns the best that any
// of the pool did of late. What has just done better is not held up by its
// connection, but by a processor that is busy elsewhere, and further connections
// have to be measured against that best.
func (p *Pool) bestAlone(rate float64, now time.Time) float64 {
	p.swift.Lock()
	defer p.swift.Unlock()
	if rate >= p.swift.rate || now.After(p.swift.until) {
		p.swift.rate, p.swift.until = rate, now.Add(quietFor)
	}
	return p.swift.rate
}

// NewPool returns a Pool.
func NewPool(l Limits) *Pool {
	if l.Connections == 0 {
		l.Connections = defaultConnections
	}
	if l.Memory == 0 {
		l.Memory = defaultMemory
	}
	if most := enoughEach * int64(max(2, runtime.GOMAXPROCS(0))); l.Enough <= 0 || l.Enough > most {
		l.Enough = most
	}
	l.Connections, l.Memory = max(0, l.Connections), max(segmentSize, l.Memory)
	return &Pool{
		max: l.Connections, total: l.Memory,
		enough:      float64(l.Enough),
		connections: semaphore.NewWeighted(int64(l.Connections)),
		memory:      semaphore.NewWeighted(l.Memory),
		ahead:       semaphore.NewWeighted(runAhead(l.Memory)), mayRun: runAhead(l.Memory),
		hashes: hashing.NewGroup(hashBuffer, hashBuffers, 0),
		pieces: buffer.NewPool(pieceSize),
	}
}

// Reserve has n bytes of the memory used for something else, until release is called: what a
// pull keeps of each of a thousand blobs. It does not wait: what blobs have already is not
// reserved, nor the last half of all.
func (p *Pool) Reserve(n int64) (release func()) {
	p.reserving.Lock()
	defer p.reserving.Unlock()
	n = max(0, min(n, p.total/2-p.reserved.Load())) / pieceSize * pieceSize
	for n > 0 && !p.memory.TryAcquire(n) {
		n = n / 2 / pieceSize * pieceSize
	}
	ahead := runAhead(n)
	if !p.ahead.TryAcquire(ahead) {
		ahead = 0
	}
	p.reserved.Add(n)
	return sync.OnceFunc(func() {
		p.reserved.Add(-n)
		p.memory.Release(n)
		p.ahead.Release(ahead)
	})
}

// room is what may be under way.
func (p *Pool) room() int64 { return p.mayRun - runAhead(p.reserved.Load()) }

func runAhead(memory int64) int64 { return memory * 11 / 5 }

// Spread reports whether connections are what limits the speed, and a blob of the pool
// has several for that reason.
func (p *Pool) Spread() bool { return p.fans.Load() > 0 }

func (p *Pool) piece() *[]byte { return p.pieces.Get() }

func (p *Pool) put(b *[]byte) { p.pieces.Put(b) }
