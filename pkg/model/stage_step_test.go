// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// disk takes some time for each write, in the bubble of a synctest.
type disk struct {
	cost   func(n int) time.Duration
	parts  []int // the length of each write
	failAt int   // if positive, how many bytes there is room for
}

func (d *disk) Write(p []byte) (int, error) {
	d.parts = append(d.parts, len(p))
	time.Sleep(d.cost(len(p)))
	if d.failAt > 0 && len(p) > d.failAt {
		return d.failAt, io.ErrShortWrite
	}
	return len(p), nil
}

// costsOf is what writes of up to 8 KiB take, of up to 32 KiB, and larger ones.
func costsOf(small, middle, large time.Duration) func(int) time.Duration {
	return func(n int) time.Duration {
		switch {
		case n <= 8<<10:
			return small
		case n <= 32<<10:
			return middle
		}
		return large
	}
}

// writeBuffers writes n buffers of 512 KiB to d, and counts those that were written in each
// step. It fails unless each was written whole, in parts of one step.
func writeBuffers(t *testing.T, s *stepper, d *disk, n int) (made [len(writeSteps)]int) {
	t.Helper()
	p := make([]byte, 512<<10)
	for i := range n {
		d.parts = nil
		if k, err := s.write(d, int64(i)*int64(len(p)), p); k != len(p) || err != nil {
			t.Fatalf("write of %d bytes: %d, %v", len(p), k, err)
		}
		step := slices.Index(writeSteps[:], d.parts[0])
		if step < 0 || len(d.parts) != len(p)/d.parts[0] || slices.Max(d.parts) != slices.Min(d.parts) {
			t.Fatalf("a buffer was written in parts of %d", d.parts)
		}
		made[step]++
	}
	return made
}

// What 8, 32 and 256 KiB take where there is memory for them, and where only small pieces
// are there, as it was measured.
var (
	thereCosts = costsOf(5*time.Microsecond, 8*time.Microsecond, 33*time.Microsecond)
	lentCosts  = costsOf(5*time.Microsecond, 62*time.Microsecond, 500*time.Microsecond)
)

func TestStepperTakesWhatCostsLeast(t *testing.T) {
	for _, tt := range []struct {
		name string
		cost func(int) time.Duration
		// One of how many writes is interrupted: another thread has the core for a while.
		interrupted int
		want        int
	}{
		{"the largest where there is memory", thereCosts, 200, 2},
		{"the smallest where large blocks are lent", lentCosts, 2000, 0},
		{"the first where there is little in it", costsOf(2200*time.Nanosecond, 8*time.Microsecond, 60*time.Microsecond), 1 << 30, firstStep},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := newStepper(), rand.New(rand.NewPCG(1, 2))
				d := &disk{cost: func(n int) time.Duration {
					if r.IntN(tt.interrupted) == 0 {
						return tt.cost(n) + 4*time.Millisecond
					}
					return tt.cost(n)
				}}
				// Each step has its three times after three rounds.
				writeBuffers(t, &s, d, 4*stepRound)
				made := writeBuffers(t, &s, d, 52*stepRound)
				if most := 52 * (stepRound - 2); made[tt.want] < most*95/100 {
					t.Errorf("%d, %d and %d buffers in steps of 8, 32 and 256 KiB, want at least 95%% of %d in steps of %d KiB",
						made[0], made[1], made[2], most, writeSteps[tt.want]>>10)
				}
				// What takes twice as long is tried in every fourth round.
				for i, n := range made {
					if i != tt.want && n == 0 {
						t.Errorf("steps of %d KiB were not tried again", writeSteps[i]>>10)
					}
				}
			})
		})
	}
}

