// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

import (
	"maps"
	"runtime"
	"testing"
	"time"
)

// own is a store that the collector does not tidy up.
func own() *store { return &store{watched: true} }

// regions are those that s has mapped.
func regions(s *store) map[*region]bool {
	all := make(map[*region]bool)
	for _, o := range s.owned {
		all[o.region] = true
	}
	return all
}

// fill takes n buffers, writes to all of each, and fails when they are not apart from each
// other.
func fill(t *testing.T, s *store, n int) []*[]byte {
	t.Helper()
	const step = 1 << 10
	var taken []*[]byte
	for i := range n {
		b := s.get()
		if len(*b) != Large || cap(*b) != Large {
			t.Fatalf("%d bytes of %d", len(*b), cap(*b))
		}
		for k := 0; k < Large; k += step {
			(*b)[k], (*b)[k+step-1] = byte(i+1), byte(i+1)
		}
		taken = append(taken, b)
	}
	for i, b := range taken {
		for k := 0; k < Large; k += step {
			if (*b)[k] != byte(i+1) || (*b)[k+step-1] != byte(i+1) {
				t.Fatalf("buffer %d was written with another", i)
			}
		}
	}
	return taken
}

func TestBuffersAreApart(t *testing.T) {
	s := own()
	taken := fill(t, s, 100) // of several regions
	if len(regions(s)) < 3 || s.used != 100 {
		t.Errorf("%d in %d regions", s.used, len(regions(s)))
	}
	for _, b := range taken {
		s.put(b)
	}
	// The last is the first, and nothing more is mapped.
	before := len(regions(s))
	if b := s.get(); b != taken[99] {
		t.Error("not the last one that came back")
	}
	fill(t, s, 99)
	if n := len(regions(s)); n != before {
		t.Errorf("%d regions, and %d when the same was used before", n, before)
	}
}

// Memory is given back when none of it was used from one collection to the next, and not
// while any is.
func TestMemoryIsGivenBack(t *testing.T) {
	s := own()
	taken := fill(t, s, 40)
	for range 3 {
		s.tidy()
	}
	for _, b := range taken[1:] {
		s.put(b)
	}
	want := map[*region]bool{s.owner(*taken[0]).region: true}
	s.tidy() // they were used since the last one
	if len(regions(s)) < 2 {
		t.Error("memory was given back that was used a moment ago")
	}
	s.tidy()
	if !maps.Equal(regions(s), want) {
		t.Error("not all that was idle was given back, or what is in use")
	}
	if (*taken[0])[0] != 1 || s.owner(*taken[0]) == nil {
		t.Error("a buffer in use is not what it was")
	}
	s.put(taken[0])
	for range 3 {
		s.tidy()
		if b := s.get(); b != taken[0] {
			t.Error("memory was given back that is used now and then")
		}
		s.put(taken[0])
	}
	s.tidy()
	s.tidy()
	if len(regions(s)) != 0 || len(s.free) != 0 || len(s.owned) != 0 {
		t.Errorf("%d regions are kept", len(regions(s)))
	}
	for _, b := range fill(t, s, 3) {
		s.put(b)
	}
}

func TestTheCollectorHasMemoryGivenBack(t *testing.T) {
	p := NewPool(Large)
	p.Put(p.Get())
	kept := func() int {
		large.mu.Lock()
		defer large.mu.Unlock()
		return len(regions(&large))
	}
	if kept() == 0 {
		t.Fatal("nothing is kept")
	}
	for end := time.Now().Add(30 * time.Second); kept() > 0; time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(end) {
			t.Fatalf("%d regions are kept", kept())
		}
	}
}
