// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// memoryTarget is what the heap may grow to before its garbage is collected, in
	// bytes. Without it a heap of 20 MiB, as a model of many layers has, doubles before
	// that. What content moves through is not in the heap.
	memoryTarget = 24 << 20
	// memoryRoom is how much more than what is in use the heap may have where that is
	// near the target or above it, so that the collector does not run all the time: an
	// archive may need a large window.
	memoryRoom = 8 << 20
)

// boundMemory keeps the heap near memoryTarget where it can be. Who has tuned the
// collector knows better.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetMemoryLimit(memoryTarget)
	afterEachCollection(func() { debug.SetMemoryLimit(limitFor(liveHeap())) })
}

func limitFor(live int64) int64 { return max(memoryTarget, live+live/8+memoryRoom) }

func liveHeap() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(min(sample[0].Value.Uint64(), 1<<62)) //nolint:gosec // bounded
}

// afterEachCollection calls do when the garbage collector has run.
func afterEachCollection(do func()) {
	type sentinel struct{ _ *byte }
	var again func(*sentinel)
	again = func(s *sentinel) {
		do()
		runtime.SetFinalizer(s, again)
	}
	runtime.SetFinalizer(&sentinel{}, again)
}
