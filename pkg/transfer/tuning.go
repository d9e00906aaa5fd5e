// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"math"
	"time"
)

// tuning decides how many connections there are: as many as still make it faster.
type tuning struct {
	since   time.Time
	counted int64
	// alone is the rate of a single stream, in bytes a second, and want the one that the
	// connections which came last have to bring it to, 0 when none came.
	alone, want float64
	each        float64 // rate of a connection when it was measured last
	before      int     // connections without those that came last
	setUp       time.Duration
	periods     int
	misses      int // measurements below want
	// helped means that several connections were found to help, by this blob if it is
	// proved, gaveUp that they do not, and settled that more do not, until the pause is
	// over or others than freed have given theirs back. paused means that a pause was over.
	helped, proved, gaveUp, settled, paused bool
	pause                                   pause
	freed                                   int64
}

const (
	// fewConnections come in the place of one stream, or up to mostConnections where the
	// pool has plenty.
	fewConnections  = 4
	mostConnections = 8
	// worthSpreading is how much faster several connections have to be than one.
	// On a busy processor one stream is slow too, and more of them make it slower.
	worthSpreading = 1.3
	// worthGrowing is how much of the connections that came must show in the rate, and
	// worthMore how much where there is plenty.
	worthGrowing = 0.15
	worthMore    = 0.5
	// inFull is how much of a single stream's rate each of them brings where nothing but
	// the connections is the limit, and inPart how much where it seems to be so. Then there
	// are three times as many next, not twice.
	inFull = 0.95
	inPart = 0.7
	// settlesIn is how long new connections have at least until a rate is measured, and
	// growFor for how long it is at least. Where the first bytes take long, the first
	// connections get twice that time, for the rate of a connection grows by round
	// trips, and as long again for each measurement. What takes longer than slowest is
	// no set-up. Where a processor is busy, what came in less than growMore says little.
	settlesIn = 150 * time.Millisecond
	growFor   = 200 * time.Millisecond
	growMore  = time.Second
	slowest   = time.Second
	// givesUpAfter is how many measurements find that they do not help, settlesAfter how
	// many in a row that more do not, and settlesSooner how many of growMore. On a
	// processor that is busy with the set-up of all of them the first are too low.
	givesUpAfter  = 5
	settlesAfter  = 4
	settlesSooner = 2
	// segmentTime is how long a segment takes, setUps how many times as long as the
	// first bytes, at least.
	segmentTime = time.Second
	setUps      = 8
	// lastTime is how long a segment may take that is a connection's share of what is left.
	lastTime = 250 * time.Millisecond
)

// tune looks at the rate from time to time; its first call comes with the first piece.
// The first period holds the set-up of the connections and is not judged, unless they
// help already. When they did not help, no further segments are begun, so that the stream
// goes on alone after those under way. When only more do not, those that another blob
// gives back are tried too, and all of them less and less often: one measurement can be
// wrong.
func (f *fan) tune() {
	now, p := f.o.Now(), &f.tuning
	if p.gaveUp || p.settled && p.freed == f.pool.freed.Load() && !p.pause.over(now) {
		return
	}
	elapsed := now.Sub(p.since)
	if p.setUp == 0 {
		// A connection that was there may have brought them, sooner than a new one. On far
		// lines it is better to measure too soon than to wait for the first piece.
		p.setUp = min(time.Duration(f.firstBytes.Load()), slowest)
	}
	if elapsed < f.period() {
		return
	}
	received := f.received.Load()
	rate := float64(received-p.counted) / elapsed.Seconds()
	p.since, p.counted = now, received
	if p.settled {
		// How fast it was meanwhile is not known.
		p.settled, p.want, p.misses, p.paused = false, 0, 0, p.paused || p.pause.over(now)
		if !p.proved && f.pool.helped.Load() == 0 {
			p.helped, p.periods = false, 0 // those that they helped are done
		}
		f.adapt()
		return
	}
	p.periods++
	p.each = rate / float64(f.took+1)
	f.judge(rate, now)
	f.adapt()
}

