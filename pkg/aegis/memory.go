// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// eachLayer is what a pull keeps of a layer, in bytes.
const eachLayer = 4 << 10

// kept is what a pull has in memory beside what one blob takes that is fetched alone, in
// bytes. It has less for what is fetched ahead then, so that a model of 5,000 layers takes no
// more than one of eight, and that no more than one file.
func kept(layers []model.Layer, concurrency int) int64 {
	blobs := make([]ocispec.Descriptor, 0, len(layers))
	for _, l := range layers {
		blobs = append(blobs, l.Descriptor)
	}
	return int64(len(layers))*eachLayer + beside(blobs, concurrency, model.BlobMemory)
}

// beside is what blobs have in memory that move at the same time, without one of them, in
// bytes. Each has as much as it is long, up to a bound; the largest count.
func beside(blobs []ocispec.Descriptor, concurrency int, each int64) (total int64) {
	sizes := make([]int64, 0, len(blobs))
	for _, b := range blobs {
		sizes = append(sizes, max(0, min(b.Size, each)))
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	for i := 1; i < min(len(sizes), concurrency); i++ {
		total += sizes[i]
	}
	return total
}
