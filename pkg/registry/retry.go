// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/internal/jitter"
)

const (
	defaultBudget = 2 * time.Minute
	firstBackoff  = 250 * time.Millisecond
	maxBackoff    = 15 * time.Second
	// maxResends bounds how often an upload that had begun to flow is started
	// over: the budget does not count the time in which bytes flowed.
	maxResends = 8
)

// RetryPolicy says how long one operation may go on failing. Between two tries
// there is a random wait of up to a doubling bound (full jitter), and a little more
// than a Retry-After asks for; a Retry-After that does not fit into the budget
// ends the operation at once.
type RetryPolicy struct {
	// Budget bounds the time an operation spends on failed tries and on waiting.
	// Zero means two minutes.
	Budget time.Duration
}

// try runs fn until it succeeds, fails for good, or the budget is spent. flowed
// reports whether the failed try had moved content.
func (r *Repository) try(ctx context.Context, fn func(context.Context) (flowed bool, err error)) error {
	o := r.client.options
	var spent time.Duration
	resends := 0
	for n := 0; ; n++ {
		began := o.Now()
		flowed, err := fn(ctx)
		if err == nil {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) || !e.Retryable() {
			return err
		}
		if flowed {
			if resends++; resends > maxResends {
				return err
			}
		} else {
			spent += o.Now().Sub(began)
		}
		wait := max(backoff(n), e.retryAfter)
		if spent+wait > o.Retry.Budget {
			return err
		}
		wait = max(wait, jitter.After(e.retryAfter, o.Retry.Budget-spent))
		spent += wait
		r.retries.Add(1)
		o.Logger.LogAttrs(ctx, slog.LevelDebug, "registry retry",
			slog.String("op", e.Op), slog.String("reason", e.Kind.String()), slog.Int("status", e.Status), slog.Duration("wait", wait))
		if waitErr := o.Sleep(ctx, wait); waitErr != nil {
			return fmt.Errorf("%w (%w)", err, waitErr)
		}
	}
}

// backoff is a random wait before try n+2.
func backoff(n int) time.Duration {
	bound := maxBackoff
	if n < 10 {
		bound = min(maxBackoff, firstBackoff<<n)
	}
	return rand.N(bound) + time.Millisecond
}

// unixTimes is the September of 2001, and no time to wait.
const unixTimes = 1_000_000_000

// retryAfter reads the header (RFC 9110, section 10.2.3): seconds or a date. A number of
// decades is a date too, in Unix time, as Docker Hub has it (docker/hub-feedback#2459).
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0, false
	}
	switch seconds, err := strconv.ParseInt(header, 10, 34); {
	case err == nil && seconds >= unixTimes:
		return max(time.Unix(seconds, 0).Sub(now), 0), true
	case err == nil:
		return time.Duration(max(seconds, 0)) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
