// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package pacing

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const step = 512 << 10

// run moves n bytes at a rate in bytes a second, and returns how long that took.
func run(p *Pace, n, rate int64) time.Duration {
	began := time.Now()
	r := p.Begin(n)
	defer r.End()
	for ; n > 0; n -= step {
		time.Sleep(time.Duration(float64(step) / float64(rate) * float64(time.Second)))
		r.Step(context.Background(), min(step, n))
	}
	return time.Since(began)
}

// near reports whether d is want, to a twentieth.
func near(d, want time.Duration) bool { return d > want*19/20 && d < want*21/20 }

func TestAllEndTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// The lead takes 4 s, the others alone 1 s and half a second.
		sizes := []int64{16 << 30, 4 << 30, 2 << 30}
		var p Pace
		var wg sync.WaitGroup
		for i, n := range sizes {
			wg.Go(func() {
				if took := run(&p, n, 4<<30); !near(took, 4*time.Second) {
					t.Errorf("transfer %d of %d MiB took %v beside a lead of 4s", i, n>>20, took)
				}
			})
		}
		wg.Wait()
	})
}

func TestTheLeadIsNeverHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		var wg sync.WaitGroup
		wg.Go(func() { run(&p, 1<<30, 64<<20) })
		if took := run(&p, 2<<30, 1<<30); !near(took, 2*time.Second) {
			t.Errorf("took %v, want 2s", took)
		}
		wg.Wait()
	})
}

// A lead that stands still, or a network that is slow, must not keep the others'
// servers waiting.
func TestTheFloorBoundsWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		lead := p.Begin(1 << 40)
		defer lead.End()
		n := int64(256 << 20)
		// Its own second, and another one for each 64 MiB beyond the slack.
		want := time.Second + time.Duration(float64(n-slack)/floor*float64(time.Second))
		if took := run(new(Pace), n, n); !near(took, time.Second) {
			t.Errorf("alone it took %v", took)
		}
		if took := run(&p, n, n); !near(took, want) {
			t.Errorf("took %v, want %v", took, want)
		}
	})
}

// Whoever has more to come than the lead has before it is not held.
func TestWhatHasNotBegunCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		p.Expect(20 * 512 << 20)
		lead := p.Begin(1 << 30)
		defer lead.End()
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 1000 {
				time.Sleep(5 * time.Millisecond)
				lead.Step(context.Background(), 800<<10)
			}
		})
		defer wg.Wait()
		for i := range 19 {
			// The lead moves a sixth of what it has in a second, this one a tenth to begin
			// with of what it and those after it have.
			p.Expect(-512 << 20)
			if took := run(&p, 512<<20, 1<<30); i < 8 && !near(took, time.Second/2) {
				t.Errorf("transfer %d took %v, want 500ms", i, took)
			}
		}
	})
}

func TestTheEndOfTheContextEndsAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		lead := p.Begin(2 << 30)
		defer lead.End()
		ctx, cancel := context.WithCancel(t.Context())
		r := p.Begin(1 << 30)
		defer r.End()
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		r.Step(ctx, 1<<30)
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %v, want 1s", took)
		}
	})
}

// The lead moves, another one takes its place, or it ends: whoever waits hears of it.
func TestTheLeadWakesTheOthers(t *testing.T) {
	t.Parallel()
	for name, wake := range map[string]func(p *Pace, lead *Runner){
		"moves":    func(_ *Pace, lead *Runner) { lead.Step(context.Background(), 1<<30) },
		"ends":     func(_ *Pace, lead *Runner) { lead.End() },
		"replaced": func(p *Pace, _ *Runner) { p.Begin(1<<40).Step(context.Background(), 1<<39) },
	} {
		synctest.Test(t, func(t *testing.T) {
			var p Pace
			lead := p.Begin(2 << 30)
			r := p.Begin(1 << 30)
			time.AfterFunc(time.Second, func() { wake(&p, lead) })
			began := time.Now()
			r.Step(t.Context(), 512<<20)
			if took := time.Since(began); took != time.Second {
				t.Errorf("%s: waited %v, want 1s", name, took)
			}
		})
	}
}

// What has to be moved again is before its transfer again.
func TestGoingBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		lead := p.Begin(1 << 30)
		r := p.Begin(512 << 20)
		lead.Step(t.Context(), 768<<20)
		r.Step(t.Context(), 256<<20)
		lead.Step(t.Context(), -768<<20)
		began := time.Now()
		r.Step(t.Context(), 64<<20)
		if took := time.Since(began); took != time.Second {
			t.Errorf("ahead of a lead that began anew it waited %v, want the second of the floor", took)
		}
		r.Step(t.Context(), -320<<20)
		began = time.Now()
		if r.Step(t.Context(), 4<<20); time.Since(began) != 0 {
			t.Error("it waited although it began anew itself")
		}
	})
}
