// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

// checkCache looks whether what the cache lacks fits beside the model. Where it does
// not, blobs are taken out of it and none are put in: a full disk would end the pull.
func (u *unpacking) checkCache(s *site, blobs []blob, need int64) {
	if u.o.Cache == nil {
		return
	}
	var missing int64
	for _, b := range blobs {
		if !u.o.Cache.Has(b.desc.Digest, b.desc.Size) {
			missing += b.desc.Size - min(u.o.Cache.Kept(b.desc.Digest), b.desc.Size)
		}
	}
	// Clones may take less than that.
	if !u.o.Link && sameVolume(u.o.Cache.Dir(), s.stagingPath()) {
		missing += need
	}
	free, err := freeSpace(u.o.Cache.Dir())
	if err == nil && missing > free {
		u.evict(blobs, missing-free)
		free, err = freeSpace(u.o.Cache.Dir())
	}
	if err != nil {
		u.fullCache = true
		u.o.Warn(fmt.Sprintf("fetching past the cache %s, it does not tell its free space: %v", u.o.Cache.Dir(), err))
		return
	}
	if u.fullCache = missing > free; u.fullCache {
		u.o.Warn(fmt.Sprintf("fetching past the cache %s: its volume has no room, %d bytes are lacking", u.o.Cache.Dir(), missing-free))
	}
}

// evict takes from the cache what this model has not, for the volume to have size bytes
// more.
func (u *unpacking) evict(blobs []blob, size int64) {
	u.o.Cache.Evict(size, func(d digest.Digest) bool {
		return slices.ContainsFunc(blobs, func(b blob) bool { return b.desc.Digest == d })
	})
}

// sharesCached tries whether the destination can have the cache's file of a blob without
// a copy.
func (u *unpacking) sharesCached(s *site, b blob) bool {
	if u.o.Cache == nil {
		return false
	}
	f, err := u.o.Cache.Peek(b.desc.Digest, b.desc.Size)
	if err != nil {
		return false
	}
	defer f.Close()
	if u.o.Link && !b.executable {
		const trial = "cached"
		info, err := f.Stat()
		if err == nil && mayLink(info) && s.linkTo(u.o.Cache.Path(b.desc.Digest), trial) == nil && s.root.Remove(trial) == nil {
			return true
		}
	}
	return s.clones(f)
}

// mayLink reports that a file of the cache is ours: what belongs to another user can be
// changed by that user after the check.
func mayLink(info fs.FileInfo) bool {
	return rootfile.OwnedByUs(info) && info.Mode().Perm()&0o022 == 0
}

// linkTo gives a file elsewhere a name in the staging directory. On another volume there
// are no links.
func (s *site) linkTo(path, name string) error {
	return os.Link(path, filepath.Join(s.stagingPath(), filepath.FromSlash(name)))
}

// errNoFill is for blobs that are not to be put into the cache.
var errNoFill = errors.New("the cache's volume has no room")

// throughCache makes the staged file f out of the cache's blob, which is fetched if
// it is not there. It reports whether it did; otherwise the blob is to be fetched
// past the cache. What the cache holds is anybody's who can write to it: a blob with
// wrong bytes, or that cannot be read, is removed and fetched anew, once.
func (t *transfer) throughCache(ctx context.Context, s *site, f *os.File) (bool, error) {
	if t.fullCache && !t.cache.Has(t.desc.Digest, t.desc.Size) {
		return false, nil // nothing is pruned for it either
	}
	for range 2 {
		e, err := t.cache.Blob(ctx, t.desc.Digest, t.desc.Size, func(f *os.File, kept int64, alive func()) error {
			t.alive = alive
			defer func() { t.alive = nil }()
			return t.fillCache(ctx, f, kept)
		})
		var unusable *nodecache.UnusableError
		switch {
		case errors.Is(err, errNoFill):
			return false, nil
		case errors.As(err, &unusable):
			t.warn("fetching " + t.name + " past the cache: " + err.Error())
			t.show(0)
			t.reused = 0
			return false, nil
		case err != nil:
			return false, err
		}
		done, err := t.takeEntry(ctx, s, f, e)
		switch {
		case isUnread(err):
			t.warn("the cache's file for " + t.desc.Digest.String() + " cannot be read, and is fetched anew: " + err.Error())
		case err != nil || done:
			return done, errors.Join(err, e.Close())
		default:
			t.warn("the cache holds wrong bytes for " + t.desc.Digest.String() + ": they are fetched anew")
		}
		t.show(0)
		if !t.cache.Drop(e) {
			return false, nil
		}
	}
	return false, nil
}

