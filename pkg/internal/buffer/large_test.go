// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer

import (
	"runtime"
	"testing"
	"time"
	"unsafe"
)

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
			(*b)[k], (*b)[k+step-1] = byte(i), byte(i)
		}
		taken = append(taken, b)
	}
	for i, b := range taken {
		for k := 0; k < Large; k += step {
			if (*b)[k] != byte(i) || (*b)[k+step-1] != byte(i) {
				t.Fatalf("buffer %d was written with another", i)
			}
		}
	}
	return taken
}

func TestBuffersAreApart(t *testing.T) {
	var s store
	taken := fill(t, &s, 100) // of several regions
	if len(s.regions) < 3 || s.used != 100 {
		t.Errorf("%d in %d regions", s.used, len(s.regions))
	}
	for _, b := range taken {
		s.put(b)
	}
	// The last is the first, and nothing more is mapped.
	regions := len(s.regions)
	if b := s.get(); b != taken[99] {
		t.Error("not the last one that came back")
	}
	fill(t, &s, 99)
	if len(s.regions) != regions {
		t.Errorf("%d regions, and %d when the same was used before", len(s.regions), regions)
	}
}

// The first buffers share large pages: four of them take 2 MiB.
func TestFewBuffersAreInFewPages(t *testing.T) {
	var s store
	pages := map[uintptr]bool{}
	for range 8 {
		b := s.get()
		begin := uintptr(unsafe.Pointer(unsafe.SliceData(*b)))
		pages[begin/largePage], pages[(begin+Large-1)/largePage] = true, true
	}
	if len(pages) != 2 {
		t.Errorf("8 buffers lie in %d large pages, want 2", len(pages))
	}
}

// Memory is given back when none was used from one collection to the next, and not while
// any is.
func TestMemoryIsGivenBack(t *testing.T) {
	var s store
	taken := fill(t, &s, 40)
	for range 3 {
		s.tidy()
	}
	for _, b := range taken[1:] {
		s.put(b)
	}
	for range 3 {
		s.tidy()
	}
	if len(s.regions) == 0 || (*taken[0])[Large-1] != 0 {
		t.Fatal("memory in use was given back")
	}
	s.put(taken[0])
	s.tidy() // it was used since the last one
	if len(s.regions) == 0 {
		t.Error("memory was given back that was used a moment ago")
	}
	s.put(s.get())
	s.tidy()
	if len(s.regions) == 0 {
		t.Error("memory was given back that is used now and then")
	}
	s.tidy()
	if len(s.regions) != 0 || len(s.free) != 0 || len(s.owned) != 0 {
		t.Errorf("%d regions are kept", len(s.regions))
	}
	for _, b := range fill(t, &s, 3) {
		s.put(b)
	}
}

func TestTheCollectorHasMemoryGivenBack(t *testing.T) {
	p := NewPool(Large)
	p.Put(p.Get())
	kept := func() int {
		large.mu.Lock()
		defer large.mu.Unlock()
		return len(large.regions)
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
