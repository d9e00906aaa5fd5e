// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const mib = 1 << 20

// What is reserved is neither used for blobs nor counted on, and half of all is the most.
func TestReservedMemoryIsNotUsed(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Memory: 16 * mib})
	room := p.room()
	first := p.Reserve(6*mib + 1)
	if p.memory.TryAcquire(10*mib + 1) {
		t.Error("what is reserved can be taken")
	}
	want := room - runAhead(6*mib)
	if got := p.room(); got != want || p.ahead.TryAcquire(want+1) || !p.ahead.TryAcquire(want) {
		t.Errorf("%d bytes may be under way, want %d", got, want)
	}
	p.ahead.Release(want)
	second, third := p.Reserve(3*mib), p.Reserve(2*mib)
	if !p.memory.TryAcquire(8 * mib) {
		t.Error("more than half is reserved")
	}
	if p.memory.TryAcquire(1) {
		t.Error("less than half is reserved")
	}
	p.memory.Release(8 * mib)
	for _, release := range []func(){first, second, third, first, p.Reserve(0), p.Reserve(-mib)} {
		release()
	}
	if p.room() != room {
		t.Errorf("%d bytes may be under way afterwards, want %d", p.room(), room)
	}
	idle(t, p)
}

// Nothing is reserved of what blobs have: who asks does not wait for them.
func TestNothingIsReservedOfWhatIsUsed(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Memory: 16 * mib})
	ahead := p.room()
	if !p.memory.TryAcquire(12*mib) || !p.ahead.TryAcquire(ahead) {
		t.Fatal("there is no memory")
	}
	release := p.Reserve(8 * mib)
	if p.memory.TryAcquire(1) || p.room() != ahead-runAhead(4*mib) {
		t.Error("what is free was not reserved, or more")
	}
	p.Reserve(mib)()
	release()
	if !p.memory.TryAcquire(4*mib) || p.memory.TryAcquire(1) || p.ahead.TryAcquire(1) {
		t.Error("what was not reserved was given back")
	}
	p.memory.Release(16 * mib)
	p.ahead.Release(ahead)
	idle(t, p)
}

// Segments that begin together do not end together, and the last ones are what each
// connection has left where that takes it a moment only.
func TestSegmentsEndOneAfterTheOther(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Memory: 64 * mib})
	p.working.Store(8)
	f := &fan{pool: p, desc: ocispec.Descriptor{Size: 1 << 30}}
	f.works.Store(8)
	f.size.Store(12 * mib)
	f.each.Store(64 * mib)
	check := func(what string, left int64, want ...float64) {
		t.Helper()
		for i, w := range want {
			got := f.next(left)
			if float64(got) != w*mib {
				t.Errorf("%s, segment %d: %.1f MiB, want %.1f", what, i, float64(got)/mib, w)
			}
			left -= got
		}
	}
	check("at first", 1<<30, 5.5, 7, 8.5, 10, 11.5, 12, 12)
	f.size.Store(4 * mib)
	check("when each is slower", 1<<30, 4, 4)
	f.size.Store(12 * mib)
	check("when each is as fast again", 1<<30, 5.5, 7, 8.5, 10, 11.5, 12)
	// 48 MiB have to come of what is under way.
	f.received.Store(f.desc.Size - 80*mib)
	check("at the end", 32*mib, 10, 10, 10, 2)
	f.each.Store(4 * mib)
	check("at the end of a slow one", 32*mib, 2, 1.5)
	f.received.Store(0)
	p.working.Store(16)
	check("beside another blob", 1<<30, 8.5)
	p.working.Store(8)
	defer p.Reserve(32 * mib)()
	check("when half is reserved", 1<<30, 8.5)
}