// period is how long a rate is measured.
func (f *fan) period() time.Duration {
	switch p := &f.tuning; {
	case p.periods == 0:
		return max(settlesIn, 2*p.setUp)
	case f.lacking() == 0:
		return max(growMore, p.setUp)
	default:
		return max(growFor, p.setUp)
	}
}

// judge decides by a rate, in bytes a second, how many connections there are from now on.
func (f *fan) judge(rate float64, now time.Time) {
	p := &f.tuning
	if rate >= worthSpreading*p.alone {
		if p.helped = true; !p.proved {
			p.proved = true
			f.pool.helped.Add(1)
		}
	}
	misses := settlesAfter
	if f.lacking() == 0 {
		misses = settlesSooner
	}
	switch {
	case !p.helped:
		if p.periods <= givesUpAfter {
			return
		}
		if f.pool.helped.Load() > 0 {
			// They help another blob, which has got more of the processor meanwhile.
			p.helped = true
			if p.want > 0 {
				f.shrink(p.before)
			}
			f.settle()
			p.pause.begin(now)
			return
		}
		p.gaveUp = true
		f.pool.fans.Add(-1)
		f.pool.quiet.Store(now.Add(quietFor).UnixNano())
		close(f.enough)
	case rate < p.want && p.periods == 1:
		// It holds their set-up.
	case rate < p.want && p.misses < misses-1:
		p.misses++
	case rate < p.want:
		// Where a processor is the limit, or the line, each one more costs its requests.
		f.shrink(max(p.before, int(rate/p.alone)+2))
		f.settle()
		p.pause.begin(now)
	default:
		if p.want > 0 {
			p.pause = pause{} // the last ones were worth it
		}
		p.want, p.misses = 0, 0
		p.before = f.took + 1
		f.growFrom(rate, now)
	}
}

// growFrom tries as many connections again as there are, or twice as many, up to plenty.
// With plenty of them it is another thing that limits the speed, most often a processor,
// for which fewer and larger requests are less work. More are tried then if each of them
// brings what one did alone, or after a pause: what one did at first may have been a burst.
func (f *fan) growFrom(rate float64, now time.Time) {
	p := &f.tuning
	p.paused = p.paused || p.pause.length > 0 && p.pause.over(now)
	some := p.before
	if rate >= inPart*float64(p.before)*p.alone {
		some = 2 * p.before
	}
	more, worth := f.lacking(), worthGrowing
	if more == 0 {
		if rate < inFull*float64(p.before)*p.alone && !p.paused {
			// Others that are done have it measured again, and make no pause longer.
			if f.settle(); p.pause.over(now) {
				p.pause.begin(now)
			}
			return
		}
		more, some, worth = p.before, p.before, worthMore
	}
	if got := f.grow(min(more, some)); got > 0 {
		p.want = (1 + worth*float64(got)/float64(p.before)) * rate
	}
}

func (f *fan) settle() { f.tuning.settled, f.tuning.freed = true, f.pool.freed.Load() }

// lacking is how many connections the pool has too few for plenty of them, which would
// bring several times what is enough if each was as fast as one alone.
func (f *fan) lacking() int {
	if !f.tuning.helped {
		return f.pool.max
	}
	return max(0, f.plenty()-int(f.pool.working.Load()))
}

// plenty is how many connections would bring several times what is enough.
func (f *fan) plenty() int {
	return int(math.Round(min(plenty*f.pool.enough/f.tuning.alone, math.MaxInt32)))
}

const plenty = 2

// adapt chooses how much a connection fetches at a time: what takes it a while at its
// rate, and is long against the set-up of a request, as far as there is memory for all
// that work: of each, more or less than half has come and is not read.
func (f *fan) adapt() {
	p := &f.tuning
	least := max(segmentTime, setUps*p.setUp)
	works := f.pool.working.Load()
	if !p.settled {
		more := int64(f.lacking())
		if p.paused {
			more = max(more, works)
		}
		// They may come, and have to find room.
		works = max(works, min(works+more, int64(f.pool.max)+1))
	}
	room := whole(f.pool.room() / works)
	if !p.helped {
		room = min(room, segmentSize) // what is under way is not given up
	}
	f.size.Store(max(smallSegment, min(room, whole(int64(p.each*least.Seconds())))))
}
