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

// The lead takes 4 s, the others alone as much less as they are smaller.
func TestOthersKeepToTheLeadsPace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sizes []int64 // in GiB
		want  []time.Duration
	}{
		"nearly as large: all end together": {[]int64{16, 14, 12}, []time.Duration{4 * time.Second, 4 * time.Second, 4 * time.Second}},
		// Together they move at four fifths of the lead's 4 GiB/s; once the smallest has
		// ended, so does the other one alone.
		"much smaller": {[]int64{16, 4, 2}, []time.Duration{4 * time.Second, 1875 * time.Millisecond, 1250 * time.Millisecond}},
		"one beside":   {[]int64{16, 8}, []time.Duration{4 * time.Second, 2500 * time.Millisecond}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p Pace
			var wg sync.WaitGroup
			for i, n := range c.sizes {
				wg.Go(func() {
					if took := run(&p, n<<30, 4<<30); !near(took, c.want[i]) {
						t.Errorf("%s: transfer %d of %d GiB took %v, want %v", name, i, n, took, c.want[i])
					}
				})
			}
			wg.Wait()
		})
	}
}

// What the lead did before it became slow does not count for long.
func TestTheLeadsRateIsThatOfLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		lead := p.Begin(1 << 40)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := int64(40 << 20) // 4 GB/s for two seconds
				if i >= 200 {
					n = 2 << 20 // 200 MiB/s
				}
				time.Sleep(10 * time.Millisecond)
				lead.Step(ctx, n)
			}
		})
		r := p.Begin(352 << 20)
		defer r.End()
		time.Sleep(3 * time.Second)
		began := time.Now()
		for range 352 << 20 / step {
			r.Step(ctx, step)
		}
		// The slack and 3 MiB, its part of what the lead has moved, at once.
		if took := time.Since(began); !near(took, 1980*time.Millisecond) {
			t.Errorf("317 MiB beside a lead of 200 MiB/s took %v, want 2s", took)
		}
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

// slowly moves a runner of a size without end by next to nothing, until ctx is over.
func slowly(ctx context.Context, r *Runner) {
	for ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		r.Step(ctx, 1)
	}
}

// Beside a lead that is next to nothing the others are held to the floor, and no further:
// what a transfer has taken itself counts.
func TestTheFloorBoundsWaits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rate int64
		want time.Duration
	}{
		// The slack at its own rate, the rest at the floor.
		"four times as fast": {4 * floor, time.Second/8 + 2*time.Second},
		"as fast":            {floor, 2500 * time.Millisecond},
		"half as fast":       {floor / 2, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p Pace
			lead := p.Begin(1 << 40)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { slowly(ctx, lead) })
			defer wg.Wait()
			defer cancel()
			if took := run(&p, 160<<20, c.rate); !near(took, c.want) {
				t.Errorf("%s: took %v, want %v", name, took, c.want)
			}
		})
	}
}

// A lead that waits for its server, or for its turn, holds nobody.
func TestALeadThatStandsStillHoldsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		lead := p.Begin(1 << 40)
		lead.Step(t.Context(), 1)
		time.Sleep(patience)
		if took := run(&p, 1<<30, 1<<30); !near(took, time.Second+patience) {
			// Begin measures anew and gives the lead its patience again.
			t.Errorf("took %v, want a second and the lead's patience", took)
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
		time.AfterFunc(50*time.Millisecond, cancel)
		began := time.Now()
		r.Step(ctx, 1<<30)
		if took := time.Since(began); took != 50*time.Millisecond {
			t.Errorf("waited %v, want 50ms", took)
		}
	})
}

func TestNobodyIsHeldWhereNothingIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		free := true
		p := Pace{Free: func() bool { return free }}
		p.Begin(2 << 30)
		r := p.Begin(1 << 30)
		began := time.Now()
		if r.Step(t.Context(), 512<<20); time.Since(began) != 0 {
			t.Error("held")
		}
		free = false
		if r.Step(t.Context(), 1<<20); time.Since(began) == 0 {
			t.Error("not held after that")
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
			time.AfterFunc(50*time.Millisecond, func() { wake(&p, lead) })
			began := time.Now()
			r.Step(t.Context(), 512<<20)
			if took := time.Since(began); took != 50*time.Millisecond {
				t.Errorf("%s: waited %v, want 50ms", name, took)
			}
		})
	}
}

// What has to be moved again is before its transfer again, and what was there already is
// not: both begin at the pace that this leaves.
func TestWhatIsLeftChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held := func(r *Runner, n int64) bool {
			began := time.Now()
			r.Step(t.Context(), n)
			return time.Since(began) > 0
		}
		var p Pace
		lead := p.Begin(1 << 30)
		r := p.Begin(512 << 20)
		lead.Step(t.Context(), 768<<20)
		if held(r, 256<<20) {
			t.Error("held, behind the lead")
		}
		// The lead begins anew: neither has moved since.
		lead.Left(1 << 30)
		if held(r, slack) || !held(r, 1<<20) {
			t.Error("beside a lead that began anew it is held when it is ahead by more than the slack, and not before")
		}
		r.Left(512 << 20)
		if held(r, slack) || !held(r, 1<<20) {
			t.Error("it began anew itself and is held when it is ahead by more than the slack, and not before")
		}
		// Most of the lead was there: it leads no more, and is held itself.
		lead.Left(256 << 20)
		if held(r, 64<<20) {
			t.Error("held, with most left")
		}
		if held(lead, 32<<20) || !held(lead, 64<<20) {
			t.Error("held at another place than the pace of what is left")
		}
	})
}
