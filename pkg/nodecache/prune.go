// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// stored is a file that counts for the cache's size.
type stored struct {
	name   string
	digest digest.Digest
	size   int64
	used   time.Time
	// stays says that its removal frees nothing, for it has another name, or is another
	// user's to decide.
	stays bool
}

// reserve makes room for a blob that is about to be fetched.
func (c *Cache) reserve(d digest.Digest, size int64) error {
	if c.o.MaxSize > 0 && size > c.o.MaxSize {
		return &UnusableError{Reason: fmt.Sprintf("the blob has %d bytes and the cache may hold %d", size, c.o.MaxSize)}
	}
	c.mu.Lock()
	need := size
	for _, n := range c.filling {
		need += n
	}
	// Before room is made: others that make room at the same time count it.
	c.filling[d] = size
	c.mu.Unlock()
	err := c.prune(d, need)
	if err != nil {
		c.unreserve(d)
	}
	return err
}

func (c *Cache) unreserve(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.filling, d)
}

// prune removes what was used least recently until need further bytes fit. What
// somebody holds, or what belongs to another user where that cannot be removed,
// stays. A cache that cannot get small enough is an *UnusableError.
func (c *Cache) prune(keep digest.Digest, need int64) error {
	if c.o.MaxSize <= 0 {
		return nil
	}
	all := c.list()
	total := need
	for _, s := range all {
		if !c.isFilling(s.digest, keep) {
			total += s.size
		}
	}
	for _, s := range all {
		if total <= c.o.MaxSize {
			return nil
		}
		if !c.isFilling(s.digest, keep) && c.remove(s) {
			total -= s.size
		}
	}
	if total > c.o.MaxSize && need > 0 {
		return &UnusableError{Reason: fmt.Sprintf("it is full of blobs that are in use or another user's: %d bytes, of which it may hold %d", total, c.o.MaxSize)}
	}
	return nil
}

// Evict removes what was used least recently, and is not to be kept, until the volume should
// have need further bytes: others use it, too, and MaxSize may be more than it has. It
// removes nothing where MaxSize is unbounded, or where that cannot be enough.
func (c *Cache) Evict(need int64, keep func(digest.Digest) bool) {
	if c.o.MaxSize <= 0 {
		return
	}
	var going []stored
	for _, s := range c.list() {
		if need <= 0 {
			break
		}
		if s.stays || keep(s.digest) || c.isFilling(s.digest, "") {
			continue
		}
		l, got, err := c.lock(s.digest, true)
		if err != nil || !got {
			continue
		}
		defer l.release()
		going, need = append(going, s), need-s.size
	}
	if need > 0 {
		return
	}
	for _, s := range going {
		c.removeLocked(s)
	}
}

// isFilling reports a blob that this process fetches: its size is counted already.
func (c *Cache) isFilling(d, keep digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ours := c.filling[d]
	return ours || d == keep
}

// list finds the blobs and what there is of others, what was used least recently first.
func (c *Cache) list() []stored {
	var all []stored
	for _, dir := range []string{blobsDir, partialDir} {
		entries, err := fs.ReadDir(c.root.FS(), dir)
		if err != nil {
			continue
		}
		ours := c.removesAll(dir)
		for _, e := range entries {
			encoded, _, _ := strings.Cut(e.Name(), ".")
			d := digest.NewDigestFromEncoded(digest.SHA256, encoded)
			info, err := e.Info()
			if err != nil || d.Validate() != nil || !info.Mode().IsRegular() {
				continue
			}
			used := info.ModTime()
			if l, err := c.root.Lstat(lockFile(d)); err == nil && l.ModTime().After(used) {
				used = l.ModTime()
			}
			stays := rootfile.LinkCount(info) > 1 || !ours && !rootfile.OwnedByUs(info)
			all = append(all, stored{name: dir + "/" + e.Name(), digest: d, size: rootfile.Allocated(info), used: used, stays: stays})
		}
	}
	slices.SortFunc(all, func(a, b stored) int { return a.used.Compare(b.used) })
	return all
}

// removesAll reports that we may remove what others put into a directory, as inode(7) has it.
func (c *Cache) removesAll(dir string) bool {
	info, err := c.root.Lstat(dir)
	return err == nil && (info.Mode()&fs.ModeSticky == 0 || rootfile.OwnedByUs(info) || os.Geteuid() == 0)
}

// remove removes a file unless its blob is in use, and its lock with it.
func (c *Cache) remove(s stored) bool {
	l, got, err := c.lock(s.digest, true)
	if err != nil || !got {
		return false
	}
	defer l.release()
	return c.removeLocked(s)
}

// removeLocked is remove for whoever has the lock.
func (c *Cache) removeLocked(s stored) bool {
	if err := c.root.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	// Whoever waits for the lock finds that the file has lost its name.
	c.root.Remove(lockFile(s.digest)) //nolint:errcheck // then it stays, empty
	return true
}
