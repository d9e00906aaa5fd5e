// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

import (
	"runtime"
	"slices"
	"sync"
	"unsafe"
)

// regionSize is how much memory is asked of the system at a time. Of that, what is not used
// takes none.
const regionSize = 16 << 20

var large store

// store keeps buffers of Large bytes. They are tens of megabytes that hold no pointers and
// whose use has a clear end. In the heap the collector would let as much again come together
// before it frees anything, or run all the time where it is told to keep below a limit.
type store struct {
	mu sync.Mutex
	// free is what may be handed out. The last that came back is the first to go: of few
	// buffers few are touched.
	free []*[]byte
	// owned has the first byte of every buffer, in regions.
	owned   map[*byte]struct{}
	regions [][]byte
	used    int
	// busy means that some were used since tidy was called.
	busy bool
	// watched means that tidy is called.
	watched bool
}

func (s *store) get() *[]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		s.extend()
	}
	last := len(s.free) - 1
	b := s.free[last]
	s.free[last] = nil
	s.free = s.free[:last]
	s.used++
	s.busy = true
	return b
}

func (s *store) put(b *[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.owns(*b) || s.used == 0 {
		panic("buffer: what is given back was not handed out")
	}
	s.used--
	s.free = append(s.free, b)
}

// owns reports whether b is a whole buffer of s. The caller holds s.mu.
func (s *store) owns(b []byte) bool {
	_, ok := s.owned[unsafe.SliceData(b)]
	return ok && len(b) == Large
}

// extend adds a region to what is free. The caller holds s.mu.
func (s *store) extend() {
	region := mapRegion(regionSize)
	if s.owned == nil {
		s.owned = make(map[*byte]struct{})
	}
	var fresh []*[]byte
	for b := range slices.Chunk(wholePages(region), Large) {
		if len(b) < Large {
			break
		}
		s.owned[unsafe.SliceData(b)] = struct{}{}
		b = b[:Large:Large]
		fresh = append(fresh, &b)
	}
	slices.Reverse(fresh)
	s.regions, s.free = append(s.regions, region), append(s.free, fresh...)
	if !s.watched {
		s.watched = true
		afterEachCollection(s.tidy)
	}
}

// tidy gives all memory back to the system when nothing was used since it was called last.
func (s *store) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == 0 && !s.busy {
		for _, region := range s.regions {
			unmapRegion(region)
		}
		s.free, s.owned, s.regions = nil, nil, nil
	}
	s.busy = s.used > 0
}

// Exchangeable reports whether b is a whole buffer of a pool of Large ones: who has it may
// be given another one for it.
func Exchangeable(b []byte) bool {
	large.mu.Lock()
	defer large.mu.Unlock()
	return large.owns(b)
}

// InUse is how many buffers of Large bytes were handed out and not given back.
func InUse() int {
	large.mu.Lock()
	defer large.mu.Unlock()
	return large.used
}

// wholePages is the part of b that is large pages from its first byte to its last.
func wholePages(b []byte) []byte {
	before := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (largePage - 1)) //nolint:gosec // below 2 MiB
	b = b[min(before, len(b)):]
	return b[:len(b)&^(largePage-1)]
}

// largePage is the size of a large page where pages have 4 KiB.
const largePage = 2 << 20

// afterEachCollection calls do when the garbage collector has run, as long as the process
// lives.
func afterEachCollection(do func()) {
	type sentinel struct{ _ *byte }
	var again func(*sentinel)
	again = func(s *sentinel) {
		do()
		runtime.SetFinalizer(s, again)
	}
	runtime.SetFinalizer(&sentinel{}, again)
}
