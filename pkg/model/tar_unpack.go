// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"runtime"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// maxUnpacking bounds the archives that are unpacked at once: their buffers are the
// memory that it takes.
const maxUnpacking = 8

// archive is one on its way into the tree.
type archive struct {
	Layer
	names *tarNames
	// part is what it brings into the tree.
	part *tree
	// checkable reports that its files can be checked again without it.
	checkable bool
	// done is closed when all of it is in the tree.
	done chan struct{}
}

// assembleArchives unpacks the archives, whose blobs were checked before, into
// the tree, on as many cores as there are. moved says which blobs have become files
// already.
func (u *unpacking) assembleArchives(ctx context.Context, s *site, t *tree, moved map[string]string) error {
	names, err := u.whole.only(u.wanted).newModelNames()
	if err != nil {
		return err
	}
	if err := u.readConfig(s, moved); err != nil {
		return err
	}
	var all []*archive
	for _, l := range u.m.layers {
		if l.Archive {
			a := &archive{Layer: l, part: &tree{root: t.root, dirs: make(map[string]bool), drop: t.drop}, done: make(chan struct{})}
			all = append(all, a)
		}
	}
	if err := u.unpackEach(ctx, s, all, names, moved); err != nil {
		return err
	}
	var blind []digest.Digest
	for _, a := range all {
		t.add(a.part)
		if !a.checkable {
			blind = append(blind, a.Descriptor.Digest)
		}
	}
	if len(blind) > 0 && !u.verified.IsZero() {
		u.o.Warn((&UncheckableError{Dir: s.dst, Layers: blind}).Error())
	}
	return nil
}

// unpackEach begins the archives in the manifest's order, so that what one waits for
// has begun. Each has its buffers and a window, and all windows are no more than the
// largest that one may have.
func (u *unpacking) unpackEach(ctx context.Context, s *site, all []*archive, names *modelNames, moved map[string]string) error {
	hashes := newHashes()
	windows := semaphore.NewWeighted(maxZstdWindow)
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), maxUnpacking))
	for i, a := range all {
		a.names = newTarNames(names, func(name string) (bool, error) { return fileOf(within, all[:i], name) })
		f, window, err := a.open(s, moved)
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		if windows.Acquire(within, window) != nil {
			f.Close()
			break
		}
		g.Go(func() error {
			defer windows.Release(window)
			defer f.Close()
			return u.assembleArchive(within, s, a, f, hashes)
		})
	}
	return cmp.Or(g.Wait(), context.Cause(ctx))
}

