// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
	o     PushOptions
	cache *remembered

	digests []digest.Digest // each written once, by the goroutine of its file
	sent    atomic.Int64
	pace    transfer.Pace

	mu      sync.Mutex
	claimed map[digest.Digest]bool
}

// upload sends every blob that the registry lacks, the config last, for it names
// the others, and returns the model with the bytes that were sent.
func (c *Client) upload(ctx context.Context, repo *registry.Repository, draft *model.Draft, o PushOptions) (*model.Packed, int64, error) {
	u := &uploading{c: c, repo: repo, draft: draft, files: draft.Files(), o: o, claimed: make(map[digest.Digest]bool)}
	u.digests = make([]digest.Digest, len(u.files))
	u.cache = newRemembered(c, o.Cache, repo.Name(), o.trust())
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
	if err := u.known(config.Descriptor, func() error { return u.whole(ctx, config.Descriptor, config.Open) }); err != nil {
		return nil, 0, fmt.Errorf("push the config: %w", err)
	}
	u.cache.trim()
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
		u.pace.Expect(u.files[i].Size)
		g.Go(func() error {
			u.pace.Expect(-u.files[i].Size)
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

// file has the content of file i in the registry, and returns its digest.
func (u *uploading) file(ctx context.Context, i int) (digest.Digest, error) {
	src := u.draft.Source(i)
	e := u.cache.lookup(src)
	d, err := u.place(ctx, i, src, e)
	if err != nil {
		return "", err
	}
	u.cache.store(d, e)
	return d, nil
}

// place sends file i unless the registry has it. The digest is that of what was
// read now, but for a remembered one that may be trusted.
func (u *uploading) place(ctx context.Context, i int, src *model.Source, e found) (digest.Digest, error) {
	var there bool
	var begun *registry.Upload
	if e.Digest != "" {
		var err error
		if there, begun, err = u.there(ctx, u.descriptor(i, e.Digest), e.Repositories); err != nil {
			return "", err
		}
		if there && u.o.trust() {
			return e.Digest, src.Check()
		}
	}
	// A file that seems to be there is read, which is less than to send it.
	if !there && u.inSession(src) && len(u.o.MountFrom) == 0 {
		d, err := u.stream(ctx, i, src, begun, "")
		if !errors.Is(err, transfer.ErrUnsupported) {
			return d, err
		}
	} else if begun != nil {
		begun.Cancel(ctx)
	}
	var heard model.Progress
	if there && u.c.opts.Progress != nil {
		heard = addsOnly{u.c.opts.Progress}
	}
	d, err := src.Hash(ctx, heard)
	if err != nil || there && d == e.Digest {
		return d, err
	}
	return d, u.known(u.descriptor(i, d), func() error { return u.hashed(ctx, i, src, d) })
}

// inSession reports whether a file is sent in a session, which can be resumed.
func (u *uploading) inSession(src *model.Source) bool {
	return src.Size() > hashFirst && !u.repo.UploadRules().Whole
}

// hashed sends file i, whose digest is known, unless it is there or can be mounted.
func (u *uploading) hashed(ctx context.Context, i int, src *model.Source, d digest.Digest) error {
	desc := u.descriptor(i, d)
	inSession := u.inSession(src)
	if inSession || len(u.o.MountFrom) > 0 {
		from := make([]string, len(u.o.MountFrom))
		for i, name := range u.o.MountFrom {
			from[i] = u.o.Ref.Registry + "/" + name
		}
		there, begun, err := u.there(ctx, desc, from)
		if err != nil || there {
			return err
		}
		if inSession {
			if _, err = u.stream(ctx, i, src, begun, d); !errors.Is(err, transfer.ErrUnsupported) {
				return err
			}
		} else if begun != nil {
			begun.Cancel(ctx)
		}
	}
	m := &meter{name: u.files[i].Path, progress: u.c.opts.Progress}
	return u.whole(ctx, desc, func() (io.ReadCloser, error) {
		rc, err := m.open(0, func() (io.ReadCloser, error) { return src.Open(0) })
		if err != nil {
			return nil, err
		}
		return u.c.throttle.Reader(ctx, rc), nil
	})
}

// addsOnly passes on how far the hashing of a file is whose Start was heard.
type addsOnly struct{ model.Progress }

func (addsOnly) Start(string, int64) {}
func (addsOnly) Done(string)         {}

func (u *uploading) descriptor(i int, d digest.Digest) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: u.files[i].MediaType, Digest: d, Size: u.files[i].Size}
}

// there asks for a blob in the repository, and then in others of the registry, from
// where it is mounted. Where a registry opens a session instead, it comes back.
func (u *uploading) there(ctx context.Context, desc ocispec.Descriptor, repositories []string) (bool, *registry.Upload, error) {
	there, err := u.repo.BlobExists(ctx, desc)
	if err != nil || there {
		return there, nil, err
	}
	var begun *registry.Upload
	for _, full := range repositories {
		from, ok := strings.CutPrefix(full, u.o.Ref.Registry+"/")
		if !ok || full == u.repo.Name() {
			continue
		}
		if begun != nil {
			begun.Cancel(ctx)
		}
		if there, begun, err = u.repo.MountOrBegin(ctx, desc, from); err != nil || there {
			return there, nil, err
		}
	}
	return false, begun, nil
}

// known has a blob of known digest sent once for all files that have its content.
func (u *uploading) known(desc ocispec.Descriptor, send func() error) error {
	u.mu.Lock()
	again := u.claimed[desc.Digest]
	u.claimed[desc.Digest] = true
	u.mu.Unlock()
	if again {
		return nil
	}
	return send()
}

// whole sends a blob in one request unless it is there.
func (u *uploading) whole(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	uploaded, err := u.repo.PushBlob(ctx, desc, open)
	if uploaded {
		u.sent.Add(desc.Size)
	}
	return err
}

// stream hashes file i while it is sent, in the session that was begun, if any. Where
// its digest is known, no other is committed.
func (u *uploading) stream(ctx context.Context, i int, src *model.Source, begun *registry.Upload, known digest.Digest) (digest.Digest, error) {
	o := transfer.PushOptions{Digest: known, Throttle: u.c.throttle, Pace: &u.pace}
	if p := u.c.opts.Progress; p != nil {
		o.Moved = func(n int64) { p.Add(u.files[i].Path, n) }
	}
	done, err := u.c.send(ctx, &blobs{repo: u.repo, name: u.files[i].Path, begun: begun}, src, o)
	if err != nil {
		return "", err
	}
	if done.Sent {
		u.sent.Add(src.Size())
	}
	return done.Digest, nil
}
