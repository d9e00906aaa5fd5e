// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/pacing"
)

// line is a RangeSource of zeros, each of whose connections gives rate bytes a second.
type line struct{ rate int64 }

func (l line) OpenBlob(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return l.OpenRange(ctx, desc, offset, desc.Size)
}

func (l line) OpenRange(_ context.Context, _ ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	time.Sleep(time.Millisecond)
	return io.NopCloser(&lineBody{l.rate, end - offset}), nil
}

type lineBody struct{ rate, left int64 }

func (b *lineBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := min(b.left, int64(len(p)), max(4<<10, b.rate/50)) // as it comes
	b.left -= n
	time.Sleep(time.Duration(float64(n) / float64(b.rate) * float64(time.Second)))
	return int(n), nil
}

// pullAll reads blobs of these sizes at one pace, as a pull does, and returns how long
// that took.
func pullAll(t *testing.T, src RangeSource, sizes ...int64) time.Duration {
	var wg sync.WaitGroup
	pool := NewPool(Limits{})
	pool.fast = 128 << 20 // as on a small machine
	pace := pacing.Pace{Free: pool.Spread}
	began := time.Now()
	for _, size := range sizes {
		wg.Go(func() {
			r := Open(t.Context(), pool, src, ocispec.Descriptor{Size: size}, 0, Options{})
			defer r.Close()
			runner := pace.Begin(size)
			defer runner.End()
			buffer := make([]byte, 512<<10)
			for size > 0 {
				n, err := io.ReadFull(r, buffer[:min(size, int64(len(buffer)))])
				if err != nil {
					t.Error(err)
					return
				}
				size -= int64(n)
				runner.Step(t.Context(), int64(n))
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// A model's files share what connections there are, however different they are, and none
// is left with few of them at the end. 13 is the most for one, 15 for three.
func TestAModelOverSlowConnections(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct {
		rate  int64 // of a connection
		sizes []int64
		want  float64 // connections in use on average, at least
	}{
		{mib / 4, []int64{64 * mib}, 6},
		{1 * mib, []int64{192 * mib, 48 * mib, 48 * mib}, 10},
		{16 * mib, []int64{512 * mib}, 8},
		{16 * mib, []int64{192 * mib, 48 * mib, 48 * mib}, 7},
		{16 * mib, []int64{64 * mib, 64 * mib, 64 * mib, 64 * mib}, 6},
		{16 * mib, []int64{512 * mib, 128 * mib, 128 * mib, 10 * mib}, 9},
		{32 * mib, []int64{512 * mib, 128 * mib, 128 * mib}, 7},
	} {
		synctest.Test(t, func(t *testing.T) {
			var total int64
			for _, n := range c.sizes {
				total += n
			}
			took := pullAll(t, line{c.rate}, c.sizes...)
			if got := float64(total) / float64(c.rate) / took.Seconds(); got < c.want {
				t.Errorf("files of %d bytes at %d bytes/s a connection: %v, %.1f connections on average, want %.1f at least", c.sizes, c.rate, took, got, c.want)
			}
		})
	}
}
