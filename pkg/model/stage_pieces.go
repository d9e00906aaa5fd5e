// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// pieces is a staged archive that is cut where its files are: a directory with the pieces
// by their numbers, which are the blob one after the other. It is written once, as a blob
// that is a file is.
type pieces struct {
	root   *os.Root
	digest digest.Digest
	size   int64 // of the whole blob
	drop   bool  // from the page cache

	split *splitter // after what is kept
	index int       // of f
	f     *os.File  // that is written; nil is none
	w     *stagedWriter
}

func piecesDir(d digest.Digest) string { return blobFile(d) + ".pieces" }

func pieceFile(d digest.Digest, n int) string { return piecesDir(d) + "/" + strconv.Itoa(n) }

// openPieces opens what an interrupted run has left, or makes room for new ones.
func openPieces(s *site, desc ocispec.Descriptor, drop bool) (*pieces, error) {
	p := &pieces{digest: desc.Digest, size: desc.Size, drop: drop}
	dir := piecesDir(desc.Digest)
	info, err := s.root.Lstat(dir)
	if err == nil && (!info.IsDir() || !rootfile.OwnedByUs(info)) {
		if err := s.root.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	p.root, err = s.root.OpenRoot(dir)
	return p, err
}

func (p *pieces) close() error {
	err := p.finish()
	return errors.Join(err, p.root.Close())
}

// kept returns how much each piece holds, as long as there is one after the other and
// nobody else can write to them.
func (p *pieces) kept() (sizes []int64, total int64, err error) {
	return p.sizes(func(info fs.FileInfo) bool { return rootfile.OwnedByUs(info) && rootfile.LinkCount(info) <= 1 })
}

func (p *pieces) sizes(use func(fs.FileInfo) bool) (sizes []int64, total int64, err error) {
	for {
		info, err := p.root.Lstat(strconv.Itoa(len(sizes)))
		if errors.Is(err, fs.ErrNotExist) {
			return sizes, total, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if !info.Mode().IsRegular() || info.Size() > p.size-total || !use(info) {
			return sizes, total, nil
		}
		sizes, total = append(sizes, info.Size()), total+info.Size()
	}
}

// keep removes what is beyond the first kept bytes, and returns a reader of those.
func (p *pieces) keep(kept int64) (io.Reader, error) {
	if err := p.finish(); err != nil {
		return nil, err
	}
	p.split = newSplitter(p.size)
	sizes, total, err := p.kept()
	if err != nil {
		return nil, err
	}
	if kept < total {
		sizes = nil // from the beginning: nothing else is asked for
	}
	names, err := listDir(p.root, ".")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(sizes) && strconv.Itoa(n) == name {
			continue
		}
		if err := p.root.RemoveAll(name); err != nil {
			return nil, err
		}
	}
	return &keptPieces{p: p, sizes: sizes}, nil
}

// keptPieces reads pieces and sees whether they are cut as they would be now.
type keptPieces struct {
	p     *pieces
	sizes []int64
	n     int
	f     *os.File
	left  int64
}

func (k *keptPieces) Read(b []byte) (int, error) {
	for k.f == nil || k.left == 0 {
		if err := k.next(); err != nil {
			return 0, err
		}
	}
	n, err := k.f.Read(b[:min(int64(len(b)), k.left)])
	k.left -= int64(n)
	for rest := b[:n]; len(rest) > 0; {
		if k.p.split.piece != k.n-1 {
			return 0, errMismatch
		}
		rest = rest[k.p.split.step(rest):]
	}
	if err == io.EOF && k.left > 0 {
		err = io.ErrUnexpectedEOF
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

// next opens the next piece.
func (k *keptPieces) next() error {
	if k.f != nil {
		if err := k.f.Close(); err != nil {
			return err
		}
		k.f = nil
		if k.n < len(k.sizes) && k.p.split.piece != k.n {
			return errMismatch // the piece is shorter than the file that it begins
		}
	}
	if k.n == len(k.sizes) {
		return io.EOF
	}
	var err error
	if k.f, _, err = rootfile.OpenPlain(k.p.root, strconv.Itoa(k.n), os.O_RDONLY); err != nil {
		return err
	}
	k.left = k.sizes[k.n]
	k.n++
	return nil
}

func (p *pieces) writer(int64) (io.Writer, error) { return p, nil }

func (p *pieces) flush() error { return p.finish() }

// Write appends to the blob.
func (p *pieces) Write(b []byte) (written int, err error) {
	for written < len(b) {
		if p.f == nil || p.index != p.split.piece {
			if err := p.begin(); err != nil {
				return written, err
			}
		}
		rest := b[written:]
		n, err := p.w.Write(rest[:p.split.step(rest)])
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// begin opens the piece that the next byte belongs to.
func (p *pieces) begin() error {
	if err := p.finish(); err != nil {
		return err
	}
	f, size, err := rootfile.OpenOwned(p.root, strconv.Itoa(p.split.piece), p.root.RemoveAll)
	if err != nil {
		return err
	}
	p.f, p.index = f, p.split.piece
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return err
	}
	reserve := size
	if p.split.content >= writeWindow {
		reserve += p.split.content
	}
	p.w, err = newStagedWriter(f, size, reserve, p.drop)
	return err
}

// finish closes the piece that is written. It gets to the disk when it becomes a file.
func (p *pieces) finish() error {
	if p.f == nil {
		return nil
	}
	err := p.f.Close()
	p.f, p.w = nil, nil
	return err
}

// joined is the blob, to be read as an archive: it knows where a piece begins that is a
// file, and can pass over it without reading it.
type joined struct {
	p     *pieces
	sizes []int64
	n     int // of f, and 1 more
	f     *os.File
	r     *bufio.Reader
	left  int64 // of f
	// passing says that nobody looks at what is read.
	passing bool
}

func (p *pieces) join() (*joined, error) {
	// They were checked. What was unpacked of them has a second name.
	sizes, total, err := p.sizes(func(fs.FileInfo) bool { return true })
	if err == nil && total != p.size {
		err = fmt.Errorf("of %s, %d of %d bytes are staged", p.digest, total, p.size)
	}
	return &joined{p: p, sizes: sizes, r: bufio.NewReaderSize(nil, 64<<10)}, err
}

func (j *joined) Read(b []byte) (n int, err error) {
	for j.left == 0 {
		if err := j.next(); err != nil {
			return 0, err
		}
	}
	b = b[:min(int64(len(b)), j.left)]
	if n = len(b); !j.passing {
		n, err = j.r.Read(b)
	}
	if j.left -= int64(n); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = &contentReadError{err}
	}
	return n, err
}

func (j *joined) next() error {
	if err := j.close(); err != nil {
		return &contentReadError{err}
	}
	if j.n == len(j.sizes) {
		return io.EOF
	}
	f, _, err := rootfile.OpenPlain(j.p.root, strconv.Itoa(j.n), os.O_RDONLY)
	if err != nil {
		return &contentReadError{err}
	}
	j.f, j.left = f, j.sizes[j.n]
	j.r.Reset(f)
	j.n++
	return nil
}

func (j *joined) close() error {
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}

// piece returns the name in the staging directory of the piece that begins here and has
// size bytes, or "".
func (j *joined) piece(size int64) string {
	if j.left != 0 || j.n >= len(j.sizes) || j.n%2 == 0 || j.sizes[j.n] != size {
		return ""
	}
	return pieceFile(j.p.digest, j.n)
}
