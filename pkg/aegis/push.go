// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/digestcache"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// PushOptions says what to push and how.
type PushOptions struct {
	// Ref names the repository and the first tag; Tags are further ones.
	Ref  registry.Reference
	Tags []string
	// Paths is one directory, whose contents are the model, or several files.
	Paths []string
	Pack  model.PackOptions
	// Signing is nil for a push without a signature.
	Signing *Signing
	// Cache remembers the digests of files for the next push. Nil is none.
	Cache *digestcache.Cache
	// TrustCache signs by remembered digests too. Otherwise a push with a signature
	// reads every file, whatever is remembered: nothing is signed that was not read.
	TrustCache bool
	// MountFrom names repositories of the same registry that may have the blobs.
	// With it files are hashed before they are sent.
	MountFrom []string
}

// trust reports whether a remembered digest needs no second look at the file.
func (o PushOptions) trust() bool { return o.Signing == nil || o.TrustCache }

// PackError means that the model on disk was refused: the fault is the source's,
// and nothing was sent.
type PackError struct{ Err error }

func (e *PackError) Error() string { return e.Err.Error() }
func (e *PackError) Unwrap() error { return e.Err }

// LayerLimitError means that a file is larger than the registry takes.
type LayerLimitError struct {
	Path     string
	Size     int64
	Limit    int64
	Registry string
}

func (e *LayerLimitError) Error() string {
	return fmt.Sprintf("%s has %d bytes and %s takes at most %d for one layer", e.Path, e.Size, e.Registry, e.Limit)
}

// EmptyLayerError means that a file is empty and the registry takes no empty layer.
type EmptyLayerError struct{ Path, Registry string }

func (e *EmptyLayerError) Error() string {
	return fmt.Sprintf("%s is empty and %s takes no empty layer", e.Path, e.Registry)
}

// Push packs, uploads everything by digest, signs if asked to, and moves the tags
// last: if anything fails before, production sees what it saw. What the options
// and the files have wrong is refused before the first request.
func (c *Client) Push(ctx context.Context, o PushOptions) (PushResult, error) {
	watch := newStopwatch(c.now())
	if err := o.check(); err != nil {
		return PushResult{}, err
	}
	repo, err := c.registry.Repository(o.Ref)
	if err != nil {
		return PushResult{}, err
	}
	draft, err := c.prepare(ctx, o)
	if err != nil {
		return PushResult{}, err
	}
	watch.lap("pack")
	packed, uploaded, err := c.upload(ctx, repo, draft, o)
	if err != nil {
		return PushResult{}, err
	}
	pinned, err := repo.PushManifest(ctx, packed.MediaType(), packed.Manifest())
	if err != nil {
		return PushResult{}, err
	}
	watch.lap("upload")
	tags := allTags(o)
	made := []SignatureMade{}
	if o.Signing != nil {
		if made, err = c.signAndAttach(ctx, registryRepository{repo, c}, pinned, o.Ref.Tag, *o.Signing); err != nil {
			return PushResult{}, err
		}
		watch.lap("sign")
	}
	for _, tag := range tags {
		if err := repo.TagManifest(ctx, pinned, tag); err != nil {
			return PushResult{}, fmt.Errorf("tag %s: %w", tag, err)
		}
	}
	watch.lap("tag")
	return PushResult{
		Reference:     pinned.Reference(),
		Tags:          tags,
		Digest:        pinned.Subject().Digest(),
		MediaType:     packed.MediaType(),
		ArtifactType:  modelspec.ArtifactTypeModelManifest,
		Size:          packed.TotalSize() + int64(len(packed.Manifest())),
		Files:         len(packed.Files()),
		BytesUploaded: uploaded,
		Signatures:    made,
		Retries:       repo.Retries(),
		Durations:     watch.total(),
	}, nil
}

func allTags(o PushOptions) []string {
	tags := []string{}
	if o.Ref.Tag != "" {
		tags = append(tags, o.Ref.Tag)
	}
	return append(tags, o.Tags...)
}

// check refuses what can be known to fail without asking anybody.
func (o PushOptions) check() error {
	if o.Ref.Digest != "" {
		return &registry.ReferenceError{Input: o.Ref.String(), Reason: "a push makes the digest: name a tag"}
	}
	if err := checkTags(o.Ref, allTags(o)); err != nil {
		return err
	}
	for _, from := range o.MountFrom {
		if _, err := registry.ParseReference(o.Ref.Registry + "/" + from + ":x"); err != nil {
			return &OptionError{Option: "MountFrom", Reason: fmt.Sprintf("%q is no repository of %s", from, o.Ref.Registry)}
		}
	}
	if o.Signing != nil {
		return o.Signing.check()
	}
	return nil
}

// checkTags refuses a tag that cannot be written before anything else is.
func checkTags(ref registry.Reference, tags []string) error {
	for _, tag := range tags {
		if _, err := ref.WithTag(tag); err != nil {
			return err
		}
	}
	return nil
}

// prepare finds the model, within the layer limit that the registry documents.
func (c *Client) prepare(ctx context.Context, o PushOptions) (*model.Draft, error) {
	limit, service := registry.LayerLimit(o.Ref.Registry)
	p := o.Pack
	if limit > 0 && (p.MaxFileSize == 0 || limit < p.MaxFileSize) {
		p.MaxFileSize = limit
	}
	picky := registry.NoEmptyLayers(o.Ref.Registry)
	p.RefuseEmpty = p.RefuseEmpty || picky != ""
	draft, err := model.Prepare(ctx, o.Paths, p)
	var large *model.FileSizeError
	switch {
	case errors.As(err, &large) && large.Size == 0 && picky != "":
		return nil, &EmptyLayerError{Path: large.Path, Registry: picky}
	case errors.As(err, &large) && large.Max == limit:
		return nil, &LayerLimitError{Path: large.Path, Size: large.Size, Limit: limit, Registry: service}
	case err != nil:
		return nil, &PackError{Err: err}
	}
	return draft, nil
}

func (c *Client) start(name string, total int64) {
	if c.opts.Progress != nil {
		c.opts.Progress.Start(name, total)
	}
}

func (c *Client) done(name string) {
	if c.opts.Progress != nil {
		c.opts.Progress.Done(name)
	}
}

// meter reports what is read of one blob. A nil progress hears nothing.
type meter struct {
	name     string
	progress model.Progress

	mu      sync.Mutex
	counted int64
	latest  *meteredReader // the only one that counts
}

// open opens the blob at an offset. What was counted beyond it is taken back, for it is
// sent again.
func (m *meter) open(offset int64, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	rc, err := open()
	if err != nil || m.progress == nil {
		return rc, err
	}
	r := &meteredReader{ReadCloser: rc, meter: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latest = r
	m.add(offset - m.counted)
	return r, nil
}

// add counts n bytes. The caller holds m.mu.
func (m *meter) add(n int64) {
	m.counted += n
	m.progress.Add(m.name, n)
}

type meteredReader struct {
	io.ReadCloser
	meter *meter
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.meter.mu.Lock()
	defer r.meter.mu.Unlock()
	if r.meter.latest == r {
		r.meter.add(int64(n))
	}
	return n, err
}
