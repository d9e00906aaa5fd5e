// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// reuseArchive makes p, of which kept bytes are staged, out of an archive of the replaced
// model, and reports whether that is the blob. What is staged is kept until that is known;
// when the old files turn out to be something else after that, p is empty.
func (t *transfer) reuseArchive(ctx context.Context, s *site, p *pieces, kept int64) (bool, error) {
	if kept > 0 {
		got, err := t.rebuilt(ctx, s.base, nil)
		if t.show(0); err != nil || got != t.desc.Digest {
			return false, err
		}
	}
	if _, err := p.keep(0); err != nil {
		return false, err
	}
	got, err := t.rebuilt(ctx, s.base, p)
	var room *roomError
	if errors.As(err, &room) {
		// What does not fit need not be what is wanted.
		got, err = "", nil
	}
	if err != nil || got != t.desc.Digest {
		// What is staged of it was not hashed before.
		t.show(0)
		_, dropped := p.keep(0)
		return false, errors.Join(err, dropped)
	}
	t.reused = t.desc.Size
	return true, p.flush()
}

// rebuilt hashes the archive as its files make it now, and writes it to w unless that is
// nil. What cannot be put together has no digest.
func (t *transfer) rebuilt(ctx context.Context, root *os.Root, w io.Writer) (digest.Digest, error) {
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, out := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		out.CloseWithError(rebuildArchive(reading, root, *t.oldArchive, t.drop, out))
	}()
	defer func() {
		r.Close()
		<-ended
	}()
	sum := sha256.New()
	var written *behind
	if w != nil {
		written = newBehind(w, cancel, nil)
	}
	n, err := t.pump(reading, io.LimitReader(r, t.desc.Size), written, sum)
	var unusable *rebuildError
	switch {
	case errors.As(err, &unusable):
		return "", nil
	case err != nil:
		return "", err
	case n < t.desc.Size:
		return "", nil
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

// rebuildError says that an archive cannot be had from the files that are there.
type rebuildError struct{ error }

// rebuildArchive writes an archive of an installed model, from its skeleton and its files.
// Neither is trusted: whoever reads it compares the digest. drop takes them out of the
// page cache.
func rebuildArchive(ctx context.Context, root *os.Root, l Layer, drop bool, w io.Writer) error {
	skeleton, _, err := rootfile.OpenPlain(root, skeletonName(l), os.O_RDONLY)
	if err != nil {
		return &rebuildError{err}
	}
	defer skeleton.Close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stream := &tarRebuilder{skeleton: bufio.NewReader(io.LimitReader(skeleton, maxSkeleton))}
	buffer := make([]byte, bufferSize) // io.Discard has a smaller one
	// Of other archives there is nothing to see here, and nothing is unpacked.
	others := func(string) (bool, error) { return true, nil }
	err = walkTar(io.TeeReader(stream, w), l.Descriptor.Digest, newTarNames(&modelNames{}, others), func(e tarEntry, content io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.kind != tarFile {
			return nil
		}
		f, info, err := rootfile.OpenPlain(root, e.path, os.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		if info.Size() != e.size {
			return fmt.Errorf("%s has %d bytes, not %d", e.path, info.Size(), e.size)
		}
		stream.content = f
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, content, buffer)
		stream.content = nil
		if err == nil && drop {
			err = dropCache(f, 0, 0)
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		// Whatever it is of, it says nothing about what is wanted.
		return &rebuildError{err}
	}
	return nil
}
