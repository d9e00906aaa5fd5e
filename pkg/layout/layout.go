// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// store is where a layout's files are.
type store interface {
	// open opens a member and tells its size; fs.ErrNotExist where there is none.
	open(name string) (io.ReadSeekCloser, int64, error)
	// writable fails where put and update would, whatever they were given.
	writable(ctx context.Context) error
	// put stores a blob under its digest once fill has written the right bytes.
	put(desc ocispec.Descriptor, fill func(io.Writer) error) error
	// update changes index.json; nobody else does meanwhile.
	update(ctx context.Context, change func(*index) error) error
	// commit makes what was written appear, where it does not yet.
	commit() error
	close() error
}

// Layout is one OCI image layout. It is safe for concurrent use.
type Layout struct {
	path  string
	store store

	mu      sync.Mutex
	writing map[digest.Digest]*writing

	known     reading
	surveying sync.Mutex // guards survey
	survey    *survey
}

// reading is the index as it was read last. Nobody changes it: where the bytes are the
// same, so is what comes of them.
type reading struct {
	sync.Mutex
	raw   []byte
	index *index
}

// writing is a blob that is being written, or was: whole says that it is known to be
// right.
type writing struct {
	sync.Mutex
	whole bool
}

// Open opens a layout that is there: a directory, or a tar file of one, which can
// only be read.
func Open(path string) (*Layout, error) {
	const op = "open layout"
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newError(op, path, NotFound, "there is no such file or directory")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	var s store
	if info.IsDir() {
		s = &dirStore{path: path}
	} else if s, err = openTar(path); err != nil {
		return nil, err
	}
	l := &Layout{path: path, store: s, writing: map[digest.Digest]*writing{}}
	if err := l.checkVersion(op); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Create opens a directory to write to, which may hold a layout or nothing or not
// be there, or a new tar file, for a path that ends in .tar. Nothing is written
// before the first blob is.
func Create(path string) (*Layout, error) {
	const op = "write layout"
	info, err := os.Stat(path)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if link, err := os.Lstat(path); !there && err == nil && link.Mode()&fs.ModeSymlink != 0 {
		// A tar could not take its name when all of it is written.
		return nil, &ReferenceError{Input: path, Reason: "it is a link that leads to nothing"}
	}
	l := &Layout{path: path, writing: map[digest.Digest]*writing{}}
	switch {
	case there && !info.IsDir():
		return nil, newError(op, path, ReadOnly, "name a file that is not there yet")
	case !there && strings.HasSuffix(path, ".tar"):
		l.store = &tarWriter{path: path, members: map[string]member{}}
		return l, nil
	}
	d := &dirStore{path: path}
	l.store = d
	if !there {
		return l, nil
	}
	holds, err := content(path)
	if err != nil {
		return nil, err
	}
	if holds == "" {
		return l, nil
	}
	err = l.checkVersion(op)
	if isKind(err, NotFound) {
		err = newError(op, path, NotEmpty, "it holds %s and is no layout", printable(holds))
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// content names something that a directory holds, besides what a volume brings along and
// what a copy beside this one has begun.
func content(path string) (string, error) {
	d, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(100)
		for _, n := range names {
			if n != "lost+found" && n != ".snapshot" && !strings.HasPrefix(n, ingestName) {
				return n, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
	}
}

// Writable refuses a layout that nothing can be added to: a tar, which is of Kind
// ReadOnly, or a directory that this process may not change.
func (l *Layout) Writable(ctx context.Context) error {
	if err := l.store.writable(ctx); err != nil {
		return asError("write layout", l.path, err)
	}
	return nil
}

// Commit makes a new tar appear under its name. A directory needs none.
func (l *Layout) Commit() error { return l.store.commit() }

// Close lets go of the files. A tar that was not committed vanishes.
func (l *Layout) Close() error { return l.store.close() }

// Name is the layout's path.
func (l *Layout) Name() string { return l.path }

// checkVersion reads the file oci-layout (image-spec 1.1, "oci-layout file").
func (l *Layout) checkVersion(op string) error {
	raw, err := l.read(op, l.path, ocispec.ImageLayoutFile, 4<<10)
	if isKind(err, NotFound) {
		return newError(op, l.path, NotFound, "it has no file %s", ocispec.ImageLayoutFile)
	}
	if err != nil {
		return err
	}
	var v ocispec.ImageLayout
	if json.Unmarshal(raw, &v) != nil || v.Version == "" {
		return newError(op, l.path, Malformed, "its file %s names no version", ocispec.ImageLayoutFile)
	}
	if major, _, _ := strings.Cut(v.Version, "."); major != "1" {
		return newError(op, l.path, Malformed, "its version is %s and 1.0.0 is known", printable(v.Version))
	}
	return nil
}

// read returns a member whole.
func (l *Layout) read(op, about, name string, limit int64) ([]byte, error) {
	f, size, err := l.store.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newError(op, about, NotFound, "%s is not there", name)
	}
	if err != nil {
		return nil, asError(op, about, err)
	}
	defer f.Close()
	if size > limit {
		return nil, newError(op, about, TooLarge, "%s has %d bytes, at most %d are read", name, size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", op, about, err)
	}
	if int64(len(b)) > limit {
		return nil, newError(op, about, TooLarge, "%s has more than %d bytes", name, limit)
	}
	return b, nil
}

func asError(op, about string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("%s %s: %w", op, about, err)
}

func isKind(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

// index reads index.json, which is not to be changed; a layout that does not exist yet
// has an empty one.
func (l *Layout) index(op, about string) (*index, error) {
	if t, ok := l.store.(*tarWriter); ok {
		return t.snapshot(), nil
	}
	raw, err := l.read(op, about, ocispec.ImageIndexFile, maxIndex)
	if isKind(err, NotFound) {
		return &index{}, nil
	}
	if err != nil {
		return nil, err
	}
	l.known.Lock()
	defer l.known.Unlock()
	if l.known.index != nil && bytes.Equal(l.known.raw, raw) {
		return l.known.index, nil
	}
	x, err := parseIndex(op, about, raw)
	if err == nil {
		l.known.raw, l.known.index = raw, x
	}
	return x, err
}

// Pinned is one manifest of one layout, from one resolve or one push: its bytes
// were read, and hashed, once. The zero Pinned names nothing.
type Pinned struct {
	path     string
	tag      string
	subject  signature.Subject
	manifest []byte
}

// Name is the layout's path.
func (p Pinned) Name() string { return p.path }

// Subject is the manifest as it is signed and verified.
func (p Pinned) Subject() signature.Subject { return p.subject }

// Manifest returns a copy of the manifest's bytes.
func (p Pinned) Manifest() []byte { return append([]byte(nil), p.manifest...) }

// Reference is "path@sha256:...".
func (p Pinned) Reference() string { return p.path + "@" + p.subject.Digest().String() }

// Tag is the tag that was resolved, "" when the manifest was named by digest.
func (p Pinned) Tag() string { return p.tag }

// Resolve reads the manifest that ref names and hashes it. The index is not asked
// again after it. Bytes that are not those of the digest are Kind Corrupt, bytes
// that are no usable manifest Malformed, wrapping a *signature.ManifestError.
func (l *Layout) Resolve(ctx context.Context, ref Reference) (Pinned, error) {
	const op = "resolve"
	about := ref.String()
	x, err := l.index(op, about)
	if err != nil {
		return Pinned{}, err
	}
	if ref.Tag == "" && ref.Digest == "" {
		return Pinned{}, &ReferenceError{Input: about, Reason: "it names neither a tag nor a digest; " + x.names()}
	}
	var desc ocispec.Descriptor
	tag := ""
	if ref.Digest != "" {
		// A child of an index is in no list.
		if desc, _ = x.byDigest(ref.Digest); desc.Digest == "" {
			desc.Digest = ref.Digest
		}
	} else {
		found := false
		if desc, found, err = x.tagged(op, about, ref.Tag); err != nil {
			return Pinned{}, err
		}
		if !found {
			return Pinned{}, newError(op, about, NotFound, "the layout has no such tag; %s", x.names())
		}
		tag = ref.Tag
	}
	manifest, err := l.read(op, about, named(desc.Digest), signature.MaxManifestSize)
	if err != nil {
		return Pinned{}, err
	}
	if actual := digest.FromBytes(manifest); actual != desc.Digest {
		return Pinned{}, newError(op, about, Corrupt, "the bytes are %s and must be %s", actual, desc.Digest)
	}
	mediaType := typeOf(desc, manifest)
	if mediaType == "" {
		if mediaType = l.typeInIndexes(ctx, x, desc.Digest); ctx.Err() != nil {
			return Pinned{}, fmt.Errorf("%s %s: %w", op, about, context.Cause(ctx))
		}
	}
	subject, err := signature.SubjectOf(mediaType, manifest)
	if err != nil {
		return Pinned{}, &Error{Op: op, Reference: about, Kind: Malformed, Err: err}
	}
	return Pinned{path: l.path, tag: tag, subject: subject, manifest: manifest}, nil
}

// typeOf is what the index calls a manifest, and its own word where that says
// nothing.
func typeOf(desc ocispec.Descriptor, manifest []byte) string {
	if desc.MediaType != "" {
		return desc.MediaType
	}
	var own struct {
		MediaType string `json:"mediaType"`
	}
	_ = json.Unmarshal(manifest, &own)
	return own.MediaType
}

// typeInIndexes is what an index of the layout calls a manifest that it lists.
func (l *Layout) typeInIndexes(ctx context.Context, x *index, d digest.Digest) string {
	var queue []ocispec.Descriptor
	queued := map[digest.Digest]bool{}
	enqueue := func(desc ocispec.Descriptor) {
		// Whoever made the layout can have indexes list one another.
		if desc.MediaType == ocispec.MediaTypeImageIndex && !queued[desc.Digest] && len(queued) < maxEntries {
			queued[desc.Digest] = true
			queue = append(queue, desc)
		}
	}
	for _, e := range x.entries {
		enqueue(e.desc)
	}
	for ; len(queue) > 0; queue = queue[1:] {
		raw, err := l.FetchManifest(ctx, queue[0])
		var has ocispec.Index
		if err != nil || json.Unmarshal(raw, &has) != nil {
			continue
		}
		for _, child := range has.Manifests {
			if child.Digest == d && child.MediaType != "" {
				return child.MediaType
			}
			enqueue(child)
		}
	}
	return ""
}
