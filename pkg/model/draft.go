// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// singleBuffer is the size of a read, in bytes, where as many files are hashed at
// once as the caller likes.
const singleBuffer = 256 << 10

// Draft is a model whose files were found and described, and whose digests are not
// known yet: they can be learnt while the files are sent.
type Draft struct {
	options PackOptions
	details Details
	sources []source
	files   []File
	buffers *buffer.Pool
}

// Prepare finds the files of a model and describes it, and reads no more of them
// than that takes. Its errors are those of Pack, and what Pack says of paths holds
// here.
func Prepare(ctx context.Context, paths []string, o PackOptions) (*Draft, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	sources, err := findSources(ctx, paths, &o)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(sources, func(a, b source) int { return cmp.Compare(a.path, b.path) })
	files, details, err := examine(ctx, sources)
	if err != nil {
		return nil, err
	}
	if err := o.sizesAllowed(files); err != nil {
		return nil, err
	}
	details = o.Details.over(details)
	// Digests have one length, so the size of the manifest is known before the
	// long work of hashing.
	if _, err := newPacked(files, details, &o); err != nil {
		return nil, err
	}
	return &Draft{
		options: o, details: details, sources: sources, files: files,
		buffers: buffer.NewPool(singleBuffer),
	}, nil
}

// Files lists the files in the order of their layers: by path. They have no digests.
func (d *Draft) Files() []File { return slices.Clone(d.files) }

// Largest lists the indices of the files, the largest first.
func (d *Draft) Largest() []int {
	order := make([]int, len(d.files))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(d.files[b].Size, d.files[a].Size) })
	return order
}

// Source is where the content of file i is read.
func (d *Draft) Source(i int) *Source { return &Source{source: d.sources[i], buffers: d.buffers} }

// Pack makes the manifest. digests are those of the files, in their order, of what
// was read through their Sources.
func (d *Draft) Pack(digests []digest.Digest) (*Packed, error) {
	if len(digests) != len(d.files) {
		return nil, fmt.Errorf("%d digests for %d files", len(digests), len(d.files))
	}
	files := slices.Clone(d.files)
	for i, dgst := range digests {
		if err := dgst.Validate(); err != nil || dgst.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("%q has no SHA-256 digest", files[i].Path)
		}
		files[i].Digest = dgst
	}
	p, err := newPacked(files, d.details, &d.options)
	if err != nil {
		return nil, err
	}
	p.addBlobs(d.sources)
	return p, nil
}

// Source is one file of a Draft. Its methods return a *ChangedError once the file
// is no longer the one that was found: another inode, size or time.
type Source struct {
	source  source
	buffers *buffer.Pool
}

// Name is the file's name on disk, absolute and without links; two files of the
// model that are links to one have the same.
func (s *Source) Name() string { return s.source.name }

// Info is the file as it was found.
func (s *Source) Info() fs.FileInfo { return s.source.info }

// Size is the file's size in bytes.
func (s *Source) Size() int64 { return s.source.info.Size() }

// Open opens the content from an offset on. Reading to its end looks at the file
// once more.
func (s *Source) Open(offset int64) (io.ReadCloser, error) { return s.source.readerAt(offset) }

// Check looks whether the file is still the one that was found.
func (s *Source) Check() error {
	f, err := s.source.open()
	if err != nil {
		return err
	}
	return f.Close()
}

// Hash reads the file once.
func (s *Source) Hash(ctx context.Context, progress Progress) (digest.Digest, error) {
	buf := s.buffers.Get()
	defer s.buffers.Put(buf)
	return s.source.hash(ctx, *buf, orNoProgress(progress))
}
