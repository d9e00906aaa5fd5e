// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package digestcache remembers the digests of files that did not change since
// they were hashed, and where their content was pushed. What it says is a claim
// about a file that nobody has read again: who must be sure reads the file.
//
// A directory holds one small file for each inode, replaced by a rename; several
// processes can use it at once, and it is safe to delete at any time.
package digestcache

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

const (
	// minAge is how old a file's last change must be when it begins to be read: a
	// later one in the same tick of the clock would leave no trace.
	minAge = 2 * time.Second
	// maxEntries bounds the directory; a Trim leaves nine tenths of it.
	maxEntries = 10_000
	// maxEntry bounds one file that is read, in bytes.
	maxEntry        = 16 << 10
	maxRepositories = 8
	// staleTemp is the age at which a Trim takes a temporary file for one that a
	// crash has left.
	staleTemp  = time.Hour
	tempPrefix = ".new-"
	version    = 2 // 1 knew nothing of mappings
)

// RefusedError means that the cache, or one file of it, is not used because
// somebody else could have written it.
type RefusedError struct{ Path, Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("digest cache %s: %s", e.Path, e.Reason) }

// ErrUnsupported means that this system does not tell when a file was changed.
var ErrUnsupported = errors.New("digest cache: this system does not tell when a file was changed")

// Entry is what is remembered of a file.
type Entry struct {
	Digest digest.Digest
	// Repositories that its content was pushed to, HOST/NAME, the latest first.
	Repositories []string
}

// Cache is an open directory. It is safe for concurrent use.
type Cache struct {
	root *os.Root
	dir  string
	now  func() time.Time
}

// Open opens the cache in dir, which it makes, with mode 0700, when it is missing.
// A directory that is a link, belongs to another user or can be written by others
// is a *RefusedError. now is the clock; nil means time.Now.
func Open(dir string, now func() time.Time) (*Cache, error) {
	if !supported {
		return nil, ErrUnsupported
	}
	if now == nil {
		now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("digest cache: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("digest cache: %w", err)
	}
	named, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("digest cache: %w", err)
	}
	if !named.IsDir() {
		return nil, &RefusedError{Path: dir, Reason: "it is no directory"}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("digest cache: %w", err)
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(named, opened) {
		err = &RefusedError{Path: dir, Reason: "it was replaced while it was opened"}
	}
	if err == nil {
		err = ours(dir, opened)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return &Cache{root: root, dir: dir, now: now}, nil
}

// ours refuses what another user owns or could have written.
func ours(path string, info fs.FileInfo) error {
	if owner := ownerOf(info); owner != os.Geteuid() {
		return &RefusedError{Path: path, Reason: fmt.Sprintf("it belongs to user %d", owner)}
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return &RefusedError{Path: path, Reason: fmt.Sprintf("others can write to it (mode %04o)", mode)}
	}
	return nil
}

// Close releases the directory.
func (c *Cache) Close() error { return c.root.Close() }

// record is the form of a file. All that identifies the content is in it, so that
// its name need not.
type record struct {
	Version      int           `json:"version"`
	Key          Key           `json:"key"`
	Digest       digest.Digest `json:"digest"`
	Repositories []string      `json:"repositories"`
}

// Key identifies a file and its last change.
type Key struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	// Modified and Changed are mtime and ctime, in nanoseconds since 1970. The
	// second cannot be set by whoever changes the content.
	Modified int64 `json:"mtime"`
	Changed  int64 `json:"ctime"`
}

// KeyOf returns the key of the file of that name, as info describes it, and false
// where inode numbers and times are somebody else's word: on network file systems
// and those that are not known.
func KeyOf(name string, info fs.FileInfo) (Key, bool) {
	key, ok := keyOf(info)
	return key, ok && info.Mode().IsRegular() && isLocal(name)
}

func (k Key) name() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%d", k.Device, k.Inode))
	return hex.EncodeToString(sum[:16])
}

// Lookup returns what is remembered of a file with exactly this key. An error that
// is a *RefusedError is worth a warning; with any error there is no entry.
func (c *Cache) Lookup(k Key) (Entry, bool, error) {
	raw, err := c.read(k.name())
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, false, nil
	}
	if err != nil {
		return Entry{}, false, err
	}
	var r record
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil || r.Version != version || r.Key != k {
		// Torn by a crash, of another version, of an older state of the file.
		return Entry{}, false, nil
	}
	if r.Digest.Validate() != nil || r.Digest.Algorithm() != digest.SHA256 || len(r.Repositories) > maxRepositories {
		return Entry{}, false, nil
	}
	return Entry{Digest: r.Digest, Repositories: r.Repositories}, true, nil
}

