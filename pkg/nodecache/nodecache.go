// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

const (
	blobsDir   = "blobs/sha256"
	partialDir = "partial"
	locksDir   = "locks"

	defaultStall = 2 * time.Minute
)

// Options of a Cache. The zero value is usable.
type Options struct {
	// MaxSize is what the cache may hold, in bytes. Zero means no bound.
	MaxSize int64
	// Stall is how long another process may fetch a blob without a further byte
	// before it is not waited for any more. Zero means two minutes.
	Stall time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Cache is an open cache. It is safe for concurrent use.
type Cache struct {
	dir  string
	root *os.Root
	mode fs.FileMode // of the directory: what is made in it is as open
	o    Options

	mu sync.Mutex
	// filling are the sizes of what this process fetches.
	filling map[digest.Digest]int64
}

// DirError is a directory that is not used as a cache.
type DirError struct{ Dir, Reason string }

func (e *DirError) Error() string { return "the cache " + e.Dir + ": " + e.Reason }

// UnusableError means that a blob cannot go through the cache, for a reason that
// has nothing to do with the blob: it is to be fetched past it.
type UnusableError struct {
	Reason string
	Err    error
}

func (e *UnusableError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

func (e *UnusableError) Unwrap() error { return e.Err }

// Open opens the cache in dir, which is made if it is not there. A directory in
// which everybody can write and nobody is kept from renaming others' files is
// refused with a *DirError. Whoever may write there may spoil what is in it, which is
// an *UnusableError: the pull goes past the cache.
func Open(dir string, o Options) (*Cache, error) {
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, &DirError{Dir: dir, Reason: err.Error()}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, &DirError{Dir: dir, Reason: cause(err).Error()}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &DirError{Dir: dir, Reason: cause(err).Error()}
	}
	c := &Cache{dir: dir, root: root, o: o, filling: make(map[digest.Digest]int64)}
	if err := c.prepare(); err != nil {
		root.Close()
		return nil, err
	}
	return c, nil
}

// Dir is the cache's directory.
func (c *Cache) Dir() string { return c.dir }

// Has reports that a blob of that size is there, for now. Its content may be wrong.
func (c *Cache) Has(d digest.Digest, size int64) bool {
	info, err := c.root.Lstat(blobName(d))
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// Peek opens a blob that is there, to see what can be made of the file. It keeps nobody
// from removing it.
func (c *Cache) Peek(d digest.Digest, size int64) (*os.File, error) {
	f, info, err := rootfile.OpenPlain(c.root, blobName(d), os.O_RDONLY)
	if err == nil && info.Size() != size {
		f.Close()
		return nil, fs.ErrNotExist
	}
	return f, err
}

// Path is the name that a blob has, or would have.
func (c *Cache) Path(d digest.Digest) string {
	return filepath.Join(c.dir, filepath.FromSlash(blobName(d)))
}

// prepare checks the directory and makes what is missing in it. A cache that
// cannot be written to is still read.
func (c *Cache) prepare() error {
	info, err := c.root.Lstat(".")
	if err != nil {
		return &DirError{Dir: c.dir, Reason: cause(err).Error()}
	}
	if openToAll(info) {
		return &DirError{Dir: c.dir, Reason: replaceable}
	}
	c.mode = info.Mode() & (fs.ModePerm | fs.ModeSticky | fs.ModeSetgid)
	for _, name := range []string{"blobs", blobsDir, partialDir, locksDir} {
		if err := c.prepareDir(name); err != nil {
			return &UnusableError{Reason: "its directory " + name + " cannot be used", Err: cause(err)}
		}
	}
	return nil
}

const replaceable = "everybody can replace what others put there: set its sticky bit (chmod +t), or take write permission from others"

func (c *Cache) prepareDir(name string) error {
	const made = 0o700 // until it is as open as the cache
	err := c.root.Mkdir(name, made)
	if err != nil && !errors.Is(err, fs.ErrExist) && !rootfile.IsReadOnly(err) {
		return err
	}
	info, err := c.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // and it cannot be made
	}
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("it is no directory")
	case openToAll(info):
		return errors.New(replaceable)
	case info.Mode().Perm() == made && rootfile.OwnedByUs(info):
		// Whoever made it may have been killed before this.
		if err := c.root.Chmod(name, c.mode); err != nil && !rootfile.IsReadOnly(err) {
			return err
		}
	}
	return nil
}

// Close prunes the cache and closes it.
func (c *Cache) Close() error {
	err := c.prune("", 0)
	return errors.Join(err, c.root.Close())
}

// Entry is a whole blob in the cache, kept from being pruned until Close.
type Entry struct {
	cache  *Cache
	digest digest.Digest
	file   *os.File
	lock   *lock // nil when nothing could be locked
	// Filled reports that it was fetched just now.
	Filled bool
}

