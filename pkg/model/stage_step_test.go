// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// simulateWrites has s choose the steps of n writes of 512 KiB that take what cost
// says, and counts how many were made in each step.
func simulateWrites(s *stepper, n int, cost func(step int) time.Duration) (made [len(writeSteps)]int) {
	for range n {
		i := s.next()
		made[i]++
		s.took(i, cost(writeSteps[i]), 512<<10)
	}
	return made
}

func TestStepperTakesWhatCostsLeast(t *testing.T) {
	// Times of a write of 512 KiB in steps of 8, 32 and 256 KiB, as they were measured:
	// of memory that is there, and where only small pieces are.
	there := map[int]time.Duration{8 << 10: 310 * time.Microsecond, 32 << 10: 130 * time.Microsecond, 256 << 10: 65 * time.Microsecond}
	lent := map[int]time.Duration{8 << 10: 310 * time.Microsecond, 32 << 10: 1000 * time.Microsecond, 256 << 10: 1100 * time.Microsecond}
	equal := map[int]time.Duration{8 << 10: 140 * time.Microsecond, 32 << 10: 130 * time.Microsecond, 256 << 10: 120 * time.Microsecond}
	for _, tt := range []struct {
		name  string
		costs map[int]time.Duration
		// One of how many writes is interrupted: another thread has the core for a while.
		interrupted int
		want        int
	}{
		{"the largest where there is memory", there, 20, 2},
		{"the smallest where large blocks are lent", lent, 20, 0},
		{"the first where there is little in it", equal, 1 << 30, firstStep},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := stepper{step: firstStep}
			r := rand.New(rand.NewPCG(1, 2))
			cost := func(step int) time.Duration {
				d := tt.costs[step]
				if r.IntN(tt.interrupted) == 0 {
					d += 4 * time.Millisecond
				}
				return d
			}
			// Each step has its three times after three rounds.
			simulateWrites(&s, 4*stepRound, cost)
			made := simulateWrites(&s, 50*stepRound, cost)
			if most := 50 * (stepRound - 2); made[tt.want] < most*95/100 {
				t.Errorf("%d, %d and %d writes in steps of 8, 32 and 256 KiB, want at least 95%% of %d in steps of %d KiB",
					made[0], made[1], made[2], most, writeSteps[tt.want]>>10)
			}
		})
	}
}

// What was cheap can be used up: then no more than three writes in a row are made at the
// new price before the next best is taken, and its return is found within three rounds.
func TestStepperFollowsAChange(t *testing.T) {
	s := stepper{step: firstStep}
	large := 65 * time.Microsecond
	cost := func(step int) time.Duration {
		switch step {
		case 8 << 10:
			return 310 * time.Microsecond
		case 32 << 10:
			return 130 * time.Microsecond
		}
		return large
	}
	simulateWrites(&s, 4*stepRound, cost)
	if s.step != 2 {
		t.Fatalf("the step is %d KiB, want 256", writeSteps[s.step]>>10)
	}
	large = 1100 * time.Microsecond
	if simulateWrites(&s, 3, cost); s.step != 1 {
		t.Errorf("after three slow writes the step is %d KiB, want 32", writeSteps[s.step]>>10)
	}
	large = 65 * time.Microsecond
	if simulateWrites(&s, 3*stepRound, cost); s.step != 2 {
		t.Errorf("three rounds after they are fast again the step is %d KiB, want 256", writeSteps[s.step]>>10)
	}
}

func TestStagedWriterWritesTheSameInEveryStep(t *testing.T) {
	want := make([]byte, 20<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(want)
	for step := range writeSteps {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := newStagedWriter(f, 0, int64(len(want)), false)
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
			t.Errorf("beginning with steps of %d KiB: the file is not what was written (%v)", writeSteps[step]>>10, err)
		}
		if w.steps.turn == 0 || w.end != int64(len(want)) {
			t.Errorf("%d writes were measured, and the end is at %d of %d", w.steps.turn, w.end, len(want))
		}
	}
}
