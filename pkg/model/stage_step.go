// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"time"
)

// writeSteps are the sizes in which a stagedWriter hands its bytes to the kernel. File
// systems take a folio of that size for the page cache. A large one costs least for each
// byte, where the kernel has it: 3 GiB took 0.4 s of processor time in steps of 256 KiB,
// 0.8 s in steps of 32 KiB and 1.9 s in steps of 8 KiB. But where the host of a virtual
// machine takes the memory of blocks of 2 MiB that are free (free page reporting), a page
// of one takes ten times as long, and memory that is there lies in pieces that are the
// smaller the longer the machine runs: who asks for large ones is given what is not there.
var writeSteps = [...]int{8 << 10, 32 << 10, 256 << 10}

const (
	// firstStep is what a writer begins with: 32 KiB is the largest folio that Linux
	// keeps ready for each core (PAGE_ALLOC_COSTLY_ORDER).
	firstStep = 1
	// memoryStep is that of a file in memory, whose folios are pages whatever is asked
	// for. A system call can take 3 µs in a virtual machine, and in steps of 32 KiB there
	// are 98,000 for 3 GiB. With more than this a pull was no faster.
	memoryStep = 64 << 10
	// stepSample is how many bytes a write has at least for its time to say something.
	stepSample = 128 << 10
	// stepRound is how many of those there are between two trials of the same other step.
	stepRound = 32
)

// stepper chooses among writeSteps by what writes of each size took. Reading a clock
// takes less than a thousandth of such a write.
type stepper struct {
	step  int // index of the one in use
	turn  int
	costs [len(writeSteps)]costs
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

// median is 0 until there are enough to have one.
func (c *costs) median() time.Duration {
	if c.n < 3 {
		return 0
	}
	sorted := c.last
	known := sorted[:min(c.n, len(sorted))]
	slices.Sort(known)
	return known[len(known)/2]
}

// next is the index of the step to take for a write that is measured: mostly the one in
// use, and twice in a round each of the others once, so that it is known what they take.
func (s *stepper) next() int {
	s.turn++
	switch s.turn % stepRound {
	case stepRound / 4:
		return (s.step + 1) % len(writeSteps)
	case stepRound * 3 / 4:
		return (s.step + 2) % len(writeSteps)
	}
	return s.step
}

// took says that n bytes, no less than a sample, took d in steps of writeSteps[i].
func (s *stepper) took(i int, d time.Duration, n int) {
	s.costs[i].add(d * (1 << 10) / time.Duration(n>>10))
	now := s.costs[s.step].median()
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
	if least < now*4/5 {
		s.step = best
	}
}
