// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// assembleArchives unpacks the archives, whose blobs were checked before, into
// the tree. moved says which blobs have become files already.
func (u *unpacking) assembleArchives(ctx context.Context, s *site, t *tree, moved map[string]string) error {
	names, err := u.whole.only(u.wanted).newTarNames()
	if err != nil {
		return err
	}
	if err := u.readConfig(s, moved); err != nil {
		return err
	}
	var blind []digest.Digest
	for _, l := range u.m.layers {
		if !l.Archive {
			continue
		}
		from := treeDir + "/" + moved[blobFile(l.Descriptor.Digest)]
		if moved[blobFile(l.Descriptor.Digest)] == "" {
			from = blobFile(l.Descriptor.Digest)
		}
		checkable, err := u.assembleArchive(ctx, s, t, l, from, names)
		if err != nil {
			return err
		}
		if !checkable {
			blind = append(blind, l.Descriptor.Digest)
		}
	}
	if len(blind) > 0 && !u.verified.IsZero() {
		u.o.Warn((&UncheckableError{Dir: s.dst, Layers: blind}).Error())
	}
	return nil
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

// assembleArchive unpacks one archive from the staged file named from. It
// reports whether its files can be checked again without it.
func (u *unpacking) assembleArchive(ctx context.Context, s *site, t *tree, l Layer, from string, names *tarNames) (bool, error) {
	f, _, err := rootfile.OpenPlain(s.root, from, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	stream, err := decompress(l, bufio.NewReaderSize(f, bufferSize))
	if err != nil {
		return false, err
	}
	defer stream.Close()
	want, checkable := u.m.contentDigest(l, u.config)
	skeleton, err := u.createSkeleton(t, l, checkable)
	if err != nil {
		return false, err
	}
	rec := newTarRecorder(stream, l, skeleton.writer())
	free, err := freeSpace(s.stagingPath())
	if err != nil {
		return false, err
	}
	limit := u.expansion(l)
	if l.Compression == compressionNone {
		rec.expandTo(l.Descriptor.Size, limit, free, s.dst)
	} else {
		rec.expandTo(limit, limit, free, s.dst)
	}
	err = walkTar(rec, l.Descriptor.Digest, names, func(e tarEntry, content io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return t.unpackEntry(e, rec, content)
	})
	if err = errors.Join(err, skeleton.close()); err != nil {
		return false, fmt.Errorf("unpack %s: %w", l.name(), err)
	}
	if got := rec.digest(); checkable && got != want {
		return false, &ContentError{Path: l.name(), Want: want, Got: got, Reason: "the uncompressed archive is not the one that the manifest names"}
	}
	return checkable, nil
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
	rec.content = true
	_, err = io.CopyN(ownWriter{f}, content, e.size)
	rec.content = false
	if err != nil {
		return errors.Join(tarReadError(rec.layer, err), f.Close())
	}
	return finish(f, e.executable, t.drop)
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
