// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"io"
	"time"

	"golang.org/x/time/rate"
)

const (
	// throttleStep is the most that is read before the next wait.
	throttleStep = 64 << 10
	// throttleWaits is how many waits there are in a second at low rates: so many
	// that no read of a dozen streams that wait in turn looks like a stall.
	throttleWaits = 16
)

// Throttle bounds the rate of all bodies that it reads, together. A nil Throttle
// bounds nothing. It is safe for concurrent use.
type Throttle struct {
	limiter *rate.Limiter
	step    int
	now     func() time.Time
}

// NewThrottle returns a Throttle of perSecond bytes a second, nil when that is not
// above zero. now is the clock; nil means time.Now.
func NewThrottle(perSecond int64, now func() time.Time) *Throttle {
	if perSecond <= 0 {
		return nil
	}
	if now == nil {
		now = time.Now
	}
	step := int(min(max(perSecond/throttleWaits, 1), throttleStep))
	return &Throttle{limiter: rate.NewLimiter(rate.Limit(perSecond), step), step: step, now: now}
}

// Reader reads rc no faster than t allows. A wait ends with ctx.
func (t *Throttle) Reader(ctx context.Context, rc io.ReadCloser) io.ReadCloser {
	if t == nil {
		return rc
	}
	slow := &throttled{ReadCloser: rc, ctx: ctx, t: t}
	if says, ok := rc.(Ranging); ok {
		return &throttledRanging{slow, says}
	}
	return slow
}

type throttled struct {
	io.ReadCloser
	ctx context.Context
	t   *Throttle
}

func (r *throttled) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), r.t.step)])
	if n == 0 {
		return n, err
	}
	// Not WaitN, which refuses at once what a deadline would cut short.
	now := r.t.now()
	if wait := r.t.limiter.ReserveN(now, n).DelayFrom(now); wait > 0 {
		if werr := sleep(r.ctx, wait); werr != nil && err == nil {
			err = werr
		}
	}
	return n, err
}

// throttledRanging is a throttled body whose server can be asked for a part, which is not.
type throttledRanging struct {
	*throttled
	Ranging
}
