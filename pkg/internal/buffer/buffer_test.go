// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package buffer_test

import (
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

func TestBuffersHaveTheirSize(t *testing.T) {
	const size = 3<<10 + 1
	p := buffer.NewPool(size)
	for _, filled := range []bool{false, true} {
		b := p.Get(filled)
		if len(*b) != size {
			t.Errorf("Get(%t) has %d bytes, not %d", filled, len(*b), size)
		}
		p.Put(b)
		if again := p.Get(filled); len(*again) != size {
			t.Errorf("after Put, Get(%t) has %d bytes, not %d", filled, len(*again), size)
		}
	}
}
