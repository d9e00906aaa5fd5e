// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

const (
	// lockName is a file of ours in the layout's root, where the image-spec allows
	// further ones.
	lockName = ".aegis.lock"
	lockPoll = 20 * time.Millisecond
	blobsDir = "blobs/sha256"
	opIndex  = "write index"
)

// dirStore is a layout in a directory. Every path goes through an os.Root, and no
// link is followed.
type dirStore struct {
	path string

	mu   sync.Mutex // guards the fields below, and index.json within this process
	root *os.Root
	made bool
}

func (d *dirStore) opened() (*os.Root, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root == nil {
		root, err := os.OpenRoot(d.path)
		if err != nil {
			return nil, err
		}
		d.root = root
	}
	return d.root, nil
}

func (d *dirStore) open(name string) (io.ReadSeekCloser, int64, error) {
	root, err := d.opened()
	if err != nil {
		return nil, 0, err
	}
	// A pipe would hang the reader, a device be endless, a link lead elsewhere.
	if info, err := root.Lstat(name); err != nil {
		return nil, 0, err
	} else if !info.Mode().IsRegular() {
		return nil, 0, newError("read", filepath.Join(d.path, name), Malformed, "it is no regular file")
	}
	f, err := root.OpenFile(name, os.O_RDONLY|oSafe, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, 0, newError("read", filepath.Join(d.path, name), Malformed, "it is no regular file")
	}
	return f, info.Size(), nil
}

// make creates what a layout consists of before its first blob.
func (d *dirStore) make() (*os.Root, error) {
	if err := os.MkdirAll(d.path, 0o777); err != nil {
		return nil, err
	}
	root, err := d.opened()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made {
		return root, nil
	}
	sweep(root) // before the first write: what it removes may have filled the disk
	if _, err := root.Lstat(ocispec.ImageLayoutFile); errors.Is(err, fs.ErrNotExist) {
		err = replace(root, ocispec.ImageLayoutFile, func(w io.Writer) error {
			_, err := w.Write([]byte(versionFile))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if err := root.MkdirAll(blobsDir, 0o777); err != nil {
		return nil, err
	}
	d.made = true
	return root, nil
}

const versionFile = `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`

func (d *dirStore) put(desc ocispec.Descriptor, fill func(io.Writer) error) error {
	root, err := d.make()
	if err != nil {
		return err
	}
	return replace(root, named(desc.Digest), fill)
}

// writable does what put and update begin with: a file that comes to lie among the
// blobs, and the lock.
func (d *dirStore) writable(ctx context.Context) error {
	root, err := d.make()
	if err != nil {
		return err
	}
	probe := blobsDir + "/" + ingestName + rand.Text()
	if err := replace(root, probe, func(io.Writer) error { return nil }); err != nil {
		return err
	}
	if err := root.Remove(probe); err != nil {
		return err
	}
	lock, err := d.lock(ctx, root)
	if err != nil {
		return err
	}
	return lock.Unlock()
}

// lock is respected by other processes, too. It is unlocked by the caller.
func (d *dirStore) lock(ctx context.Context, root *os.Root) (*flock.Flock, error) {
	if info, err := root.Lstat(lockName); err == nil && !info.Mode().IsRegular() {
		return nil, newError(opIndex, d.path, Malformed, "%s is no regular file", lockName)
	}
	var lock *flock.Flock
	var err, first error
	// Another user's file need not be writable, and is refused with O_CREATE in a sticky
	// directory (fs.protected_regular).
	for _, flag := range []int{os.O_CREATE | os.O_RDWR, os.O_RDWR, os.O_RDONLY} {
		lock = flock.New(filepath.Join(d.path, lockName), flock.SetFlag(flag|oSafe), flock.SetPermissions(0o666))
		if _, err = lock.TryLockContext(ctx, lockPoll); !errors.Is(err, fs.ErrPermission) {
			break
		}
		first = err
	}
	if first != nil && errors.Is(err, fs.ErrNotExist) {
		err = first // it is not there, and may not be made
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	return lock, nil
}

// update holds the lock while the index is read and replaced.
func (d *dirStore) update(ctx context.Context, change func(*index) error) error {
	root, err := d.make()
	if err != nil {
		return err
	}
	lock, err := d.lock(ctx, root)
	if err != nil {
		return err
	}
	defer lock.Unlock()                  //nolint:errcheck // closing the file lets go in any case
	l := &Layout{path: d.path, store: d} // its index is nobody else's, and may be changed
	x, err := l.index(opIndex, d.path)
	if err != nil {
		return err
	}
	if err := change(x); err != nil {
		return err
	}
	raw, err := x.bytes()
	if err != nil {
		return err
	}
	if err := x.fits(d.path, raw); err != nil {
		return err
	}
	// The index never names what a loss of power takes away, and is itself there then.
	if err := rootfile.SyncDir(root, blobsDir); err != nil {
		return err
	}
	err = replace(root, ocispec.ImageIndexFile, func(w io.Writer) error {
		_, err := w.Write(raw)
		return err
	})
	if err != nil {
		return err
	}
	return rootfile.SyncDir(root, ".")
}

func (d *dirStore) commit() error { return nil }

func (d *dirStore) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root == nil {
		return nil
	}
	err := d.root.Close()
	d.root = nil
	return err
}
