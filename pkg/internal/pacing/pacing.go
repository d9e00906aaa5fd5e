// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package pacing keeps the largest of the transfers that share a processor and a network
// from being the last for long. Left alone they share both evenly: the small ones end first,
// and the largest is left with one connection, one core of the server and one to hash it,
// which cannot fill the machine.
package pacing

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// slack is how far, in bytes, a transfer gets ahead of its pace before it waits.
	slack = 32 << 20
	// floor is the lowest rate, in bytes a second, to which a transfer is held. A server
	// that is kept waiting may take its connection for dead.
	floor = 64 << 20
	// share is the part of the lead's rate that the others together are not held below.
	// The lead waits for its server, its disk or its hash, and cannot fill a machine; who
	// only moves when it moves leaves what it does not use idle.
	share = 0.8
	// period is how long the lead's rate is measured.
	period = 500 * time.Millisecond
	// patience is how long after its last step the lead still holds others. One that
	// waits, for its server or for its turn, has no pace.
	patience = 100 * time.Millisecond
)

// Pace holds every transfer but the one that has most before it, the lead, to the
// lead's pace: the same part of what each has before it, in the same time, or more where
// that is little beside the lead's rate. It holds none that would not end before the lead
// anyway. It is safe for concurrent use, and the zero value is usable.
type Pace struct {
	// Free, when it is not nil, reports that nobody is to be held at present: what
	// limits the transfers is nothing that they share.
	Free func() bool

	mu      sync.Mutex
	waiting int64 // bytes of transfers that cannot begin yet
	runners []*Runner
	lead    *Runner       // of runners
	movedAt time.Time     // when the lead last moved or changed
	moved   chan struct{} // closed when it does so again; nil when nobody waits
	// since is when the period began, counted what the lead had done then, and rate what it
	// had, in bytes a second, in the one before, zero where there was none.
	since   time.Time
	counted int64
	rate    float64
}

// Expect says that n bytes are going to be moved by transfers that cannot begin yet, or,
// when n is negative, that one of them can.
func (p *Pace) Expect(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting += n
}

// Runner is one transfer, for one goroutine at a time.
type Runner struct {
	p *Pace
	// before is what it had before it, in bytes, when a transfer last began or ended,
	// with its part of what waits. done is what it has moved since, left what it has not.
	before, done, left int64
	stepped            time.Time // when its last step ended
}

// Begin adds a transfer of n bytes. It has to end.
func (p *Pace) Begin(n int64) *Runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &Runner{p: p, left: n, stepped: time.Now()}
	p.runners = append(p.runners, r)
	p.restart()
	return r
}

// End takes r off.
func (r *Runner) End() {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.runners, r); i >= 0 {
		p.runners = slices.Delete(p.runners, i, i+1)
		p.restart()
	}
}

// Left says that r has n bytes before it, whatever it has moved: some were there
// already, or have to be moved again.
func (r *Runner) Left(n int64) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if n != r.left {
		r.left = n
		p.restart()
	}
}

// restart measures anew what each has before it. The caller holds p.mu.
func (p *Pace) restart() {
	p.lead = nil
	for _, r := range p.runners {
		if p.lead == nil || r.left > p.lead.left {
			p.lead = r
		}
	}
	for _, r := range p.runners {
		r.before, r.done = r.left, 0
		if r != p.lead {
			r.before += p.waiting / int64(len(p.runners)-1)
		}
	}
	p.wake()
	p.since, p.counted, p.rate = p.movedAt, 0, 0
}

func (p *Pace) wake() {
	p.movedAt = time.Now()
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// Step takes note of n bytes that r has moved. While r is ahead it waits, until it has
// taken as long for them as they take at the lowest rate, at most. It does not fail: whoever
// calls it sees the end of ctx by itself.
func (r *Runner) Step(ctx context.Context, n int64) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	r.done, r.left = r.done+n, r.left-n
	if r == p.lead {
		p.wake()
		p.measure()
	}
	if r.ahead() {
		end := r.stepped.Add(time.Duration(float64(n) / p.lowest() * float64(time.Second)))
		for p.wait(ctx, end) && r.ahead() {
		}
	}
	r.stepped = time.Now()
}

// measure takes the lead's rate when a period is over. The caller holds p.mu.
func (p *Pace) measure() {
	if took := p.movedAt.Sub(p.since); took >= period {
		p.rate = float64(p.lead.done-p.counted) / took.Seconds()
		p.since, p.counted = p.movedAt, p.lead.done
	}
}

// lowest is the rate, in bytes a second, that one who is not the lead is not held below.
// There is a lead, and the caller holds p.mu.
func (p *Pace) lowest() float64 {
	rate := p.rate
	if took := time.Since(p.since); rate == 0 && took > 0 {
		rate = float64(p.lead.done) / took.Seconds()
	}
	// One that has ended may still be told of what it moved: there may be no other then.
	others := max(1, len(p.runners)-1)
	return max(floor, share*rate/float64(others))
}

// wait returns when the lead moves or changes, and reports false when it is not to be
// waited for any more. The caller holds p.mu, which is free meanwhile.
func (p *Pace) wait(ctx context.Context, end time.Time) bool {
	if given := p.movedAt.Add(patience); given.Before(end) {
		end = given
	}
	left := time.Until(end)
	if left <= 0 {
		return false
	}
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	moved := p.moved
	p.mu.Unlock()
	defer p.mu.Lock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-moved:
		return true
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	}
}

// ahead reports whether r has moved a larger part than the lead, by more than the slack.
// The caller holds p.mu.
func (r *Runner) ahead() bool {
	l := r.p.lead
	if l == nil || r.before <= 0 || r.p.Free != nil && r.p.Free() {
		return false
	}
	// In floating point: the products do not fit into 64 bits.
	return float64(r.done-slack) > float64(r.before)*float64(l.done)/float64(max(1, l.before))
}