func (c *Cache) read(name string) ([]byte, error) {
	f, err := c.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, name)
	if !info.Mode().IsRegular() {
		return nil, &RefusedError{Path: path, Reason: "it is no regular file"}
	}
	if err := ours(path, info); err != nil {
		return nil, err
	}
	if links := rootfile.LinkCount(info); links > 1 { // none: replaced since it was opened
		return nil, &RefusedError{Path: path, Reason: fmt.Sprintf("it has %d names", links)}
	}
	return io.ReadAll(io.LimitReader(f, maxEntry))
}

// Reading is a file that is about to be read, and whose every change leaves a trace
// from then on.
type Reading struct {
	name string
	key  Key
}

// Begin is called before the first byte is read of the file of that name, which had the
// key k when it was found. It returns false for a file that cannot be remembered: its last
// change was so shortly ago that a further one could leave no trace, or so could one
// through a mapping. Pages that were written through one, and that the kernel has not
// written to the disk since, are changed without another ctime; so there must be no
// mapping, or what is in it is flushed first.
func (c *Cache) Begin(name string, k Key) (Reading, bool) {
	youngest := c.now().Add(-minAge).UnixNano()
	if k.Modified > youngest || k.Changed > youngest {
		return Reading{}, false
	}
	f, err := os.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return Reading{}, false // whoever reads it says why
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || !leavesTraces(f) {
		return Reading{}, false
	}
	if now, ok := keyOf(info); !ok || now != k {
		return Reading{}, false
	}
	return Reading{name: name, key: k}, true
}

// Again is a reading of a file whose entry was found with the key k, for a Store of the
// same digest.
func (c *Cache) Again(name string, k Key) Reading { return Reading{name: name, key: k} }

// Forget removes what is remembered of a file, for it is wrong.
func (c *Cache) Forget(r Reading) error {
	if err := c.root.Remove(r.key.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("digest cache: %w", err)
	}
	return nil
}

// Store remembers e for a file that was read. It does nothing, and returns false, when
// the file has another key by now than when it was found.
func (c *Cache) Store(r Reading, e Entry) (bool, error) {
	name, k := r.name, r.key
	info, err := os.Lstat(name)
	if err != nil {
		return false, fmt.Errorf("digest cache: %w", err)
	}
	if now, ok := KeyOf(name, info); !ok || now != k {
		return false, nil
	}
	if e.Digest.Validate() != nil || e.Digest.Algorithm() != digest.SHA256 {
		return false, fmt.Errorf("digest cache: %q is no SHA-256 digest", e.Digest)
	}
	raw, err := json.Marshal(record{
		Version: version, Key: k, Digest: e.Digest, Repositories: e.Repositories[:min(len(e.Repositories), maxRepositories)],
	})
	if err != nil {
		return false, fmt.Errorf("digest cache: %w", err)
	}
	if len(raw) > maxEntry {
		return false, nil
	}
	if err := c.replace(k.name(), raw); err != nil {
		return false, fmt.Errorf("digest cache: %w", err)
	}
	return true, nil
}

// replace writes beside the name and renames. It is not flushed to the disk: what
// a crash tears does not parse, and is hashed again.
func (c *Cache) replace(name string, raw []byte) error {
	temp := tempPrefix + rand.Text()
	f, err := c.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err == nil {
		err = c.root.Rename(temp, name)
	}
	if err != nil {
		_ = c.root.Remove(temp)
	}
	return err
}

// Trim keeps the directory bounded: beyond 10,000 entries the oldest go.
func (c *Cache) Trim() error { return c.trim(maxEntries) }

func (c *Cache) trim(most int) error {
	dir, err := c.root.Open(".")
	if err != nil {
		return fmt.Errorf("digest cache: %w", err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("digest cache: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			return false
		}
		if info, err := e.Info(); err == nil && c.now().Sub(info.ModTime()) > staleTemp {
			_ = c.root.Remove(e.Name())
		}
		return true
	})
	if len(entries) <= most {
		return nil
	}
	type aged struct {
		name string
		at   time.Time
	}
	var kept []aged
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		kept = append(kept, aged{e.Name(), info.ModTime()})
	}
	slices.SortFunc(kept, func(a, b aged) int { return a.at.Compare(b.at) })
	for _, e := range kept[:max(0, len(kept)-most*9/10)] {
		if err := c.root.Remove(e.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("digest cache: %w", err)
		}
	}
	return nil
}
