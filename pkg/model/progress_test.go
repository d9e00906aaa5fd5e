// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"path/filepath"
	"slices"
	"testing"
)

// A Planner hears of the whole before the first name of each stage: one to fetch,
// one to check what is there.
func TestUnpackTellsTheWhole(t *testing.T) {
	const once, files = 2<<20 + 17 + 15, 2*(2<<20+17) + 15 // two files are one blob
	dst := filepath.Join(t.TempDir(), "model")
	a := sample()
	v, m := a.decode(t)
	for _, want := range []int64{once, files} {
		p := &packProgress{total: map[string]int64{}, added: map[string]int64{}, done: map[string]int{}}
		if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Progress: p}); err != nil {
			t.Fatal(err)
		}
		var heard int64
		for _, n := range p.total {
			heard += n
		}
		if !slices.Equal(p.plans, []int64{want}) || heard != want {
			t.Errorf("planned %d and begun %d bytes, want %d", p.plans, heard, want)
		}
	}
}
