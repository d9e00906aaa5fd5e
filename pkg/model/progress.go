// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

// Progress hears how far the work on each named file is. Its methods are called
// from several goroutines at once, and for one name in the order Start, Add any
// number of times, Done. Done is also called for work that was given up.
type Progress interface {
	// Start announces name, of total bytes.
	Start(name string, total int64)
	// Add reports n more bytes of name; n is negative when bytes have to be
	// moved again.
	Add(name string, n int64)
	Done(name string)
}

// Planner is a Progress that hears of the whole beforehand, so that it can tell
// how much is left. Plan begins a stage (hashing, uploading, fetching, checking)
// whose names come to total bytes; what was heard before it is over.
type Planner interface {
	Progress
	Plan(total int64)
}

// Plan tells p, when it is a Planner, that a stage of total bytes begins.
func Plan(p Progress, total int64) {
	if planner, ok := p.(Planner); ok {
		planner.Plan(total)
	}
}

type noProgress struct{}

func (noProgress) Start(string, int64) {}
func (noProgress) Add(string, int64)   {}
func (noProgress) Done(string)         {}

// orNoProgress returns p, or a Progress that does nothing when p is nil.
func orNoProgress(p Progress) Progress {
	if p == nil {
		return noProgress{}
	}
	return p
}
