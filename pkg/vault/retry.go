// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/internal/jitter"
)

const (
	backoffBase = 250 * time.Millisecond
	backoffCap  = 10 * time.Second
)

// do sends cl until it is answered, the answer is final, or the budget is spent.
func (c *Client) do(ctx context.Context, cl call) (answer, error) {
	end := c.cfg.Now().Add(c.cfg.RetryBudget)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return answer{}, &Error{Op: cl.op, Path: cl.path, Kind: Unreachable, Detail: err.Error(), Err: context.Cause(ctx)}
		}
		a, e := c.attempt(ctx, cl)
		if e == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			e.Err = context.Cause(ctx)
			return answer{}, e
		}
		if !worthRepeating(e) || cl.once && e.sent {
			return answer{}, e
		}
		wait := max(backoff(n), e.retryAfter)
		if c.cfg.Now().Add(wait).After(end) {
			return answer{}, c.exhausted(ctx, cl, e)
		}
		wait = max(wait, jitter.After(e.retryAfter, end.Sub(c.cfg.Now())))
		c.cfg.Logger.Debug("vault request repeated", "path", cl.path, "after", wait, "reason", e.Error())
		c.cfg.Sleep(wait, ctx.Done())
	}
}

// worthRepeating: 412, 429, 472, 473, 5xx and connection errors. A redirect that
// was not followed (Standby without a status) would only come again.
func worthRepeating(e *Error) bool {
	return e.Retryable() && (e.Kind == Unreachable || e.Status != 0)
}

// backoff is full jitter over an exponential ceiling, so that many pods that met
// the same outage do not come back together.
func backoff(n int) time.Duration {
	ceiling := backoffCap
	if n < 6 {
		ceiling = min(backoffCap, backoffBase<<n)
	}
	return rand.N(ceiling) + time.Millisecond //nolint:gosec // jitter needs no secrecy
}

// exhausted tells a server that was never initialized from one that is sealed:
// both refuse requests in the same words.
func (c *Client) exhausted(ctx context.Context, cl call, e *Error) *Error {
	if e.Kind != Sealed && e.Status != http.StatusServiceUnavailable {
		return e
	}
	a, _, err := c.send(ctx, call{op: cl.op, path: "sys/seal-status"})
	var status struct {
		Initialized *bool `json:"initialized"`
	}
	if err == nil && json.Unmarshal(a.raw, &status) == nil && status.Initialized != nil && !*status.Initialized {
		e.Kind = Uninitialized
	}
	return e
}
