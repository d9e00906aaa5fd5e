// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// skimArchives takes the names out of all archives, in the manifest's order, by which
// they depend on one another, and reads no content. It returns the archives whose files
// can be compared, and the names of all their files.
func (c *checker) skimArchives(ctx context.Context) ([]Layer, map[string]bool, error) {
	model, err := c.m.newModelNames()
	if err != nil {
		return nil, nil, err
	}
	names := newTarNames(model, nil)
	if info, err := c.root.Lstat(layersDir); err == nil && !info.IsDir() && slices.ContainsFunc(c.m.layers, func(l Layer) bool { return l.Archive }) {
		// A link, too: what it leads to is not what we wrote.
		c.changed(layersDir)
		return nil, nil, nil
	}
	var whole []Layer
	for _, l := range c.m.layers {
		if !l.Archive {
			continue
		}
		f, err := c.skeleton(l)
		if err != nil {
			return nil, nil, err
		}
		if f == nil {
			continue
		}
		var seen []tarEntry
		s := &skimmer{skeleton: bufio.NewReader(io.LimitReader(f, maxSkeleton))}
		err = walkTar(s, l.Descriptor.Digest, names, func(e tarEntry, _ io.Reader) error {
			if ctx.Err() != nil {
				return &contentReadError{context.Cause(ctx)}
			}
			seen = append(seen, e)
			if e.kind == tarFile {
				s.content = e.size
			}
			return nil
		})
		f.Close()
		var own *contentReadError
		switch {
		case errors.As(err, &own):
			return nil, nil, own.err
		case err != nil:
			// The skeleton is not what we wrote. What it names is not too much besides.
			c.changed(skeletonName(l))
			for _, e := range seen {
				c.expectEntry(e)
			}
		default:
			whole = append(whole, l)
		}
	}
	return whole, names.files, nil
}

// skeleton opens the skeleton of an archive. It is nil when that is missing or no file,
// which is noted.
func (c *checker) skeleton(l Layer) (*os.File, error) {
	name := skeletonName(l)
	info, err := c.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.missing(name)
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		c.changed(name)
		return nil, nil
	}
	f, _, err := rootfile.OpenPlain(c.root, name, os.O_RDONLY)
	return f, err
}

// checkArchive rebuilds an archive from its skeleton and the files on disk and compares
// the digest. others are the files of all archives: that hard links name earlier ones,
// and no name comes twice, was seen to when they were skimmed.
func (c *checker) checkArchive(ctx context.Context, l Layer, others map[string]bool) error {
	want, _ := c.m.contentDigest(l, c.config)
	f, err := c.skeleton(l)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	c.progress.Start(l.name(), l.Descriptor.Size)
	defer c.progress.Done(l.name())
	a := &archiveCheck{
		checker: c,
		layer:   l.name(),
		stream:  &tarRebuilder{skeleton: bufio.NewReader(io.LimitReader(f, maxSkeleton)), sum: sha256.New()},
	}
	names := newTarNames(&modelNames{}, func(name string) (bool, error) { return others[name], nil })
	err = walkTar(a.stream, l.Descriptor.Digest, names, func(e tarEntry, content io.Reader) error {
		if ctx.Err() != nil {
			return &contentReadError{context.Cause(ctx)}
		}
		return a.entry(ctx, e, content)
	})
	var own *contentReadError
	if errors.As(err, &own) {
		return own.err
	}
	if err != nil {
		// The skeleton is not what we wrote, or a file changed while it was read.
		c.changed(skeletonName(l))
		return nil
	}
	if !a.differs && a.stream.digest() != want {
		c.changed(a.suspects(l))
	}
	return nil
}

// archiveCheck is one archive on its way back.
type archiveCheck struct {
	*checker
	layer   string
	stream  *tarRebuilder
	differs bool // noted already
	first   string
	files   int
}

// suspects names what may have changed when only the whole is known to differ.
func (a *archiveCheck) suspects(l Layer) string {
	if a.files <= 1 && a.first != "" {
		return a.first
	}
	return fmt.Sprintf("one of the %d files of %s, the first of which is %q", a.files, l.name(), a.first)
}

func (c *checker) expectEntry(e tarEntry) {
	kind := e.kind
	if kind == tarHardlink {
		kind = tarFile
	}
	c.expect(e.path, kind)
}

// entry compares one entry with the disk; the content of a file is only hashed
// into the whole.
func (a *archiveCheck) entry(ctx context.Context, e tarEntry, content io.Reader) error {
	// From what is hashed, and not from what was skimmed: that could be another file.
	a.expectEntry(e)
	switch e.kind {
	case tarDir:
		return a.directory(e.path)
	case tarSymlink:
		return a.symlink(e)
	case tarHardlink:
		return a.hardlink(e)
	}
	if a.files++; a.first == "" {
		a.first = e.path
	}
	f, err := a.open(e.path, e.size)
	if err != nil {
		return &contentReadError{err}
	}
	a.stream.content = zeros{ctx}
	if f == nil {
		// The rest of the archive is still walked, for its names.
		a.differs = true
	} else {
		defer f.Close()
		a.stream.content = f
	}
	n, err := io.CopyN(io.Discard, content, e.size)
	a.progress.Add(a.layer, n)
	a.stream.content = nil
	if err != nil {
		return err
	}
	if f != nil {
		a.counted(n)
	}
	return nil
}

func (a *archiveCheck) directory(name string) error {
	_, err := a.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		a.missing(name + "/")
		a.differs = true
		return nil
	}
	if err != nil {
		return &contentReadError{err}
	}
	return nil
}

func (a *archiveCheck) symlink(e tarEntry) error {
	_, err := a.lstat(e.path)
	if errors.Is(err, fs.ErrNotExist) {
		a.missing(e.path)
		a.differs = true
		return nil
	}
	if err != nil {
		return &contentReadError{err}
	}
	target, err := a.root.Readlink(e.path)
	if err != nil || target != e.target {
		a.changed(e.path)
		a.differs = true
		return nil
	}
	a.counted(0)
	return nil
}

// hardlink compares a file with the one that the archive links it to.
func (a *archiveCheck) hardlink(e tarEntry) error {
	info, err := a.lstat(e.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // noted as missing by itself
	}
	if err != nil {
		return &contentReadError{err}
	}
	want, err := a.open(e.target, info.Size())
	if err != nil {
		return &contentReadError{err}
	}
	if want == nil {
		return nil
	}
	defer want.Close()
	got, err := a.open(e.path, info.Size())
	if err != nil {
		return &contentReadError{err}
	}
	if got == nil {
		a.differs = true
		return nil
	}
	defer got.Close()
	sums := [2]string{}
	for i, f := range []*os.File{want, got} {
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return &contentReadError{err}
		}
		sums[i] = string(sum.Sum(nil))
	}
	if sums[0] != sums[1] {
		a.changed(e.path)
		a.differs = true
		return nil
	}
	a.counted(info.Size())
	return nil
}

// zeros stands in for a file that is not there.
type zeros struct{ ctx context.Context }

// Read ends with the context: nothing else bounds what a skeleton says of a size.
func (z zeros) Read(p []byte) (int, error) {
	if z.ctx.Err() != nil {
		return 0, &contentReadError{context.Cause(z.ctx)}
	}
	clear(p)
	return len(p), nil
}