// fillCache fetches the blob into the cache's file.
func (t *transfer) fillCache(ctx context.Context, f *os.File, kept int64) error {
	if t.fullCache {
		return errNoFill
	}
	// It is read again at once, and leaves the page cache after that.
	drop := t.drop
	t.drop = false
	defer func() { t.drop = drop }()
	if t.noResume {
		if err := f.Truncate(0); err != nil {
			return unusable(err)
		}
		kept = 0
	}
	err := t.fetchRest(ctx, cacheFile{t.staged(f)}, min(kept, t.desc.Size))
	var own *nodecache.UnusableError
	if err != nil && (rejected(err) || errors.As(err, &own) || t.noResume) {
		// Nobody gets to resume what is not the blob, or cannot be read.
		return errors.Join(err, f.Truncate(0))
	}
	return err
}

// cacheFile is a staged file in the cache. Its errors are none of the pull's: the blob is
// fetched past the cache then.
type cacheFile struct{ stagedFile }

func (f cacheFile) keep(n int64) (io.Reader, error) {
	r, err := f.stagedFile.keep(n)
	return cacheReader{r}, unusable(err)
}

func (f cacheFile) writer(n int64) (io.Writer, error) {
	w, err := f.stagedFile.writer(n)
	return cacheWriter{w}, unusable(err)
}

func (f cacheFile) flush() error { return unusable(f.stagedFile.flush()) }

type cacheReader struct{ io.Reader }

func (r cacheReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	return n, unusable(err)
}

type cacheWriter struct{ io.Writer }

func (w cacheWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, unusable(err)
}

// unusable is for errors of the cache's own files.
func unusable(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &nodecache.UnusableError{Reason: "its file cannot be used", Err: err}
}

// takeEntry hashes the cache's blob on its way into staging. It reports whether it
// is the blob that is wanted.
func (t *transfer) takeEntry(ctx context.Context, s *site, f *os.File, e *nodecache.Entry) (bool, error) {
	// What was fetched just now was shown already.
	t.silent = e.Filled
	defer func() { t.silent = false }()
	// A file's mode is that of all its names.
	if t.hardLink && !t.executable {
		if linked, err := t.linkEntry(ctx, s, e); err != nil || linked {
			return linked, err
		}
	}
	same, err := t.takeOver(ctx, e.File(), f)
	if err != nil {
		return false, fmt.Errorf("copy %s from the cache: %w", t.name, err)
	}
	if !same {
		return false, nil
	}
	if !e.Filled {
		t.reused = t.desc.Size
	}
	if err := t.forget(e.File()); err != nil {
		return false, err
	}
	return true, t.staged(f).flush()
}

// linkCached is for a file of the old model that cannot be linked, since it has another
// name: one in the cache, which may be linked. It reports whether it was.
func (t *transfer) linkCached(ctx context.Context, s *site) (bool, error) {
	if t.cache == nil || t.executable || !t.cache.Has(t.desc.Digest, t.desc.Size) {
		return false, nil
	}
	e, err := t.cache.Blob(ctx, t.desc.Digest, t.desc.Size, func(*os.File, int64, func()) error { return errNoFill })
	if err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		return false, nil // the old file is copied
	}
	linked, err := t.linkEntry(ctx, s, e)
	if isUnread(err) {
		t.show(0)
		err = nil
	}
	return linked, errors.Join(err, e.Close())
}

// linkEntry gives the cache's file itself the staged name, if it can have one.
func (t *transfer) linkEntry(ctx context.Context, s *site, e *nodecache.Entry) (bool, error) {
	info, err := e.File().Stat()
	if err != nil || !mayLink(info) {
		return false, err
	}
	link := t.file() + ".link"
	if err := s.root.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if s.linkTo(e.Path(), link) != nil {
		return false, nil
	}
	same := false
	linked, err := s.root.Lstat(link)
	if err == nil {
		same, err = t.isBlob(ctx, e.File())
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("hash %s in the cache: %w", t.name, err), s.root.Remove(link))
	}
	if !os.SameFile(info, linked) || !same {
		t.show(0)
		_, err := e.File().Seek(0, io.SeekStart)
		return false, errors.Join(err, s.root.Remove(link))
	}
	if !e.Filled {
		t.reused = t.desc.Size
	}
	if err := t.forget(e.File()); err != nil {
		return false, errors.Join(err, s.root.Remove(link))
	}
	return true, s.root.Rename(link, t.file())
}
