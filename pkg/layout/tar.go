// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// maxMembers bounds a tar, whose headers somebody else wrote.
const maxMembers = 100000

// member is where the content of a tar's file lies.
type member struct{ offset, size int64 }

// tarStore is a layout in a tar file. Members are read where they lie; nothing is
// unpacked.
type tarStore struct {
	file    *os.File
	path    string
	members map[string]member
}

func openTar(path string) (*tarStore, error) {
	const op = "open layout"
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	t := &tarStore{file: f, path: path, members: map[string]member{}}
	if err := t.scan(op); err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

// scan takes down where each file of the layout lies. Files that a layout does not
// have are passed over.
func (t *tarStore) scan(op string) error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return newError(op, t.path, Malformed, "it is neither a directory nor a regular file")
	}
	r := tar.NewReader(t.file)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return newError(op, t.path, Malformed, "%s", t.noTar(err))
		}
		if n == maxMembers {
			return newError(op, t.path, TooLarge, "it has more than %d members", maxMembers)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if !ours(name) || h.Typeflag == tar.TypeDir { // a NAS leaves its own beside the blobs
			continue
		}
		if h.Typeflag != tar.TypeReg || path.Clean(name) != name {
			return newError(op, t.path, Malformed, "its member %q is no regular file", printable(h.Name))
		}
		if _, twice := t.members[name]; twice {
			return newError(op, t.path, Malformed, "its member %q is there twice", printable(h.Name))
		}
		// Reader has read the header's blocks and nothing after them.
		at, err := t.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if h.Size > info.Size()-at {
			return newError(op, t.path, Malformed, "it ends within %q", printable(h.Name))
		}
		t.members[name] = member{at, h.Size}
	}
}

// noTar says why a file is none.
func (t *tarStore) noTar(err error) string {
	magic := make([]byte, 4)
	n, _ := t.file.ReadAt(magic, 0)
	for _, compressed := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "BZh", "\xfd7zX"} {
		if strings.HasPrefix(string(magic[:n]), compressed) {
			return "it is compressed, and a tar is read where it lies: decompress it first"
		}
	}
	return "it is no tar file: " + printable(err.Error())
}

// ours reports whether a name is that of a layout's file.
func ours(name string) bool {
	if name == ocispec.ImageLayoutFile || name == ocispec.ImageIndexFile {
		return true
	}
	blob, found := strings.CutPrefix(name, blobsDir+"/")
	return found && blob != ""
}

type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

func (t *tarStore) open(name string) (io.ReadSeekCloser, int64, error) {
	m, ok := t.members[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return section{io.NewSectionReader(t.file, m.offset, m.size)}, m.size, nil
}

func (t *tarStore) readOnly() error {
	return newError("write layout", t.path, ReadOnly, "unpack it, and name the directory")
}

func (t *tarStore) writable(context.Context) error { return t.readOnly() }

func (t *tarStore) put(ocispec.Descriptor, func(io.Writer) error) error { return t.readOnly() }

func (t *tarStore) update(context.Context, func(*index) error) error { return t.readOnly() }

func (t *tarStore) commit() error { return nil }

func (t *tarStore) close() error { return t.file.Close() }

// tarWriter is a tar that is being written, beside its place. A blob that turns out
// wrong is cut off again.
type tarWriter struct {
	path string

	mu      sync.Mutex
	file    *ingest
	end     int64
	members map[string]member
	index   index
	done    bool
}

func (t *tarWriter) open(name string) (io.ReadSeekCloser, int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.members[name]
	if !ok || t.file == nil {
		return nil, 0, fs.ErrNotExist
	}
	return section{io.NewSectionReader(t.file, m.offset, m.size)}, m.size, nil
}

func (t *tarWriter) writable(context.Context) error { return nil }

func (t *tarWriter) put(desc ocispec.Descriptor, fill func(io.Writer) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.append(named(desc.Digest), desc.Size, fill)
}

// append adds one member, or leaves the file as it was. The times are those of no
// day: the same content makes the same tar.
func (t *tarWriter) append(name string, size int64, fill func(io.Writer) error) error {
	if t.file == nil {
		if err := t.begin(); err != nil {
			return err
		}
	}
	if _, err := t.file.Seek(t.end, io.SeekStart); err != nil {
		return err
	}
	w := tar.NewWriter(t.file)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
	var at int64
	if err == nil {
		at, err = t.file.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		err = fill(w)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return errors.Join(err, t.file.Truncate(t.end))
	}
	t.members[name] = member{at, size}
	t.end, err = t.file.Seek(0, io.SeekCurrent)
	return err
}

// begin makes the file beside its place.
func (t *tarWriter) begin() error {
	dir := filepath.Dir(t.path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	sweep(root)
	t.file, err = newIngest(root)
	if err == nil {
		return nil
	}
	root.Close()
	var at *fs.PathError
	if errors.As(err, &at) {
		err = &fs.PathError{Op: "write", Path: t.path, Err: at.Err} // nobody gave the other name
	}
	return err
}

func (t *tarWriter) update(_ context.Context, change func(*index) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return change(&t.index)
}

// snapshot is the index as it stands.
func (t *tarWriter) snapshot() *index {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &index{fields: t.index.fields, entries: slices.Clone(t.index.entries)}
}

// commit writes the index, ends the tar and gives it its name, unless somebody else
// took the name meanwhile.
func (t *tarWriter) commit() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw, err := t.index.bytes()
	if err != nil {
		return err
	}
	if err := t.index.fits(t.path, raw); err != nil {
		return err
	}
	for _, m := range []struct{ name, content string }{{ocispec.ImageLayoutFile, versionFile}, {ocispec.ImageIndexFile, string(raw)}} {
		err := t.append(m.name, int64(len(m.content)), func(w io.Writer) error {
			_, err := io.WriteString(w, m.content)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := tar.NewWriter(t.file).Close(); err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		return err
	}
	if err := t.publish(); err != nil {
		return err
	}
	return rootfile.SyncDir(t.file.root, ".")
}

// publish gives the file its name. A rename would replace what somebody else has
// finished meanwhile.
func (t *tarWriter) publish() error {
	err := os.Link(t.file.Name(), t.path)
	if err == nil {
		return nil // close takes the other name away
	}
	if _, there := os.Lstat(t.path); !errors.Is(err, fs.ErrExist) && errors.Is(there, fs.ErrNotExist) {
		// There are no links on this volume.
		err = os.Rename(t.file.Name(), t.path)
		t.done = err == nil
		return err
	}
	return newError("write layout", t.path, ReadOnly, "somebody else has written it meanwhile")
}

func (t *tarWriter) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	if removeErr := t.file.discard(); !t.done {
		err = errors.Join(err, removeErr)
	}
	t.file.root.Close()
	t.file = nil
	return err
}
