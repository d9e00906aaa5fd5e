// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottleBoundsAllReadersTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const perSecond, each = 4 << 20, 1 << 20
		th := NewThrottle(perSecond, nil)
		data := randomBytes(each)
		start := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				got, err := io.ReadAll(th.Reader(t.Context(), io.NopCloser(bytes.NewReader(data))))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
		wg.Wait()
		// 4 MiB, less the burst of one step.
		if took := time.Since(start); took < 900*time.Millisecond || took > 1010*time.Millisecond {
			t.Errorf("4 MiB at 4 MiB/s took %v", took)
		}
	})
}

func TestThrottleEndsItsWaitWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := io.ReadAll(NewThrottle(1, nil).Reader(ctx, io.NopCloser(bytes.NewReader(make([]byte, 100)))))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("error %v after %v", err, time.Since(start))
	}
}

func TestNoThrottleChangesNothing(t *testing.T) {
	t.Parallel()
	rc := io.NopCloser(bytes.NewReader(nil))
	if got := NewThrottle(0, nil).Reader(t.Context(), rc); got != rc {
		t.Errorf("%T", got)
	}
}
