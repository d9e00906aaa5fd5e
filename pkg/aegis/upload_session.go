// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// blobs is a repository as package transfer wants it.
type blobs struct {
	repo  *registry.Repository
	name  string
	begun *registry.Upload // the first session, when there is one already
}

func (b *blobs) Begin(ctx context.Context) (transfer.Session, error) {
	if s := b.begun; s != nil {
		b.begun = nil
		return &session{Upload: s}, nil
	}
	s, err := b.repo.BeginUpload(ctx, b.name)
	if err != nil {
		return nil, err
	}
	return &session{Upload: s}, nil
}

func (b *blobs) Has(ctx context.Context, d digest.Digest, size int64) (bool, error) {
	return b.repo.BlobExists(ctx, ocispec.Descriptor{Digest: d, Size: size})
}

// send sends f to b in a session. An error that is transfer.ErrUnsupported says that the
// registry has to be sent all in one request, whose digest is known; it is remembered.
func (c *Client) send(ctx context.Context, b *blobs, f transfer.File, o transfer.PushOptions) (transfer.Pushed, error) {
	o.Options = transfer.Options{
		Budget: c.opts.RetryBudget, Retryable: registry.Retryable, Logger: c.opts.Logger, Now: c.opts.Now,
		OnRetry: func(error) { b.repo.CountRetry() },
	}
	o.Piece, o.Pool = b.repo.UploadRules().Piece, c.pool
	done, err := transfer.Push(ctx, b, f, o)
	var other *transfer.DigestError
	switch {
	case errors.Is(err, transfer.ErrUnsupported):
		b.repo.WantsWhole()
	case errors.As(err, &other):
		err = &registry.ChangedError{Reference: b.repo.Name() + "@" + other.Want.String(), Reason: fmt.Sprintf("its digest is %s now", other.Got)}
	case errors.Is(err, transfer.ErrChanged):
		err = &registry.ChangedError{Reference: b.repo.Name() + " (" + b.name + ")", Reason: err.Error()}
	}
	return done, err
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
// registry that was restarted, another replica of it) or, 416 of distribution and
// 400 of others, out of step.
func uploadError(err error, first bool) error {
	var e *registry.Error
	if !errors.As(err, &e) || e.Retryable() {
		return err
	}
	var what error
	switch e.Status {
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", transfer.ErrPiece, err)
	case http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest, http.StatusConflict:
		what = transfer.ErrOutOfStep
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusLengthRequired,
		http.StatusUnsupportedMediaType:
		what = transfer.ErrLost
	default:
		return err
	}
	if first {
		what = transfer.ErrUnsupported
	}
	return fmt.Errorf("%w: %w", what, err)
}
