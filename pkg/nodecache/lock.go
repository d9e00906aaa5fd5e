// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

func lockFile(d digest.Digest) string { return locksDir + "/" + d.Encoded() }

// lock is one blob's. Its methods take nil.
type lock struct{ f *flock.Flock }

func (l *lock) release() {
	if l != nil && l.f != nil {
		l.f.Unlock() //nolint:errcheck // closing the file lets go in any case
		l.f = nil
	}
}

// lock takes a blob's lock if nobody holds it otherwise. The file is removed by
// whoever prunes the blob, so a lock counts only while the locked file still has
// its name.
func (c *Cache) lock(d digest.Digest, exclusive bool) (l *lock, got bool, err error) {
	for range lockTries {
		if l, got, err = c.tryLock(d, exclusive); !errors.Is(err, errRenamed) {
			break
		}
	}
	return l, got, err
}

// lockTries is far more often than pruning is met. The name stays another's when the
// cache's directory has moved, or somebody replaces the file all the time.
const lockTries = 1000

var errRenamed = errors.New("the lock file is another by now")

func (c *Cache) tryLock(d digest.Digest, exclusive bool) (*lock, bool, error) {
	flag, err := c.makeLock(d)
	if err != nil {
		return nil, false, err
	}
	// Never O_CREATE: the kernel refuses it for another user's file in a sticky
	// directory (fs.protected_regular).
	f := flock.New(filepath.Join(c.dir, filepath.FromSlash(lockFile(d))), flock.SetFlag(flag|rootfile.NoFollow|rootfile.NoWait))
	try := f.TryRLock
	if exclusive {
		try = f.TryLock
	}
	got, err := try()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, errRenamed
	}
	if err != nil || !got {
		f.Close() //nolint:errcheck // it holds nothing
		return nil, false, err
	}
	l := &lock{f}
	locked, err := f.Stat()
	if err == nil {
		var named fs.FileInfo
		named, err = c.root.Lstat(lockFile(d))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
			err = errRenamed
		}
	}
	if err != nil {
		l.release()
		return nil, false, err
	}
	return l, true, nil
}

// makeLock makes the lock file if there is none, and tells how it can be opened.
// Network file systems want it writable for an exclusive lock.
func (c *Cache) makeLock(d digest.Digest) (flag int, err error) {
	f, err := c.root.OpenFile(lockFile(d), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	there := errors.Is(err, fs.ErrExist)
	switch {
	case err == nil:
		// As open as the directory: those who share it lock for each other.
		return os.O_RDWR, errors.Join(f.Chmod(c.mode&0o666), f.Close())
	case !there && !rootfile.IsReadOnly(err):
		return 0, err
	}
	for _, flag := range []int{os.O_RDWR, os.O_RDONLY} {
		if f, _, err = rootfile.OpenPlain(c.root, lockFile(d), flag); err == nil {
			return flag, f.Close()
		}
		if !rootfile.IsReadOnly(err) {
			break
		}
	}
	if there && errors.Is(err, fs.ErrNotExist) {
		err = errRenamed // it went between the two looks
	}
	return 0, err
}

// touch notes that a blob was used now. A user who cannot write the lock file leaves
// the time as it is.
func (c *Cache) touch(d digest.Digest) {
	f, _, err := rootfile.OpenPlain(c.root, lockFile(d), os.O_WRONLY)
	if err != nil {
		return
	}
	defer f.Close()
	f.WriteAt([]byte("\n"), 0) //nolint:errcheck // then it counts as used earlier
}