// fileOf reports whether a regular file of one of these archives has the name, which a
// hard link may be a copy of when the whole archive is there.
func fileOf(ctx context.Context, archives []*archive, name string) (bool, error) {
	for _, a := range archives {
		select {
		case <-a.done:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		if a.names.files[name] {
			return true, nil
		}
	}
	return false, nil
}

// open opens the staged blob, and says how much memory it takes to decompress it.
func (a *archive) open(s *site, moved map[string]string) (*os.File, int64, error) {
	name := blobFile(a.Descriptor.Digest)
	if to, ok := moved[name]; ok {
		name = treeDir + "/" + to
	}
	f, _, err := rootfile.OpenPlain(s.root, name, os.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	return f, a.window(f), nil
}

// add takes in what an archive brought into the same root.
func (t *tree) add(part *tree) {
	maps.Copy(t.dirs, part.dirs)
	t.names = append(t.names, part.names...)
	t.files += part.files
	t.size += part.size
}

// readConfig takes the checked config blob along.
func (u *unpacking) readConfig(s *site, moved map[string]string) error {
	name := blobFile(u.m.config.Digest)
	if to, ok := moved[name]; ok {
		name = treeDir + "/" + to
	}
	if !u.m.hasModelConfig() || !u.m.compressed() {
		return nil
	}
	config, err := readSmall(s.root, name, maxConfigSize)
	if err != nil {
		return fmt.Errorf("read the config: %w", err)
	}
	u.config = config
	return nil
}

func (m Manifest) compressed() bool {
	for _, l := range m.layers {
		if l.Compression != compressionNone {
			return true
		}
	}
	return false
}

// assembleArchive unpacks one archive from its staged blob f.
func (u *unpacking) assembleArchive(ctx context.Context, s *site, a *archive, f *os.File, hashes *hashing.Group) error {
	l := a.Layer
	free, err := freeSpace(s.stagingPath())
	if err != nil {
		return err
	}
	stream, err := decompress(l, bufio.NewReaderSize(ownReader{f}, bufferSize))
	if err != nil {
		return err
	}
	defer stream.Close()
	want, checkable := u.m.contentDigest(l, u.config)
	skeleton, err := u.createSkeleton(a.part, l, checkable)
	if err != nil {
		return err
	}
	ahead := newReadAhead(hashes, stream)
	rec := newTarRecorder(ahead, l, skeleton.writer())
	limit := u.expansion(l)
	if l.Compression == compressionNone {
		rec.expandTo(l.Descriptor.Size, limit, free, s.dst)
	} else {
		rec.expandTo(limit, limit, free, s.dst)
	}
	err = walkTar(rec, l.Descriptor.Digest, a.names, func(e tarEntry, content io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return a.part.unpackEntry(e, rec, content)
	})
	ahead.close()
	if err = errors.Join(err, skeleton.close()); err != nil {
		return fmt.Errorf("unpack %s: %w", l.name(), err)
	}
	if got := ahead.digest(); checkable && got != want {
		return &ContentError{Path: l.name(), Want: want, Got: got, Reason: "the uncompressed archive is not the one that the manifest names"}
	}
	a.checkable = checkable
	close(a.done)
	return nil
}

// expansion is how many bytes a layer may expand to.
func (u *unpacking) expansion(l Layer) int64 {
	if u.o.MaxExpansion > 0 {
		return u.o.MaxExpansion
	}
	if l.Descriptor.Size > (math.MaxInt64-expansionBase)/expansionFactor {
		return math.MaxInt64
	}
	return l.Descriptor.Size*expansionFactor + expansionBase
}

// unpackEntry makes one entry in the tree.
func (t *tree) unpackEntry(e tarEntry, rec *tarRecorder, content io.Reader) error {
	if e.kind == tarDir {
		return makeDirs(t.root, e.path, t.dirs)
	}
	if err := makeDirs(t.root, path.Dir(e.path), t.dirs); err != nil {
		return err
	}
	t.names = append(t.names, e.path)
	t.files++
	switch e.kind {
	case tarSymlink:
		return t.root.Symlink(e.target, e.path)
	case tarHardlink:
		return t.copyLinked(e, rec)
	}
	t.size += e.size
	f, err := t.root.OpenFile(e.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	var w io.Writer = f
	// What an archive says beyond its bounds is not reserved: it ends with them.
	if e.size >= writeWindow && e.size <= rec.left {
		if w, err = newStagedWriter(f, 0, e.size, t.drop); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	rec.content = true
	_, err = io.CopyN(ownWriter{w}, content, e.size)
	rec.content = false
	if err != nil {
		return errors.Join(tarReadError(rec.layer, err), f.Close())
	}
	return finish(f, e.executable, t.drop)
}

// ownReader keeps a disk that cannot be read from passing for an archive that is
// malformed.
type ownReader struct{ r io.Reader }

func (o ownReader) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err != nil && err != io.EOF {
		err = &contentReadError{err}
	}
	return n, err
}

// ownWriter keeps a disk that cannot take more from passing for an archive that is
// malformed.
type ownWriter struct{ w io.Writer }

func (o ownWriter) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		err = &contentReadError{err}
	}
	return n, err
}

// copyLinked unpacks a hard link as a file of its own. An entry of 512 bytes thus
// writes any number of them, which counts as expansion.
func (t *tree) copyLinked(e tarEntry, rec *tarRecorder) error {
	info, err := t.root.Lstat(e.target)
	if err != nil {
		return err
	}
	if rec.copies -= info.Size(); rec.copies < 0 {
		return rec.tooMany
	}
	t.size += info.Size()
	return t.copyFile(e.target, e.path, info.Mode()&0o100 != 0)
}

// skeletonFile is where the skeleton of one archive is kept; nil when it is not.
type skeletonFile struct {
	f *os.File
	w *bufio.Writer
}

func skeletonName(l Layer) string { return fmt.Sprintf("%s/%d.skeleton", layersDir, l.index) }

func (u *unpacking) createSkeleton(t *tree, l Layer, checkable bool) (*skeletonFile, error) {
	if u.verified.IsZero() || !checkable {
		return nil, nil
	}
	if err := makeDirs(t.root, layersDir, t.dirs); err != nil {
		return nil, err
	}
	name := skeletonName(l)
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	t.names = append(t.names, name)
	return &skeletonFile{f: f, w: bufio.NewWriter(f)}, nil
}

func (s *skeletonFile) writer() io.Writer {
	if s == nil {
		return nil
	}
	return s.w
}

func (s *skeletonFile) close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.w.Flush(), finish(s.f, false, false))
}
