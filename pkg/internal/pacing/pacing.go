// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package pacing lets transfers that share a processor and a network end at the same
// time. Left alone they share both evenly: the small ones end first, and the largest is
// left with one connection, one core of the server and one to hash it, which cannot fill
// the machine.
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
	// floor bounds a wait: after n bytes it is no longer than they take at this rate, in
	// bytes a second, beside the time in which they moved. A server that is kept waiting
	// may take its connection for dead.
	floor = 64 << 20
)

// Pace holds every transfer but the one that has most before it, the lead, to the
// lead's pace: the same part of what each has before it, in the same time. It holds none
// that would not end before the lead anyway. It is safe for concurrent use, and the zero
// value is usable.
type Pace struct {
	mu      sync.Mutex
	waiting int64 // bytes of transfers that cannot begin yet
	runners []*Runner
	lead    *Runner       // of runners
	moved   chan struct{} // closed when the lead moves or changes; nil when nobody waits
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
}

// Begin adds a transfer of n bytes. It has to end.
func (p *Pace) Begin(n int64) *Runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &Runner{p: p, left: n}
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
}

func (p *Pace) wake() {
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// Step takes note of n bytes that r has moved, or of as many to move again when n is
// negative. While r is ahead it waits, as long as n bytes take at the floor at most. It
// does not fail: whoever calls it sees the end of ctx by itself.
func (r *Runner) Step(ctx context.Context, n int64) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	r.done, r.left = r.done+n, r.left-n
	if r == p.lead {
		p.wake()
	}
	if !r.ahead() || n <= 0 {
		return
	}
	timer := time.NewTimer(time.Duration(float64(n) / floor * float64(time.Second)))
	defer timer.Stop()
	for r.ahead() && p.wait(ctx, timer.C) {
	}
}

// wait reports whether the lead moved or changed before the end. The caller holds p.mu,
// which is free meanwhile.
func (p *Pace) wait(ctx context.Context, end <-chan time.Time) bool {
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	moved := p.moved
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-moved:
		return true
	case <-end:
		return false
	case <-ctx.Done():
		return false
	}
}

// ahead reports whether r has moved a larger part than the lead, by more than the slack.
// The caller holds p.mu.
func (r *Runner) ahead() bool {
	l := r.p.lead
	if l == nil || r.before <= 0 {
		return false
	}
	// In floating point: the products do not fit into 64 bits.
	return float64(r.done-slack) > float64(r.before)*float64(l.done)/float64(max(1, l.before))
}