// File is the blob, open for reading. Its content is to be hashed.
func (e *Entry) File() *os.File { return e.file }

// Path is the blob's name, for a hard link: it may lead to another file by now.
func (e *Entry) Path() string { return e.cache.Path(e.digest) }

// Close lets the blob be pruned.
func (e *Entry) Close() error {
	e.lock.release()
	return e.file.Close()
}

func blobName(d digest.Digest) string { return blobsDir + "/" + d.Encoded() }

// partialName has the user's id: files of different users do not stand in each
// other's way.
func partialName(d digest.Digest) string {
	return partialDir + "/" + d.Encoded() + "." + strconv.Itoa(os.Geteuid())
}

// Fill fetches a blob into f, of which kept bytes are there from an earlier try,
// unchecked. Without an error f holds exactly the blob, checked and flushed. While f does
// not grow, as while what is kept is read, it is to call alive now and then: others that
// wait for the blob give up when nothing is to be seen of it.
type Fill func(f *os.File, kept int64, alive func()) error

// Blob returns the blob of d, size bytes long. When it is not there fill fetches it,
// while others that want it wait. An error of fill is returned as it is, and what
// was fetched is kept for the next try unless f was emptied; other errors are
// *UnusableError, or ctx's.
func (c *Cache) Blob(ctx context.Context, d digest.Digest, size int64, fill Fill) (*Entry, error) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return nil, &UnusableError{Reason: "not a sha256 digest"}
	}
	w := &waiting{cache: c, digest: d, since: c.o.Now()}
	for {
		e, busy, err := c.find(d, size)
		if e != nil || err != nil {
			return e, err
		}
		if !busy {
			l, got, err := c.lock(d, true)
			if err != nil {
				return nil, &UnusableError{Reason: "it cannot be written to", Err: cause(err)}
			}
			if got {
				return c.fill(d, size, l, fill)
			}
		}
		w.fetched = busy
		if err := w.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// find opens a blob that is there. busy reports that somebody fetches or removes
// it. A file that cannot be the blob is as good as none.
func (c *Cache) find(d digest.Digest, size int64) (e *Entry, busy bool, err error) {
	l, got, err := c.lock(d, false)
	if err == nil && !got {
		return nil, true, nil
	}
	// Without a lock, as on a read-only volume, the open file is what counts.
	f, err := c.Peek(d, size)
	if err != nil {
		l.release()
		return nil, false, nil
	}
	c.touch(d)
	if l != nil {
		c.dropPartial(d)
	}
	return &Entry{cache: c, digest: d, file: f, lock: l}, false, nil
}

// dropPartial removes what a killed process of our user has fetched of a blob that is whole by
// now. Under any lock of the blob nobody writes to it.
func (c *Cache) dropPartial(d digest.Digest) {
	c.root.Remove(partialName(d)) //nolint:errcheck // there is none, as a rule
}

// fill fetches the blob under its exclusive lock l, which it gives up for a shared
// one.
func (c *Cache) fill(d digest.Digest, size int64, l *lock, fill Fill) (*Entry, error) {
	defer func() { l.release() }()
	// Somebody may have been faster, between the look and the lock.
	f, info, err := rootfile.OpenPlain(c.root, blobName(d), os.O_RDONLY)
	if err == nil && info.Size() == size {
		c.dropPartial(d)
		return c.share(&Entry{cache: c, digest: d, file: f}, l), nil
	}
	if err == nil {
		f.Close()
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) {
		return nil, &UnusableError{Reason: "it cannot be read", Err: cause(err)} // which says nothing about the file
	}
	if !errors.Is(err, fs.ErrNotExist) {
		// Before it is fetched for a name that stays taken.
		if err := c.root.Remove(blobName(d)); err != nil {
			return nil, &UnusableError{Reason: "it holds another file for " + d.String(), Err: cause(err)}
		}
	}
	if err := c.reserve(d, size); err != nil {
		return nil, err
	}
	defer c.unreserve(d)
	f, kept, err := rootfile.OpenOwned(c.root, partialName(d), c.root.Remove)
	if err != nil {
		return nil, &UnusableError{Reason: "it cannot be written to", Err: cause(err)}
	}
	defer f.Close()
	if err := fill(f, kept, c.alive(d)); err != nil {
		return nil, c.failed(d, f, err)
	}
	return c.commit(d, l)
}

// failed keeps what may help the next try.
func (c *Cache) failed(d digest.Digest, f *os.File, err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if info, statErr := f.Stat(); full || statErr != nil || info.Size() == 0 {
		c.root.Remove(partialName(d)) //nolint:errcheck // it is fetched past the cache, or anew
	}
	if full {
		return &UnusableError{Reason: "its volume is full", Err: cause(err)}
	}
	return err
}

// commit gives a checked blob its name.
func (c *Cache) commit(d digest.Digest, l *lock) (*Entry, error) {
	from := partialName(d)
	if err := c.root.Chmod(from, 0o644); err != nil {
		return nil, &UnusableError{Reason: "it cannot be written to", Err: cause(err)}
	}
	f, _, err := rootfile.OpenPlain(c.root, from, os.O_RDONLY)
	if err != nil {
		return nil, &UnusableError{Reason: "it was changed meanwhile", Err: cause(err)}
	}
	err = c.root.Rename(from, blobName(d))
	if err == nil {
		err = rootfile.SyncDir(c.root, blobsDir)
	}
	if err != nil {
		f.Close()
		return nil, &UnusableError{Reason: "it cannot be written to", Err: cause(err)}
	}
	c.touch(d)
	return c.share(&Entry{cache: c, digest: d, file: f, Filled: true}, l), nil
}

// share replaces the exclusive lock by a shared one. Between the two the blob may
// be pruned; the open file is whole all the same.
func (c *Cache) share(e *Entry, exclusive *lock) *Entry {
	exclusive.release()
	if l, got, err := c.lock(e.digest, false); err == nil && got {
		e.lock = l
	}
	return e
}

// Drop removes a blob whose content turned out wrong, and closes e. It reports
// whether the name is free now. Who else reads it goes on reading, and finds it wrong
// too: one of them fetches it anew, and the others wait for that one. While e is locked,
// even if it is shared, nobody puts another blob under the name.
func (c *Cache) Drop(e *Entry) bool {
	defer e.Close() //nolint:errcheck // only read
	wrong, err := e.file.Stat()
	if err != nil {
		return false
	}
	if e.lock == nil {
		l, got, err := c.lock(e.digest, true)
		if err != nil || !got {
			return false
		}
		defer l.release()
	}
	now, err := c.root.Lstat(blobName(e.digest))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	// Somebody else may have replaced it already.
	if !os.SameFile(wrong, now) {
		return true
	}
	err = c.root.Remove(blobName(e.digest))
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// waiting is for a blob that somebody else fetches, or reads though it is wrong.
type waiting struct {
	cache  *Cache
	digest digest.Digest
	since  time.Time
	seen   progress
	looked time.Time
	// fetched is whether somebody has the lock of those who fetch or remove the blob.
	fetched bool
}

// progress is what others see of a blob that is being fetched.
type progress struct {
	size    int64
	changed time.Time
}

const (
	waitPoll = 50 * time.Millisecond
	waitLook = time.Second
)

// wait returns after a moment, or gives up when what the other has fetched does not
// grow: its process may hang, or hold the lock to annoy.
func (w *waiting) wait(ctx context.Context) error {
	t := time.NewTimer(waitPoll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
	}
	now := w.cache.o.Now()
	if now.Sub(w.looked) < waitLook && w.cache.o.Stall > waitLook {
		return nil
	}
	w.looked = now
	if seen := w.cache.progress(w.digest); seen != w.seen {
		w.seen, w.since = seen, now
	}
	if now.Sub(w.since) <= w.cache.o.Stall {
		return nil
	}
	if !w.fetched {
		return &UnusableError{Reason: fmt.Sprintf("other processes have been reading a wrong file of the blob for %s", w.cache.o.Stall)}
	}
	return &UnusableError{Reason: fmt.Sprintf("another process has been fetching the blob for %s without getting on", w.cache.o.Stall)}
}

// alive returns what has a partial file's time change once in waitLook at most.
func (c *Cache) alive(d digest.Digest) func() {
	last := c.o.Now()
	return func() {
		if now := c.o.Now(); now.Sub(last) >= waitLook {
			last = now
			c.root.Chtimes(partialName(d), now, now) //nolint:errcheck // others fetch it past the cache then
		}
	}
}

// progress is how far a blob is, by whomever.
func (c *Cache) progress(d digest.Digest) (p progress) {
	entries, err := fs.ReadDir(c.root.FS(), partialDir)
	if err != nil {
		return progress{}
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), d.Encoded()+".") {
			continue
		}
		if info, err := e.Info(); err == nil {
			p.size += info.Size()
			if t := info.ModTime(); t.After(p.changed) {
				p.changed = t
			}
		}
	}
	return p
}

// Kept is what the volume has set aside already for a blob that is not whole yet.
func (c *Cache) Kept(d digest.Digest) int64 {
	info, err := c.root.Lstat(partialName(d))
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return rootfile.Allocated(info)
}
