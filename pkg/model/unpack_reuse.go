// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// findOld looks for wanted blobs among the files of the model that is about to be
// replaced. Its manifest only says where to look: nobody verified it here, and
// each file is hashed before it counts.
func (u *unpacking) findOld(s *site, blobs []blob) map[digest.Digest]string {
	found := make(map[digest.Digest]string)
	if u.old == nil {
		return found
	}
	subject, err := signature.SubjectOf(u.old.mediaType, u.old.manifest)
	if err != nil {
		return found
	}
	m, err := DecodeUnverified(subject, u.old.manifest)
	if err != nil {
		return found
	}
	at, archives := make(map[digest.Digest]string), make(map[digest.Digest]Layer)
	for _, l := range m.layers {
		if l.Archive {
			archives[l.Descriptor.Digest] = l
		} else {
			at[l.Descriptor.Digest] = l.Path
		}
	}
	u.oldArchives = make(map[digest.Digest]Layer)
	for _, b := range blobs {
		if l, ok := archives[b.desc.Digest]; ok && b.pieces && l.Compression == compressionNone {
			u.oldArchives[b.desc.Digest] = l
		}
		name, ok := at[b.desc.Digest]
		if !ok || b.desc.Size == 0 || b.pieces {
			continue
		}
		if info, err := s.base.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == b.desc.Size {
			found[b.desc.Digest] = name
		}
	}
	return found
}

// reuse makes the staged file out of one of the replaced model, if its content is
// the wanted one. It reports whether it did; an error is one of writing.
func (t *transfer) reuse(ctx context.Context, s *site, f *os.File) (bool, error) {
	src, info, err := rootfile.OpenPlain(s.base, t.old, os.O_RDONLY)
	if err != nil || info.Size() != t.desc.Size {
		if err == nil {
			src.Close()
		}
		return false, nil
	}
	defer src.Close()
	same, err := t.takeOver(ctx, src, f)
	if isUnread(err) {
		t.warn(fmt.Sprintf("fetching %s, the old file cannot be read: %v", t.name, err))
		same, err = false, nil
	}
	if err != nil {
		return false, fmt.Errorf("copy %s: %w", filepath.Join(s.dst, t.old), err)
	}
	if !same {
		t.show(0)
		return false, nil
	}
	t.reused = t.desc.Size
	return true, t.forget(src)
}

// forget takes a file that was read out of the page cache, if that is wanted.
func (t *transfer) forget(f *os.File) error {
	if !t.drop {
		return nil
	}
	return dropCache(f, 0, 0)
}

// takeOver makes f out of src, which has the blob's size, and reports whether that
// is the blob. What f has of an interrupted download is kept until that is known; when
// src turns out to be something else after that, f is empty.
func (t *transfer) takeOver(ctx context.Context, src, f *os.File) (same bool, err error) {
	if info, err := f.Stat(); err != nil {
		return false, err
	} else if info.Size() > 0 {
		same, err := t.isBlob(ctx, src)
		if err != nil {
			return false, err
		}
		if t.show(0); !same {
			return false, nil
		}
		if _, err := src.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
	}
	if err := f.Truncate(0); err != nil {
		return false, err
	}
	sum := sha256.New()
	if err := t.copyOver(ctx, src, f, sum); err != nil {
		if isUnread(err) {
			err = errors.Join(err, f.Truncate(0))
		}
		return false, err
	}
	if digest.NewDigest(digest.SHA256, sum) == t.desc.Digest {
		// A clone has all of src, whose owner may have added to it since it was looked at.
		return true, f.Truncate(t.desc.Size)
	}
	return false, f.Truncate(0)
}

// tryClone is cloneFile but in tests, whose file systems cannot.
var tryClone = cloneFile

// copyOver copies src to f, which is empty, and hashes it.
func (t *transfer) copyOver(ctx context.Context, src, f *os.File, sum hash.Hash) error {
	// A clone shares the old file's blocks until one of them is written. What it
	// holds can no longer change with the old file, so the clone is what is hashed.
	cloned := tryClone(f, src) == nil
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if cloned {
		_, err := t.pump(ctx, localReader{io.LimitReader(f, t.desc.Size)}, nil, sum)
		return err
	}
	w, err := newStagedWriter(f, 0, t.desc.Size, t.drop)
	if err != nil {
		return err
	}
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	_, err = t.pump(reading, localReader{io.LimitReader(src, t.desc.Size)}, newBehind(w, cancel, nil), sum)
	return err
}

// unreadError is one of reading a file that would have spared a fetch.
type unreadError struct{ error }

func (e unreadError) Unwrap() error { return e.error }

func isUnread(err error) bool {
	var unread unreadError
	return errors.As(err, &unread)
}

// localReader tells errors of reading from those of writing.
type localReader struct{ io.Reader }

func (r localReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = unreadError{err}
	}
	return n, err
}

// isBlob reads a file of the blob's size and reports whether that is the blob.
func (t *transfer) isBlob(ctx context.Context, f *os.File) (bool, error) {
	sum := sha256.New()
	_, err := t.pump(ctx, localReader{io.LimitReader(f, t.desc.Size)}, nil, sum)
	return err == nil && digest.NewDigest(digest.SHA256, sum) == t.desc.Digest, err
}

// clones tries whether a copy of an old file shares its blocks, and takes no space.
func clones(s *site, old string) bool {
	src, _, err := rootfile.OpenPlain(s.base, old, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer src.Close()
	return s.clones(src)
}

// clones tries whether a staged copy of src shares its blocks.
func (s *site) clones(src *os.File) bool {
	const trial = "clone"
	f, err := s.root.OpenFile(trial, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return false
	}
	err = tryClone(f, src)
	f.Close()
	return s.root.Remove(trial) == nil && err == nil
}

// link gives the old file itself a staged name, if its content is the wanted one.
// The old name goes when the model is placed. It reports whether it did.
func (t *transfer) link(ctx context.Context, s *site) (bool, error) {
	if err := dropLink(s, t.old, t.file()); err != nil {
		return false, err
	}
	src, info, err := rootfile.OpenPlain(s.base, t.old, os.O_RDONLY)
	if err != nil {
		return false, nil
	}
	defer src.Close()
	// With a further name, somebody could write to it after the check.
	if !rootfile.OwnedByUs(info) || rootfile.LinkCount(info) != 1 || info.Size() != t.desc.Size {
		return false, nil
	}
	same, err := t.isBlob(ctx, src)
	if err != nil && !isUnread(err) {
		return false, fmt.Errorf("hash %s: %w", filepath.Join(s.dst, t.old), err)
	}
	to := s.staging + "/" + t.file()
	if same {
		if err := s.root.RemoveAll(t.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if s.base.Link(t.old, to) == nil {
			if linked, err := s.base.Lstat(to); err == nil && os.SameFile(info, linked) {
				t.reused = t.desc.Size
				return true, t.forget(src)
			}
			if err := s.base.Remove(to); err != nil {
				return false, err
			}
		}
	}
	t.show(0)
	return false, nil
}

// dropLink removes the staged name that an interrupted run has given to old.
func dropLink(s *site, old, staged string) error {
	before, err := s.base.Lstat(old)
	if err != nil {
		return nil // nothing to link
	}
	if linked, err := s.root.Lstat(staged); err == nil && os.SameFile(before, linked) {
		return s.root.Remove(staged)
	}
	return nil
}
