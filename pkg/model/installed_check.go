// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// checkBuffer is the size of a read, in bytes, and checkBuffers how many of them a file
// has: one is filled while another is hashed.
const (
	checkBuffer  = 128 << 10
	checkBuffers = 3
)

// checker compares a directory with a manifest.
type checker struct {
	root     *os.Root
	m        Manifest
	config   []byte
	progress Progress
	hashing  *hashing.Group

	mu    sync.Mutex
	diff  DirError
	files int
	size  int64
	// expected are the names that the manifest and its archives account for.
	expected map[string]tarKind
}

func (i *Installed) check(ctx context.Context, root *os.Root, v verify.Verified, m Manifest, o CheckOptions) (int, int64, error) {
	if v.IsZero() || m.subject != v.Subject() {
		return 0, 0, &ContentError{Path: "manifest", Want: v.Subject().Digest(), Got: m.subject.Digest(), Reason: "another manifest was verified"}
	}
	c := &checker{root: root, m: m, config: i.config, progress: orNoProgress(o.Progress), expected: make(map[string]tarKind),
		hashing: hashing.NewGroup(checkBuffer, checkBuffers, o.Concurrency)}
	c.diff.Dir = i.dir
	if blind := c.blind(); len(blind) > 0 {
		return 0, 0, &UncheckableError{Dir: i.dir, Layers: blind}
	}
	readers := o.Concurrency
	if readers <= 0 {
		// Two files are hashed at once on one core.
		readers = 2 * runtime.GOMAXPROCS(0)
	}
	var total int64
	for _, l := range m.layers {
		total += l.Descriptor.Size
	}
	Plan(c.progress, total)
	tasks, err := c.tasks(ctx)
	if err != nil {
		return 0, 0, err
	}
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, task := range tasks {
		g.Go(func() error { return task.run(within) })
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	if err := c.findExtra(); err != nil {
		return 0, 0, err
	}
	if !c.diff.empty() {
		for _, l := range [][]string{c.diff.Changed, c.diff.Missing, c.diff.Extra, c.diff.Links} {
			slices.Sort(l)
		}
		return 0, 0, &c.diff
	}
	return c.files, c.size, nil
}

// task is what one core does at a time; size orders tasks.
type task struct {
	size int64
	run  func(context.Context) error
}

// tasks are the files and the archives, largest first, so that no core is left with a
// large one at the end.
func (c *checker) tasks(ctx context.Context) ([]task, error) {
	archives, files, err := c.skimArchives(ctx)
	if err != nil {
		return nil, err
	}
	var all []task
	for _, l := range archives {
		all = append(all, task{l.Descriptor.Size, func(ctx context.Context) error { return c.checkArchive(ctx, l, files) }})
	}
	for _, l := range c.m.layers {
		if l.Archive {
			continue
		}
		c.expect(l.Path, tarFile)
		all = append(all, task{l.Descriptor.Size, func(ctx context.Context) error { return c.checkFile(ctx, l) }})
	}
	slices.SortStableFunc(all, func(a, b task) int { return cmp.Compare(b.size, a.size) })
	return all, nil
}

// blind lists the archives whose files cannot be judged.
func (c *checker) blind() []digest.Digest {
	var all []digest.Digest
	for _, l := range c.m.layers {
		if !l.Archive {
			continue
		}
		if _, ok := c.m.contentDigest(l, c.config); !ok {
			all = append(all, l.Descriptor.Digest)
		}
	}
	return all
}

// expect accounts for a name and the directories above it.
func (c *checker) expect(name string, kind tarKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was := c.expected[name]; was != 0 && (was != kind || kind != tarDir) {
		// Two archives have the name. They had not when they were skimmed.
		c.diff.add(&c.diff.Changed, name)
	}
	c.expected[name] = kind
	d := path.Dir(name)
	for ; d != "." && c.expected[d] == 0; d = path.Dir(d) {
		c.expected[d] = tarDir
	}
	if d != "." && c.expected[d] != tarDir {
		c.diff.add(&c.diff.Changed, d)
	}
}

func (c *checker) changed(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.diff.add(&c.diff.Changed, name)
}

func (c *checker) missing(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.diff.add(&c.diff.Missing, name)
}

func (c *checker) counted(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files++
	c.size += size
}

// open opens a file that should be there with size bytes. It returns nil and no
// error when it noted a difference; what stands in a file's place and is no file
// is noted by findExtra.
func (c *checker) open(name string, size int64) (*os.File, error) {
	info, err := c.lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.missing(name)
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, nil
	case info.Size() != size:
		c.changed(name)
		return nil, nil
	}
	f, _, err := rootfile.OpenPlain(c.root, name, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", name, err)
	}
	return f, nil
}

// lstat is Lstat for a name below real directories. Below a link that stands in
// a directory's place nothing of the model is there, wherever the link leads.
func (c *checker) lstat(name string) (fs.FileInfo, error) {
	for i, r := range name {
		if r != '/' {
			continue
		}
		info, err := c.root.Lstat(name[:i])
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, fs.ErrNotExist
		}
	}
	return c.root.Lstat(name)
}

// checkFile hashes the file of a raw layer.
func (c *checker) checkFile(ctx context.Context, l Layer) error {
	c.progress.Start(l.Path, l.Descriptor.Size)
	defer c.progress.Done(l.Path)
	f, err := c.open(l.Path, l.Descriptor.Size)
	if f == nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := c.hash(ctx, l.Path, io.LimitReader(f, l.Descriptor.Size+1), sum)
	if err != nil {
		return fmt.Errorf("check %s: %w", l.Path, err)
	}
	if n != l.Descriptor.Size || digest.NewDigest(digest.SHA256, sum) != l.Descriptor.Digest {
		c.changed(l.Path)
		return nil
	}
	c.counted(n)
	return nil
}

func (c *checker) hash(ctx context.Context, name string, r io.Reader, sum hash.Hash) (int64, error) {
	stream := c.hashing.Stream(sum)
	defer stream.Close()
	var total int64
	for {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		buffer := stream.Buffer()
		n, err := r.Read(*buffer)
		stream.Write(buffer, n, nil)
		total += int64(n)
		c.progress.Add(name, int64(n))
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// findExtra walks the directory for what nothing accounts for.
func (c *checker) findExtra() error {
	return walkRoot(c.root, func(name string, d fs.DirEntry) error {
		if evidenceNames().MatchString(name) && (d.IsDir() || d.Type().IsRegular()) {
			return nil
		}
		kind := c.expected[name]
		switch {
		case d.IsDir():
			if kind == tarDir {
				return nil
			}
			c.diff.add(&c.diff.Extra, name+"/")
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0:
			if kind != tarSymlink {
				c.diff.add(&c.diff.Links, name)
			}
		case !d.Type().IsRegular(), kind != tarFile:
			c.diff.add(&c.diff.Extra, name)
		}
		return nil
	})
}
