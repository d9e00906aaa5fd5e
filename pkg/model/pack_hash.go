// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// hashBuffer is the size of a read, in bytes; memory is this times Concurrency.
const hashBuffer = 1 << 20

// hashAll returns the digest of each file. The largest start first, so that no core
// is left with one of them at the end.
func (d *Draft) hashAll(ctx context.Context) ([]digest.Digest, error) {
	o, files := &d.options, d.files
	digests := make([]digest.Digest, len(files))
	buffers := buffer.NewPool(hashBuffer)
	progress := orNoProgress(o.Progress)
	var total int64
	for _, f := range files {
		total += f.Size
	}
	Plan(progress, total)
	group, hashing := errgroup.WithContext(ctx)
	group.SetLimit(o.concurrency())
	for _, i := range d.Largest() {
		if hashing.Err() != nil {
			break
		}
		group.Go(func() error {
			buf := buffers.Get()
			defer buffers.Put(buf)
			dgst, err := d.sources[i].hash(hashing, *buf, progress)
			digests[i] = dgst
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	// Cancelled before the first file was begun: no file reported it.
	return digests, ctx.Err()
}

// hash reads the file once. A *ChangedError means that it was not the same file,
// of the same length and time, from the first byte to the last.
func (s *source) hash(ctx context.Context, buf []byte, progress Progress) (digest.Digest, error) {
	f, err := s.open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	progress.Start(s.path, s.info.Size())
	defer progress.Done(s.path)
	h := sha256.New()
	var read int64
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		read += int64(n)
		progress.Add(s.path, int64(n))
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("read %q: %w", s.path, rootCause(err))
		}
		// A file that grows as fast as it is read would never end.
		if read > s.info.Size() {
			return "", &ChangedError{Path: s.path}
		}
	}
	if read != s.info.Size() {
		return "", &ChangedError{Path: s.path}
	}
	if err := s.unchanged(f); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// reader opens the file to be sent.
func (s *source) reader() (io.ReadCloser, error) { return s.readerAt(0) }

// readerAt opens it from an offset on.
func (s *source) readerAt(offset int64) (io.ReadCloser, error) {
	f, err := s.open()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %q: %w", s.path, rootCause(err))
	}
	return &sourceReader{source: s, file: f, read: offset}, nil
}

// sourceReader reads a source and looks once more at the end, before whoever reads it
// takes the end for one: what is hashed while it is sent has the digest of what was read,
// whatever that is.
type sourceReader struct {
	source *source
	file   *os.File
	read   int64 // offset of the next byte
}

func (r *sourceReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.read += int64(n)
	if r.read > r.source.info.Size() {
		return n, &ChangedError{Path: r.source.path}
	}
	if err != io.EOF {
		return n, err
	}
	if r.read != r.source.info.Size() {
		return n, &ChangedError{Path: r.source.path}
	}
	if err := r.source.unchanged(r.file); err != nil {
		return n, err
	}
	return n, io.EOF
}

func (r *sourceReader) Close() error { return r.file.Close() }
