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

	pieces  bool   // it is staged in
	literal uint64 // of them
}

// opened is the staged blob of an archive, checked.
type opened struct {
	file   *os.File // nil for one in pieces
	joined *joined
	window int64 // of memory, to decompress it
}

func (o opened) close() error {
	if o.file != nil {
		return o.file.Close()
	}
	return errors.Join(o.joined.close(), o.joined.p.close())
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
	pieces := inPieces(u.blobs())
	for _, l := range u.m.layers {
		if l.Archive {
			all = append(all, &archive{
				Layer: l, pieces: pieces[l.Descriptor.Digest], literal: u.literals[l.Descriptor.Digest], done: make(chan struct{}),
				part: &tree{root: t.root, dirs: make(map[string]bool), drop: t.drop},
			})
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
// has begun. Each has its buffers and a window, and all windows, as they are announced,
// are no more than the largest that one may have.
func (u *unpacking) unpackEach(ctx context.Context, s *site, all []*archive, names *modelNames, moved map[string]string) error {
	hashes := newHashes()
	windows := semaphore.NewWeighted(maxZstdWindow)
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), maxUnpacking))
	for i, a := range all {
		a.names = newTarNames(names, func(name string) (bool, error) { return fileOf(within, all[:i], name) })
		from, err := a.open(s, moved)
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		if windows.Acquire(within, from.window) != nil {
			_ = from.close() // only read
			break
		}
		g.Go(func() error {
			defer windows.Release(from.window)
			err := u.assembleArchive(within, s, a, from, hashes)
			return errors.Join(err, from.close())
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

func (a *archive) open(s *site, moved map[string]string) (opened, error) {
	if a.pieces {
		p, err := openPieces(s, a.Descriptor, false)
		if err != nil {
			return opened{}, err
		}
		j, err := p.join(a.literal)
		if err != nil {
			return opened{}, errors.Join(err, p.close())
		}
		return opened{joined: j}, nil
	}
	name := blobFile(a.Descriptor.Digest)
	if to, ok := moved[name]; ok {
		name = treeDir + "/" + to
	}
	f, _, err := rootfile.OpenPlain(s.root, name, os.O_RDONLY)
	if err != nil {
		return opened{}, err
	}
	return opened{file: f, window: a.window(f)}, nil
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

// assembleArchive unpacks one archive.
func (u *unpacking) assembleArchive(ctx context.Context, s *site, a *archive, from opened, hashes *hashing.Group) error {
	l := a.Layer
	free, err := freeSpace(s.stagingPath())
	if err != nil {
		return err
	}
	stream, end, err := from.read(l, hashes)
	if err != nil {
		return err
	}
	want, checkable := u.m.contentDigest(l, u.config)
	skeleton, err := u.createSkeleton(a.part, l, checkable)
	if err != nil {
		end()
		return err
	}
	if from.joined != nil {
		a.part.take = from.joined.taker(s, a.part)
	}
	rec := newTarRecorder(stream, l, skeleton.writer())
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
	got := end()
	if from.joined != nil {
		err = from.joined.judged(ctx, err)
	}
	if err = errors.Join(err, skeleton.close()); err != nil {
		return fmt.Errorf("unpack %s: %w", l.name(), err)
	}
	if checkable && got != want {
		return &ContentError{Path: l.name(), Want: want, Got: got, Reason: "the uncompressed archive is not the one that the manifest names"}
	}
	a.checkable = checkable
	close(a.done)
	return nil
}

// read reads what is unpacked. end has to be called, and returns the digest of all that
// was read, to its end: the pieces were hashed when they came, as other files are, and the
// rest is what was decompressed.
func (o opened) read(l Layer, hashes *hashing.Group) (r io.Reader, end func() digest.Digest, err error) {
	if o.joined != nil {
		return o.joined, func() digest.Digest { return l.Descriptor.Digest }, nil
	}
	stream, err := decompress(l, bufio.NewReaderSize(ownReader{o.file}, bufferSize))
	if err != nil {
		return nil, nil, err
	}
	ahead := newReadAhead(hashes, stream)
	return ahead, func() digest.Digest {
		ahead.close()
		_ = stream.Close() // a decompressor's
		return ahead.digest()
	}, nil
}

// taker gives a piece a name in the tree. It keeps the one that it has in staging: an
// interrupted run has lost nothing, then.
func (j *joined) taker(s *site, t *tree) func(tarEntry, *tarRecorder, io.Reader) (bool, error) {
	return func(e tarEntry, rec *tarRecorder, content io.Reader) (bool, error) {
		name := j.piece(e.size)
		if name == "" {
			return false, nil
		}
		if err := s.root.Link(name, treeDir+"/"+e.path); err != nil {
			return false, err
		}
		rec.left += e.size // it takes no space
		rec.content, j.passing = true, true
		_, err := io.CopyN(io.Discard, content, e.size)
		rec.content, j.passing = false, false
		if err != nil {
			return false, err
		}
		f, _, err := rootfile.OpenPlain(t.root, e.path, os.O_RDWR)
		if err != nil {
			return false, err
		}
		return true, finish(f, e.executable, t.drop)
	}
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
	if t.take != nil {
		if taken, err := t.take(e, rec, content); err != nil || taken {
			return err
		}
	}
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
