// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// Reference is a registry.Reference or a layout.Reference.
type Reference interface {
	fmt.Stringer
	// Name is "registry/repository", or a layout's path.
	Name() string
}

// Pinned is one manifest from one resolve: a registry.Pinned or a layout.Pinned.
// Whoever made it, its Subject is one that signature.SubjectOf has hashed.
type Pinned interface {
	Name() string
	Tag() string
	// Reference is Name "@" digest.
	Reference() string
	Subject() signature.Subject
	Manifest() []byte
}

var (
	_ Pinned = registry.Pinned{}
	_ Pinned = layout.Pinned{}
)

// Repository is where a manifest is and what is attached to it: what Verify, Pull,
// Sign, Inspect and Copy need of a registry or of an image layout.
type Repository interface {
	model.Fetcher
	io.Closer

	// Pin resolves what the repository was opened for, once.
	Pin(ctx context.Context) (Pinned, error)
	// Referrers and Classic list candidates, unverified.
	Referrers(ctx context.Context, s signature.Subject) iter.Seq2[ocispec.Descriptor, error]
	Classic(ctx context.Context, s signature.Subject) (ocispec.Descriptor, bool, error)
	// FetchManifest and FetchBlob return what has the descriptor's digest and size.
	FetchManifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	FetchBlob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error)

	// PushBlob stores a blob unless it is there, and commits only what has the
	// descriptor's digest. open opens the content at an offset.
	PushBlob(ctx context.Context, desc ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) (bool, error)
	// Put stores a manifest by its digest, Mark gives it a tag, Enlist lists entries for
	// what they refer to.
	Put(ctx context.Context, mediaType string, manifest []byte) (Pinned, error)
	Mark(ctx context.Context, p Pinned, tag string) error
	Enlist(ctx context.Context, subject signature.Subject, entries ...ocispec.Descriptor) error
	AppendClassic(ctx context.Context, s signature.Subject, layers ...ocispec.Descriptor) (digest.Digest, error)

	Retries() int
}

// open opens what ref is in, to read it, and to add to it where that can be.
func (c *Client) open(ref Reference) (Repository, error) {
	switch r := ref.(type) {
	case registry.Reference:
		repo, err := c.registry.Repository(r)
		if err != nil {
			return nil, err
		}
		return registryRepository{repo, c}, nil
	case layout.Reference:
		l, err := layout.Open(r.Path)
		if err != nil {
			return nil, err
		}
		return layoutRepository{l, r}, nil
	}
	return nil, &OptionError{Option: "Reference", Reason: fmt.Sprintf("a %T names nothing", ref)}
}

// read is open for what is only read: mirrors of a registry may be asked too.
func (c *Client) read(ref Reference) (Repository, error) {
	r, ok := ref.(registry.Reference)
	if !ok {
		return c.open(ref)
	}
	repo, err := c.registry.Mirrored(r)
	if err != nil {
		return nil, err
	}
	return registryRepository{repo, c}, nil
}

func tagOf(ref Reference) string {
	switch r := ref.(type) {
	case registry.Reference:
		return r.Tag
	case layout.Reference:
		return r.Tag
	}
	return ""
}

// registryRepository is a repository of a registry.
type registryRepository struct {
	*registry.Repository
	c *Client
}

var (
	_ Repository    = registryRepository{}
	_ model.Doubter = registryRepository{}
)

func (r registryRepository) Pin(ctx context.Context) (Pinned, error) {
	p, err := r.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (r registryRepository) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return r.c.fetcher(r.Repository).Fetch(ctx, desc, offset)
}

func (r registryRepository) Doubt(desc ocispec.Descriptor, whole bool) bool {
	return r.Repository.Doubt(desc.Digest, whole)
}

// PushBlob sends what is large in a session, which can be resumed, where the registry
// has such.
func (r registryRepository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) (bool, error) {
	if desc.Size > hashFirst && !r.UploadRules().Whole {
		there, err := r.BlobExists(ctx, desc)
		if err != nil || there {
			return false, err
		}
		source := &relay{desc: desc, open: open}
		done, err := r.c.send(ctx, &blobs{repo: r.Repository, name: desc.Digest.String()}, source, transfer.PushOptions{Digest: desc.Digest})
		_ = source.Close() // only read; before it is opened again
		if !errors.Is(err, transfer.ErrUnsupported) {
			return done.Sent, err
		}
	}
	return r.Repository.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return open(0) })
}

func (r registryRepository) Put(ctx context.Context, mediaType string, manifest []byte) (Pinned, error) {
	p, err := r.PushManifest(ctx, mediaType, manifest)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (r registryRepository) Mark(ctx context.Context, p Pinned, tag string) error {
	own, ok := p.(registry.Pinned)
	if !ok {
		return errForeign
	}
	return r.TagManifest(ctx, own, tag)
}

func (r registryRepository) Close() error { return nil }

var errForeign = errors.New("the manifest was resolved elsewhere")

// layoutRepository is an image layout.
type layoutRepository struct {
	*layout.Layout
	ref layout.Reference
}

var _ Repository = layoutRepository{}

func (l layoutRepository) Pin(ctx context.Context) (Pinned, error) {
	p, err := l.Resolve(ctx, l.ref)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Fetch says in package model's words what is a judgement about the content.
func (l layoutRepository) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := l.OpenBlob(ctx, desc, offset)
	var e *layout.Error
	if errors.As(err, &e) && e.Kind == layout.Corrupt {
		return nil, &model.ContentError{Path: "the layer", Want: desc.Digest, Reason: e.Detail}
	}
	return rc, err
}

func (l layoutRepository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) (bool, error) {
	return l.Layout.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return open(0) })
}

func (l layoutRepository) Put(ctx context.Context, mediaType string, manifest []byte) (Pinned, error) {
	p, err := l.PushManifest(ctx, mediaType, manifest)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (l layoutRepository) Mark(ctx context.Context, p Pinned, tag string) error {
	own, ok := p.(layout.Pinned)
	if !ok {
		return errForeign
	}
	return l.TagManifest(ctx, own, tag)
}

func (l layoutRepository) Retries() int { return 0 }
