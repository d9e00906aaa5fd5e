// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import "testing"

// What is reserved is neither used for blobs nor counted on, and half of all is the most.
func TestReservedMemoryIsNotUsed(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	p := NewPool(Limits{Memory: 16 * mib})
	room := p.room()
	first := p.Reserve(6*mib + 1)
	if p.memory.TryAcquire(10*mib + 1) {
		t.Error("what is reserved can be taken")
	}
	if got, want := p.room(), room-runAhead(6*mib); got != want || !p.ahead.TryAcquire(want) {
		t.Errorf("%d bytes may be under way, want %d", got, want)
	} else {
		p.ahead.Release(want)
	}
	second, third := p.Reserve(3*mib), p.Reserve(2*mib)
	if !p.memory.TryAcquire(8 * mib) {
		t.Error("more than half is reserved, or what there was no room for")
	}
	if p.Reserve(0)(); p.memory.TryAcquire(1) {
		t.Error("less than what fits is reserved")
	}
	p.memory.Release(8 * mib)
	for _, release := range []func(){first, second, third, first} {
		release()
	}
	idle(t, p)
	if p.room() != room {
		t.Errorf("%d bytes may be under way afterwards, want %d", p.room(), room)
	}
}

// Nothing is reserved of what blobs have: who asks does not wait for them.
func TestNothingIsReservedOfWhatIsUsed(t *testing.T) {
	t.Parallel()
	p := NewPool(Limits{Memory: 16 << 20})
	if !p.memory.TryAcquire(12 << 20) {
		t.Fatal("there is no memory")
	}
	room := p.room()
	release := p.Reserve(8 << 20)
	if p.room() != room {
		t.Error("what is used was reserved")
	}
	release()
	if !p.memory.TryAcquire(4<<20) || p.memory.TryAcquire(1) {
		t.Error("what was not reserved was given back")
	}
	p.memory.Release(16 << 20)
	idle(t, p)
}
