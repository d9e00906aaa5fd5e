// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"runtime"
	"testing"
	"time"
)

func TestTheMemoryLimitLeavesRoomAboveTheTarget(t *testing.T) {
	t.Parallel()
	for _, live := range []int64{0, 1 << 20, 14 << 20, 24 << 20, 64 << 20, 1 << 30} {
		limit := limitFor(live)
		if limit < memoryTarget || limit < live+memoryRoom {
			t.Errorf("%d of a heap of %d", limit, live)
		}
		if live <= 14<<20 && limit != memoryTarget {
			t.Errorf("%d bytes for a heap of %d, want the target", limit, live)
		}
	}
	if liveHeap() == 0 {
		runtime.GC()
		if liveHeap() == 0 {
			t.Error("nothing is known of the heap")
		}
	}
}

func TestEveryCollectionIsHeardOf(t *testing.T) {
	t.Parallel()
	heard := make(chan struct{}, 100)
	afterEachCollection(func() {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	for range 3 {
		runtime.GC()
		select {
		case <-heard:
		case <-time.After(10 * time.Second):
			t.Fatal("a collection was not heard of")
		}
	}
}
