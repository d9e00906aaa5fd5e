// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// ingestName begins the names of files that are not whole yet.
	ingestName = ".aegis-ingest-"
	// staleAfter is how old a file is whose writer is gone, where locks do not tell.
	staleAfter = 24 * time.Hour
	// idleAfter is the same where its lock can be had: that may be one of this machine
	// only, and older programs took none. Who writes does so all the time.
	idleAfter = 5 * time.Minute
)

// ingest is a file that is not whole yet. It is locked as long as its writer lives: by
// that the next one knows what a killed run has left, which may be as large as a model.
type ingest struct {
	*os.File
	root *os.Root
	name string
	lock io.Closer // nil where there are no locks
}

func newIngest(root *os.Root) (*ingest, error) {
	for {
		name := ingestName + rand.Text()
		// As open(2) makes it: the umask and the directory's ACL say who may read it.
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
		if err != nil {
			return nil, err
		}
		lock, others := lockOpen(f)
		i := &ingest{f, root, name, lock}
		if _, err := root.Lstat(name); !others && !errors.Is(err, fs.ErrNotExist) {
			return i, nil
		}
		// A sweep came between the two.
		i.Close()
		_ = i.discard()
	}
}

// discard removes what still has the temporary name, and lets go of the lock.
func (i *ingest) discard() error {
	err := i.root.Remove(i.name)
	if i.lock != nil {
		i.lock.Close() //nolint:errcheck // closing the file lets go in any case
	}
	return err
}

// claim locks a file. Where it cannot be locked at all the lock is nil, and where
// somebody else has it others is true.
func claim(root *os.Root, name string) (lock *flock.Flock, others bool) {
	if !locksIngest {
		return nil, false
	}
	// Network file systems want it writable for an exclusive lock.
	lock = flock.New(filepath.Join(root.Name(), name), flock.SetFlag(os.O_RDWR|oSafe))
	got, err := lock.TryLock()
	if err == nil && got {
		return lock, false
	}
	lock.Close() //nolint:errcheck // it holds nothing
	return nil, err == nil
}

// sweep removes what killed runs have left.
func sweep(root *os.Root) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ingestName) || !e.Type().IsRegular() {
			continue
		}
		lock, others := claim(root, e.Name())
		if others {
			continue
		}
		after := staleAfter
		if lock != nil {
			after = idleAfter
		}
		if info, err := root.Lstat(e.Name()); err == nil && time.Since(info.ModTime()) > after {
			_ = root.Remove(e.Name()) // if it cannot be, it stays
		}
		if lock != nil {
			lock.Close() //nolint:errcheck // closing the file lets go in any case
		}
	}
}

// sharedAs gives the file the group and the mode of the one whose place it takes: whoever
// shared that goes on to. A file system without them is let be.
func (i *ingest) sharedAs(before fs.FileInfo) {
	now, err := i.Stat()
	if err != nil {
		return
	}
	mode := before.Mode().Perm()
	// Root gives it back to its owner, who alone may be able to read it.
	if i.Chown(ownerOf(before), groupOf(before)) != nil && groupOf(now) != groupOf(before) && i.Chown(-1, groupOf(before)) != nil {
		if hasACL(i.File) {
			return // the group's bits are the mask of all whom it names
		}
		mode = mode&^0o070 | mode&0o007<<3 // for its group we were others
	}
	_ = i.Chmod(mode)
}

// replace writes a file beside its place and renames it there when it is whole.
func replace(root *os.Root, name string, fill func(io.Writer) error) error {
	f, err := newIngest(root)
	if err != nil {
		return err
	}
	err = fill(f)
	if before, there := root.Lstat(name); name == ocispec.ImageIndexFile && there == nil && before.Mode().IsRegular() {
		f.sharedAs(before)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(f.name, name)
	}
	_ = f.discard()
	return err
}