// What was cheap can be used up: then no more than three buffers in a row are written at
// the new price before the next best step is taken, and its return is found.
func TestStepperFollowsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newStepper(), &disk{cost: thereCosts}
		writeBuffers(t, &s, d, 4*stepRound)
		if s.step != 2 {
			t.Fatalf("the step is %d KiB, want 256", writeSteps[s.step]>>10)
		}
		d.cost = costsOf(5*time.Microsecond, 8*time.Microsecond, 500*time.Microsecond)
		if writeBuffers(t, &s, d, 3); s.step != 1 {
			t.Errorf("after three slow buffers the step is %d KiB, want 32", writeSteps[s.step]>>10)
		}
		d.cost = lentCosts
		if writeBuffers(t, &s, d, 3); s.step != 0 {
			t.Errorf("after three more that are slow the step is %d KiB, want 8", writeSteps[s.step]>>10)
		}
		d.cost = thereCosts
		if writeBuffers(t, &s, d, 5*stepRound); s.step != 2 {
			t.Errorf("five rounds after all are fast again the step is %d KiB, want 256", writeSteps[s.step]>>10)
		}
	})
}

// A disk that makes everything wait for a while says nothing about the steps.
func TestStepperComesBackAfterADisturbance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newStepper(), &disk{cost: thereCosts}
		writeBuffers(t, &s, d, 4*stepRound)
		d.cost = func(n int) time.Duration { return 20 * thereCosts(n) }
		writeBuffers(t, &s, d, 2*stepRound)
		d.cost = thereCosts
		writeBuffers(t, &s, d, 5*stepRound)
		if made := writeBuffers(t, &s, d, 4*stepRound); made[2] < 4*(stepRound-2) {
			t.Errorf("%d, %d and %d buffers in steps of 8, 32 and 256 KiB, want most in the last", made[0], made[1], made[2])
		}
	})
}

// Little that is written at once says nothing, and neither does what fails.
func TestStepperLearnsFromWholeSamplesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newStepper(), &disk{cost: thereCosts}
		for range 4 * stepRound {
			if n, err := s.write(d, 0, make([]byte, stepSample-1)); n != stepSample-1 || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
		d.failAt = 1000
		n, err := s.write(d, 0, make([]byte, 512<<10))
		if n != 1000 || !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a write with room for 1000 bytes: %d, %v", n, err)
		}
		if s.costs != newStepper().costs || s.step != firstStep {
			t.Errorf("learnt %v, step %d", s.costs, s.step)
		}
	})
}

// A folio lies at a multiple of its size.
func TestWritesEndAtMultiplesOfTheStep(t *testing.T) {
	d := &disk{cost: func(int) time.Duration { return 0 }}
	if n, err := writeInSteps(d, 12345, make([]byte, 100_000), 32<<10); n != 100_000 || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	want := []int{32<<10 - 12345, 32 << 10, 32 << 10, 100_000 - 3*32<<10 + 12345}
	if !slices.Equal(d.parts, want) {
		t.Errorf("100,000 bytes at 12,345 were written in parts of %d, want %d", d.parts, want)
	}
}

func TestStagedWriterWritesTheSameInEveryStep(t *testing.T) {
	want := make([]byte, 20<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(want)
	for step := range writeSteps {
		for _, drop := range []bool{false, true} {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			w, err := newStagedWriter(f, 0, int64(len(want)), drop)
			if err != nil {
				t.Fatal(err)
			}
			// Of a file in memory the step is a constant, which is not what is tested here.
			w.inMemory, w.steps.step = false, step
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+int(r.Uint64()%(700<<10)))
				if k, err := w.Write(rest[:n]); k != n || err != nil {
					t.Fatalf("Write of %d bytes: %d, %v", n, k, err)
				}
				rest = rest[n:]
			}
			if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
				t.Errorf("beginning with steps of %d KiB, drop %v: the file is not what was written (%v)", writeSteps[step]>>10, drop, err)
			}
			if learnt := w.steps.costs[0].n + w.steps.costs[1].n + w.steps.costs[2].n; learnt == 0 || w.end != int64(len(want)) {
				t.Errorf("%d writes were measured, and the end is at %d of %d", learnt, w.end, len(want))
			}
		}
	}
}
