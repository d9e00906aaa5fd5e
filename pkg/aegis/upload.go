// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// hashFirst is the size up to which a file is hashed before it is sent: one core
// does that in the time of a round trip, and asking whether the registry has the
// blob is then one request instead of three. Larger files are hashed while they
// are sent.
const hashFirst = 4 << 20

// uploading is one model on its way.
type uploading struct {
	c     *Client
	repo  *registry.Repository
	draft *model.Draft
	files []model.File

	digests []digest.Digest // each written once, by the goroutine of its file
	sent    atomic.Int64
	// whole is set once the registry needs digests beforehand.
	whole atomic.Bool

	mu      sync.Mutex
	claimed map[digest.Digest]bool
}

// upload sends every blob that the registry lacks, the config last, for it names
// the others, and returns the model with the bytes that were sent.
func (c *Client) upload(ctx context.Context, repo *registry.Repository, draft *model.Draft) (*model.Packed, int64, error) {
	u := &uploading{c: c, repo: repo, draft: draft, files: draft.Files(), claimed: make(map[digest.Digest]bool)}
	u.digests = make([]digest.Digest, len(u.files))
	u.whole.Store(repo.UploadRules().Whole)
	var total int64
	for _, f := range u.files {
		total += f.Size
	}
	model.Plan(c.opts.Progress, total)
	if err := u.all(ctx); err != nil {
		return nil, 0, err
	}
	packed, err := draft.Pack(u.digests)
	if err != nil {
		return nil, 0, err
	}
	config := packed.Blobs()[0]
	if err := u.known(ctx, config.Descriptor, func() (io.ReadCloser, error) { return config.Open() }); err != nil {
		return nil, 0, fmt.Errorf("push the config: %w", err)
	}
	return packed, u.sent.Load(), nil
}

// all sends the files, the largest first, so that no connection is left with one
// of them at the end.
func (u *uploading) all(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.c.opts.Concurrency)
	first := make(map[string]int) // by name on disk: links to one file are sent once
	for _, i := range u.draft.Largest() {
		name := u.draft.Source(i).Name()
		if _, again := first[name]; again {
			continue
		}
		first[name] = i
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			u.c.start(u.files[i].Path, u.files[i].Size)
			defer u.c.done(u.files[i].Path)
			d, err := u.file(gctx, i)
			if err != nil {
				return fmt.Errorf("push %s: %w", u.files[i].Path, err)
			}
			u.digests[i] = d
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range u.files {
		u.digests[i] = u.digests[first[u.draft.Source(i).Name()]]
	}
	return ctx.Err()
}

// file sends file i unless the registry has it, and returns its digest, of what
// was read now.
func (u *uploading) file(ctx context.Context, i int) (digest.Digest, error) {
	src := u.draft.Source(i)
	if src.Size() > hashFirst && !u.whole.Load() {
		d, err := u.stream(ctx, i, src)
		if !errors.Is(err, transfer.ErrUnsupported) {
			return d, err
		}
		u.whole.Store(true)
	}
	d, err := src.Hash(ctx, nil)
	if err != nil {
		return "", err
	}
	desc := ocispec.Descriptor{MediaType: u.files[i].MediaType, Digest: d, Size: src.Size()}
	m := &meter{name: u.files[i].Path, progress: u.c.opts.Progress}
	return d, u.known(ctx, desc, func() (io.ReadCloser, error) {
		rc, err := m.open(func() (io.ReadCloser, error) { return src.Open(0) })
		if err != nil {
			return nil, err
		}
		return u.c.throttle.Reader(ctx, rc), nil
	})
}

// known sends a blob of known digest, once for all files that have its content.
func (u *uploading) known(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	u.mu.Lock()
	again := u.claimed[desc.Digest]
	u.claimed[desc.Digest] = true
	u.mu.Unlock()
	if again {
		return nil
	}
	uploaded, err := u.repo.PushBlob(ctx, desc, open)
	if uploaded {
		u.sent.Add(desc.Size)
	}
	return err
}

// stream hashes file i while it is sent.
func (u *uploading) stream(ctx context.Context, i int, src *model.Source) (digest.Digest, error) {
	o := transfer.PushOptions{
		Options: transfer.Options{
			Budget: u.c.opts.RetryBudget, Retryable: registry.Retryable, Logger: u.c.opts.Logger, Now: u.c.opts.Now,
			OnRetry: func(error) { u.repo.CountRetry() },
		},
		Piece: u.repo.UploadRules().Piece, Throttle: u.c.throttle, Pool: u.c.pool,
	}
	if p := u.c.opts.Progress; p != nil {
		o.Moved = func(n int64) { p.Add(u.files[i].Path, n) }
	}
	done, err := transfer.Push(ctx, blobs{u.repo, u.files[i].Path}, src, o)
	if err != nil {
		return "", err
	}
	if done.Sent {
		u.sent.Add(src.Size())
	}
	return done.Digest, nil
}

// blobs is a repository as package transfer wants it.
type blobs struct {
	repo *registry.Repository
	name string
}

func (b blobs) Begin(ctx context.Context) (transfer.Session, error) {
	s, err := b.repo.BeginUpload(ctx, b.name)
	if err != nil {
		return nil, err
	}
	return &session{Upload: s}, nil
}

func (b blobs) Has(ctx context.Context, d digest.Digest, size int64) (bool, error) {
	return b.repo.BlobExists(ctx, ocispec.Descriptor{Digest: d, Size: size})
}

// session says in package transfer's words what a registry's errors mean.
type session struct {
	*registry.Upload
	tried bool
}

func (s *session) Send(ctx context.Context, offset, size int64, open func() (io.ReadCloser, error)) error {
	first := !s.tried
	s.tried = true
	return uploadError(s.Upload.Send(ctx, offset, size, open), first)
}

func (s *session) Received(ctx context.Context) (int64, error) {
	n, err := s.Upload.Received(ctx)
	return n, uploadError(err, false)
}

func (s *session) Commit(ctx context.Context, d digest.Digest) error {
	return uploadError(s.Upload.Commit(ctx, d), false)
}

// uploadError sorts the refusals of an upload. Those of its first request say that
// the registry takes none in this form; later ones that the session is gone (a
// registry that was restarted, another replica of it) or out of step.
func uploadError(err error, first bool) error {
	var e *registry.Error
	if !errors.As(err, &e) || e.Retryable() {
		return err
	}
	switch e.Status {
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", transfer.ErrPiece, err)
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusLengthRequired,
		http.StatusUnsupportedMediaType, http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest, http.StatusConflict:
		if first {
			return fmt.Errorf("%w: %w", transfer.ErrUnsupported, err)
		}
		return fmt.Errorf("%w: %w", transfer.ErrLost, err)
	}
	return err
}
