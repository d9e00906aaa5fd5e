// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

import (
	"runtime"
	"slices"
	"sync"
	"unsafe"
)

// regionSize is how much memory is asked of the system at a time. Where it is mapped, what
// is not used takes none.
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
	// least is how many have stayed free since tidy was called. They are the first ones.
	least int
	owned map[*byte]*owned // by the first byte
	used  int
	// watched means that tidy is called.
	watched bool
}

type owned struct {
	region *region
	out    bool
}

type region struct {
	memory  []byte
	buffers int
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
	s.least = min(s.least, last)
	o := s.owner(*b)
	if o == nil || o.out {
		panic("buffer: what is free was changed")
	}
	o.out = true
	s.used++
	return b
}

func (s *store) put(b *[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owner(*b)
	if o == nil || !o.out {
		panic("buffer: what is given back was not handed out")
	}
	spoil(*b)
	o.out = false
	s.used--
	s.free = append(s.free, b)
}

// owner returns what is known of b, nil when it is not a whole buffer of s. The caller holds
// s.mu.
func (s *store) owner(b []byte) *owned {
	if len(b) != Large {
		return nil
	}
	return s.owned[unsafe.SliceData(b)]
}

// extend adds a region to what is free. The caller holds s.mu.
func (s *store) extend() {
	memory, whole := mapRegion(regionSize)
	if s.owned == nil {
		s.owned = make(map[*byte]*owned)
	}
	r := &region{memory: memory, buffers: len(whole) / Large}
	for i := r.buffers - 1; i >= 0; i-- {
		b := whole[i*Large : (i+1)*Large : (i+1)*Large]
		s.owned[unsafe.SliceData(b)] = &owned{region: r}
		s.free = append(s.free, &b)
	}
	if !s.watched {
		s.watched = true
		afterEachCollection(s.tidy)
	}
}

// tidy gives regions back to the system of which nothing was used since it was called last.
func (s *store) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := make(map[*region]int)
	for _, b := range s.free[:s.least] {
		idle[s.owner(*b).region]++
	}
	s.free = slices.DeleteFunc(s.free, func(b *[]byte) bool {
		r := s.owner(*b).region
		if idle[r] < r.buffers {
			return false
		}
		delete(s.owned, unsafe.SliceData(*b))
		return true
	})
	for r, n := range idle {
		if n == r.buffers {
			unmapRegion(r.memory)
		}
	}
	s.least = len(s.free)
}

// Exchangeable reports whether b is a whole buffer that a pool of Large ones has handed out:
// who has it may be given another one for it.
func Exchangeable(b []byte) bool {
	large.mu.Lock()
	defer large.mu.Unlock()
	o := large.owner(b)
	return o != nil && o.out
}

// InUse is how many buffers of Large bytes were handed out and not given back.
func InUse() int {
	large.mu.Lock()
	defer large.mu.Unlock()
	return large.used
}

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
