// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// FetchManifest returns the bytes of a manifest, checked against the descriptor's
// digest and size.
func (l *Layout) FetchManifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return l.fetch(ctx, "fetch manifest", desc, signature.MaxManifestSize)
}

// FetchBlob returns a small blob whole, checked against the descriptor's digest and
// size. One of more than limit bytes is not read.
func (l *Layout) FetchBlob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	return l.fetch(ctx, "fetch blob", desc, limit)
}

func (l *Layout) fetch(ctx context.Context, op string, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	about := l.path + "@" + desc.Digest.String()
	if !usable(desc) {
		return nil, newError(op, about, Malformed, "its descriptor cannot be used")
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", op, about, context.Cause(ctx))
	}
	if desc.Size > limit {
		return nil, newError(op, about, TooLarge, "its descriptor says %d bytes, at most %d are read", desc.Size, limit)
	}
	b, err := l.read(op, about, named(desc.Digest), desc.Size)
	if isKind(err, TooLarge) {
		return nil, newError(op, about, Corrupt, "more than the %d bytes that its descriptor says", desc.Size)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != desc.Size || digest.FromBytes(b) != desc.Digest {
		return nil, newError(op, about, Corrupt, "the %d bytes are %s", len(b), digest.FromBytes(b))
	}
	return b, nil
}

// OpenBlob returns a blob's bytes from offset on, unverified: the caller hashes
// them. A file of another size than the descriptor says is Kind Corrupt.
func (l *Layout) OpenBlob(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	const op = "fetch blob"
	about := l.path + "@" + desc.Digest.String()
	if !usable(desc) || offset < 0 || offset > desc.Size {
		return nil, newError(op, about, Malformed, "its descriptor cannot be used")
	}
	f, size, err := l.store.open(named(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newError(op, about, NotFound, "the layout does not have it")
	}
	if err != nil {
		return nil, asError(op, about, err)
	}
	if size != desc.Size {
		f.Close()
		return nil, newError(op, about, Corrupt, "it has %d bytes, its descriptor says %d", size, desc.Size)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %s: %w", op, about, err)
	}
	return f, nil
}

// BlobExists reports whether the layout has a file of this digest and size. One of
// another size is as good as none. It is not read.
func (l *Layout) BlobExists(_ context.Context, desc ocispec.Descriptor) (bool, error) {
	const op = "look up blob"
	about := l.path + "@" + desc.Digest.String()
	if !usable(desc) {
		return false, newError(op, about, Malformed, "its descriptor cannot be used")
	}
	f, size, err := l.store.open(named(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, asError(op, about, err)
	}
	f.Close()
	return size == desc.Size, nil
}

// PushBlob stores a blob unless the layout has it, and reports whether it did. A file
// that is there is read first: a medium that has spoilt it is not relied on, and it is
// replaced. The content is hashed while it is written: when it is not what desc says,
// nothing appears under its name and the error is of Kind Corrupt.
func (l *Layout) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) (bool, error) {
	const op = "push blob"
	about := l.path + "@" + desc.Digest.String()
	if !usable(desc) {
		return false, newError(op, about, Malformed, "its descriptor cannot be used")
	}
	m := l.only(desc.Digest)
	defer m.Unlock()
	there, err := l.BlobExists(ctx, desc)
	if err == nil && there && !m.whole {
		there, err = l.isRight(ctx, desc)
	}
	if err != nil || there {
		m.whole = there
		return false, err
	}
	err = l.store.put(desc, func(w io.Writer) error {
		content, err := open()
		if err != nil {
			return fmt.Errorf("%s %s: %w", op, about, err)
		}
		defer content.Close()
		return copyChecked(ctx, w, content, op, about, desc)
	})
	m.whole = err == nil
	return err == nil, err
}

// isRight reads a blob that is there.
func (l *Layout) isRight(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	const op = "check blob"
	content, err := l.OpenBlob(ctx, desc, 0)
	if err != nil {
		return false, err
	}
	defer content.Close()
	err = copyChecked(ctx, io.Discard, content, op, l.path+"@"+desc.Digest.String(), desc)
	if err != nil && ctx.Err() != nil {
		return false, err
	}
	// One that cannot be read is as bad as one that is wrong.
	return err == nil, nil
}

// only lets one writer of a digest through at a time: a second finds it there. It is
// unlocked by the caller.
func (l *Layout) only(d digest.Digest) *writing {
	l.mu.Lock()
	m := l.writing[d]
	if m == nil {
		m = &writing{}
		l.writing[d] = m
	}
	l.mu.Unlock()
	m.Lock()
	return m
}

const copyBuffer = 1 << 20

func copyChecked(ctx context.Context, w io.Writer, content io.Reader, op, about string, desc ocispec.Descriptor) error {
	h := sha256.New()
	buf := make([]byte, min(copyBuffer, desc.Size+1))
	left := desc.Size
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("%s %s: %w", op, about, context.Cause(ctx))
		}
		n, err := content.Read(buf)
		if left -= int64(n); left < 0 {
			return newError(op, about, Corrupt, "it is longer than %d bytes", desc.Size)
		}
		h.Write(buf[:n])
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("%s %s: %w", op, about, err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", op, about, err)
		}
	}
	if left > 0 {
		return newError(op, about, Corrupt, "it is %d bytes shorter than its descriptor says", left)
	}
	if actual := digest.NewDigest(digest.SHA256, h); actual != desc.Digest {
		return newError(op, about, Corrupt, "the bytes are %s", actual)
	}
	return nil
}

// pushBytes is PushBlob for what is small. What is there is read: a file of the
// right size and other bytes would be named by what is written after this.
func (l *Layout) pushBytes(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
	const op = "push blob"
	defer l.only(desc.Digest).Unlock()
	_, err := l.fetch(ctx, op, desc, desc.Size)
	if !isKind(err, NotFound) && !isKind(err, Corrupt) {
		return err
	}
	return l.store.put(desc, func(w io.Writer) error {
		return copyChecked(ctx, w, bytes.NewReader(content), op, l.path+"@"+desc.Digest.String(), desc)
	})
}

// PushManifest stores a manifest under its digest and lists it; no tag is touched.
func (l *Layout) PushManifest(ctx context.Context, mediaType string, manifest []byte) (Pinned, error) {
	subject, err := signature.SubjectOf(mediaType, manifest)
	if err != nil {
		return Pinned{}, fmt.Errorf("push manifest to %s: %w", l.path, err)
	}
	if err := l.pushBytes(ctx, subject.Descriptor(), manifest); err != nil {
		return Pinned{}, err
	}
	if err := l.store.update(ctx, func(x *index) error { return x.add(subject.Descriptor()) }); err != nil {
		return Pinned{}, err
	}
	return Pinned{path: l.path, subject: subject, manifest: bytes.Clone(manifest)}, nil
}

// TagManifest gives p a tag, in one replacement of the index.
func (l *Layout) TagManifest(ctx context.Context, p Pinned, tag string) error {
	if p.subject.IsZero() || p.path != l.path {
		return fmt.Errorf("tag %s:%s: the manifest is not one of this layout", l.path, tag)
	}
	if err := CheckTag(tag); err != nil {
		return err
	}
	return l.store.update(ctx, func(x *index) error { return x.setTag(p.subject.Descriptor(), tag) })
}
