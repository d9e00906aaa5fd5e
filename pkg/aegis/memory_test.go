// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// One blob has its memory anyway. Of others as many count as move at the same time.
func TestMemoryThatAPullKeeps(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		what        string
		sizes       []int64
		concurrency int
		want        int64
	}{
		{"nothing", nil, 4, 0},
		{"one file", []int64{1 << 40}, 4, 0},
		{"two files", []int64{1 << 40, 1 << 30}, 4, 3 * mib},
		{"two files one by one", []int64{1 << 40, 1 << 30}, 1, 0},
		{"no concurrency", []int64{1 << 40, 1 << 30}, -1, 0},
		{"many files", []int64{1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30}, 4, 9 * mib},
		{"one file and small ones", []int64{100, 1 << 40, 200, mib}, 4, mib + 300},
		{"sizes that are none", []int64{-1 << 63, 1 << 40, -1}, 4, 0},
	} {
		var layers []model.Layer
		for _, n := range c.sizes {
			layers = append(layers, model.Layer{Descriptor: ocispec.Descriptor{Size: n}})
		}
		if got := kept(layers, c.concurrency) - int64(len(layers))*eachLayer; got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.what, got, c.want)
		}
	}
}
