// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer_test

import (
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

func TestBuffersHaveTheirSize(t *testing.T) {
	for _, size := range []int{3<<10 + 1, buffer.Large, 2 * buffer.Large} {
		p := buffer.NewPool(size)
		b := p.Get()
		if len(*b) != size {
			t.Errorf("a buffer of %d bytes, not %d", len(*b), size)
		}
		p.Put(b)
		if again := p.Get(); len(*again) != size {
			t.Errorf("after Put, a buffer of %d bytes, not %d", len(*again), size)
		} else {
			p.Put(again)
		}
	}
	if n := buffer.InUse(); n != 0 {
		t.Errorf("%d in use", n)
	}
}

// What pools share is what may be exchanged: nobody else's memory is unmapped, and nothing
// that they may still use.
func TestOnlyWholeBuffersOfPoolsAreExchangeable(t *testing.T) {
	one, other := buffer.NewPool(buffer.Large), buffer.NewPool(buffer.Large)
	a, b := one.Get(), other.Get()
	if !buffer.Exchangeable(*a) || !buffer.Exchangeable(*b) {
		t.Error("buffers of pools are not exchangeable")
	}
	for what, slice := range map[string][]byte{
		"nothing":         nil,
		"an empty one":    (*a)[:0],
		"a beginning":     (*a)[:buffer.Large-1],
		"an end":          (*a)[1:],
		"somebody else's": make([]byte, buffer.Large),
	} {
		if buffer.Exchangeable(slice) {
			t.Errorf("%s is exchangeable", what)
		}
	}
	if n := buffer.InUse(); n != 2 {
		t.Errorf("%d in use, want 2", n)
	}
	*a, *b = *b, *a
	one.Put(a)
	if back := *a; buffer.Exchangeable(back) {
		t.Error("what came back is exchangeable")
	}
	other.Put(b)
	if n := buffer.InUse(); n != 0 {
		t.Errorf("%d in use", n)
	}
}

func TestOnlyWhatWasHandedOutIsTakenBack(t *testing.T) {
	p := buffer.NewPool(buffer.Large)
	refuses := func(what string, b *[]byte) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s was taken back", what)
			}
		}()
		p.Put(b)
	}
	b, other := p.Get(), p.Get()
	mine, part := make([]byte, buffer.Large), (*b)[1:]
	refuses("somebody else's memory", &mine)
	refuses("a part of a buffer", &part)
	p.Put(b)
	refuses("what came back before", b)
	p.Put(other)
}
