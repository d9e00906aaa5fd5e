// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// Options of a Client. The zero value is usable.
type Options struct {
	// Concurrency bounds the blobs that move at once. Zero means 4.
	Concurrency int
	// RetryBudget is how long a blob may make no progress before its transfer is
	// given up. Zero means 2 minutes.
	RetryBudget time.Duration
	// LimitRate bounds the bytes a second of all blobs together, either way. Zero
	// means no bound.
	LimitRate int64
	// Progress is told about hashing, upload and download. Nil means none.
	Progress model.Progress
	// Warn receives one-line warnings. Nil drops them.
	Warn func(string)
	// Logger receives debug records. Nil drops them.
	Logger *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// MaxCandidates bounds the signatures examined; zero means verify's default.
	MaxCandidates int
}

// Client runs the workflows against registries.
type Client struct {
	registry *registry.Client
	pool     *transfer.Pool
	throttle *transfer.Throttle
	opts     Options
}

// New returns a Client that reaches registries through reg.
func New(reg *registry.Client, o Options) *Client {
	if o.Concurrency <= 0 {
		o.Concurrency = 4
	}
	if o.RetryBudget <= 0 {
		o.RetryBudget = 2 * time.Minute
	}
	// At the user's own limit further connections bring nothing.
	pool := transfer.NewPool(transfer.Limits{Enough: o.LimitRate / 10 * 8})
	return &Client{registry: reg, pool: pool, throttle: transfer.NewThrottle(o.LimitRate, o.Now), opts: o}
}

func (c *Client) now() func() time.Time {
	if c.opts.Now != nil {
		return c.opts.Now
	}
	return time.Now
}

func (c *Client) warn(msg string) {
	if c.opts.Warn != nil {
		c.opts.Warn(msg)
	}
}

func (c *Client) verifier() *verify.Verifier {
	return verify.New(verify.Options{MaxCandidates: c.opts.MaxCandidates, Now: c.now()})
}

// fetcher reads blobs through cuts of the connection, over several connections
// where one is slow.
type fetcher struct {
	src  ranges
	pool *transfer.Pool
	opts transfer.Options
}

func (c *Client) fetcher(repo *registry.Repository) *fetcher {
	o := transfer.Options{
		Budget: c.opts.RetryBudget, Retryable: registry.Retryable, Logger: c.opts.Logger,
		OnRetry: func(err error) {
			repo.CountRetry()
			var stalled *transfer.StalledError
			if errors.As(err, &stalled) {
				repo.DropIdle()
			}
		},
	}
	if c.opts.LimitRate > 0 && c.opts.LimitRate < slowLimit {
		o.Least = -1
	}
	return &fetcher{src: ranges{repo, c.throttle}, pool: c.pool, opts: o}
}

// slowLimit is the rate, in bytes a second, below which a connection may bring next to
// nothing because several share what the user allows.
const slowLimit = 64 << 10

// Fetch opens desc at offset; the bytes are unverified.
func (f *fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	l := &layer{desc: desc}
	o := f.opts
	o.OnDiscard = func(n int64) { l.discarded.Add(n) }
	l.Reader = transfer.Open(ctx, f.pool, f.src, desc, offset, o)
	return l, nil
}

// layer says in package model's words what is a judgement about the content: a
// registry that has another number of bytes will not have the right one later,
// and a rejected model leaves nothing staged.
type layer struct {
	transfer.Reader
	desc      ocispec.Descriptor
	discarded atomic.Int64
}

// Discarded is how many bytes came that were there already.
func (l *layer) Discarded() int64 { return l.discarded.Load() }

func (l *layer) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	return n, l.judged(err)
}

// Exchange saves the copy of what came over several connections.
func (l *layer) Exchange(b *buffer.Block) (int, error) {
	n, err := l.Reader.Exchange(b)
	return n, l.judged(err)
}

func (l *layer) judged(err error) error {
	var short *transfer.ShortError
	var e *registry.Error
	switch {
	case errors.As(err, &short):
		err = &model.ShortError{Path: "the layer", Digest: l.desc.Digest, Want: short.Want, Got: short.Got}
	case errors.As(err, &e) && e.Kind == registry.Corrupt:
		err = &model.ContentError{Path: "the layer", Want: l.desc.Digest, Reason: e.Detail}
	}
	return err
}

// ranges is a repository as package transfer wants it.
type ranges struct {
	*registry.Repository
	throttle *transfer.Throttle
}

func (r ranges) OpenBlob(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	body, at, err := r.Repository.OpenBlob(ctx, desc, offset)
	if err != nil {
		return nil, 0, err
	}
	if says, ok := body.(transfer.Ranging); ok {
		body = &ranging{body, says}
	}
	return r.throttle.Reader(ctx, body), at, nil
}

// ranging is a body whose server can be asked for a part.
type ranging struct {
	io.ReadCloser
	transfer.Ranging
}

func (r *ranging) Part(ctx context.Context, offset, end int64) (io.ReadCloser, error) {
	body, err := r.Ranging.Part(ctx, offset, end)
	return body, noRanges(err)
}

// noRanges says in package transfer's words that there are no ranges.
func noRanges(err error) error {
	if errors.Is(err, registry.ErrNoRanges) {
		return fmt.Errorf("%w: %w", transfer.ErrNoRanges, err)
	}
	return err
}

func (r ranges) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	body, err := r.Repository.OpenRange(ctx, desc, offset, end)
	if err != nil {
		return nil, noRanges(err)
	}
	return r.throttle.Reader(ctx, body), nil
}
