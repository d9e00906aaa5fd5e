// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"io"
	"slices"
	"time"
)

// writeSteps are the sizes in which files on a disk are handed to the kernel. File systems
// with large folios (XFS; ext4 since Linux 6.16) take one of that size for the page cache.
// A large one costs least for each byte, where the kernel has it: 3 GiB took 0.4 s of
// processor time in steps of 256 KiB, 0.8 s in steps of 32 KiB and 1.9 s in steps of 8 KiB.
// But where the host of a virtual machine takes the memory of large blocks that are free
// (free page reporting), 256 MiB of those take 0.5 s instead of 0.03 to 0.07 s, and what
// memory is there lies in smaller pieces: who asks for large ones is given what is not.
var writeSteps = [...]int{8 << 10, 32 << 10, 256 << 10}

const (
	// firstStep is what a writer begins with: 32 KiB is the largest folio that Linux
	// keeps ready for each core (PAGE_ALLOC_COSTLY_ORDER).
	firstStep = 1
	// stepSample is how many bytes a write has at least for its time to say something.
	stepSample = 128 << 10
	// stepRound is how many of those there are between two trials of the same other step.
	// It is odd, so that trials do not keep to one place in a writeWindow.
	stepRound = 29
)

// stepper writes in those of writeSteps that cost least, by what its last writes took.
// Short writes, as of archives' members, say nothing and change nothing.
type stepper struct {
	step int // index of the one in use
	// again is the index of the one that the next write is to try, if it is another one.
	again int
	turn  int
	costs [len(writeSteps)]costs
}

func newStepper() stepper { return stepper{step: firstStep, again: firstStep} }

// write writes p to w, which is at offset at.
func (s *stepper) write(w io.Writer, at int64, p []byte) (int, error) {
	if len(p) < stepSample {
		return writeInSteps(w, at, p, writeSteps[s.step])
	}
	i, start := s.next(), time.Now()
	n, err := writeInSteps(w, at, p, writeSteps[i])
	if err == nil {
		s.took(i, time.Since(start), n)
	}
	return n, err
}

// writeInSteps writes p to w in parts that end at multiples of step: a folio of that size
// lies at a multiple of it.
func writeInSteps(w io.Writer, at int64, p []byte, step int) (n int, err error) {
	for n < len(p) && err == nil {
		part := step - int((at+int64(n))%int64(step))
		var k int
		k, err = w.Write(p[n:min(len(p), n+part)])
		n += k
	}
	return n, err
}

// next is the index of the step for the next write that is measured: mostly the one in
// use, and in each round each of the others once, so that it is known what they take. One
// that took twice as long is tried in every fourth round only, and one that has become
// better at once again, until its median says so too.
func (s *stepper) next() int {
	if s.again != s.step {
		return s.again
	}
	s.turn++
	i := s.step
	switch s.turn % stepRound {
	case stepRound / 4:
		i = (s.step + 1) % len(writeSteps)
	case stepRound * 3 / 4:
		i = (s.step + 2) % len(writeSteps)
	}
	if i != s.step && s.turn/stepRound%4 != 0 && s.costs[i].median() > 2*s.costs[s.step].median() {
		return s.step
	}
	return i
}

// took says that n bytes, no less than a sample, took d in steps of writeSteps[i].
func (s *stepper) took(i int, d time.Duration, n int) {
	d = d * (1 << 10) / time.Duration(n>>10)
	s.costs[i].add(d)
	now := s.costs[s.step].median()
	s.again = s.step
	if now == 0 {
		return
	}
	best, least := s.step, now
	for j := range s.costs {
		if m := s.costs[j].median(); m != 0 && m < least {
			best, least = j, m
		}
	}
	// What is only a little better is noise.
	switch {
	case least < now*4/5:
		s.step, s.again = best, best
	case i != s.step && d < now*4/5:
		s.again = i
	}
}

// costs are the last times of one step, each for a MiB. Their median is not moved by
// the few writes in which another thread had the core.
type costs struct {
	last [5]time.Duration
	n    int
}

func (c *costs) add(d time.Duration) {
	c.last[c.n%len(c.last)] = d
	c.n++
}

// median is 0 until there are enough to have one, and where the clock is too coarse.
func (c *costs) median() time.Duration {
	if c.n < 3 {
		return 0
	}
	sorted := c.last
	known := sorted[:min(c.n, len(sorted))]
	slices.Sort(known)
	return known[len(known)/2]
}
