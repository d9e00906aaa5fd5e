// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// roomStep is how much more has to be copied before it is asked again whether there is
// room for it.
const roomStep = 1 << 20

// pieces is a staged archive that is cut where its files are: a directory with the pieces
// by their numbers, which are the blob one after the other. It is written once, as a blob
// that is a file is.
type pieces struct {
	site   *site
	root   *os.Root
	digest digest.Digest
	size   int64 // of the whole blob
	drop   bool  // from the page cache

	split   *splitter // after what is kept
	old     *keptPieces
	index   int      // of f
	f       *os.File // that is written; nil is none
	w       *stagedWriter
	literal *maphash.Hash // of the pieces with an even number
	copied  int64         // bytes in them, which the files that they hold are copied from
	asked   int64         // how many of those there were when there was room for copies
}

// literalSeed is one process's: what has this sum was staged by it.
var literalSeed = maphash.MakeSeed()

func newLiteral() *maphash.Hash {
	h := new(maphash.Hash)
	h.SetSeed(literalSeed)
	return h
}

func piecesDir(d digest.Digest) string { return blobFile(d) + ".pieces" }

func pieceFile(d digest.Digest, n int) string { return piecesDir(d) + "/" + strconv.Itoa(n) }

// openPieces opens what an interrupted run has left, or makes room for new ones.
func openPieces(s *site, desc ocispec.Descriptor, drop bool) (*pieces, error) {
	p := &pieces{site: s, digest: desc.Digest, size: desc.Size, drop: drop}
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
	return errors.Join(p.finish(), p.root.Close())
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
	p.split, p.literal, p.copied, p.asked = newSplitter(p.size), newLiteral(), 0, 0
	sizes, total, err := p.kept()
	if err != nil {
		return nil, err
	}
	if kept < total || kept == 0 {
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
	p.old = &keptPieces{cursor{root: p.root, sizes: sizes}, p}
	return p.old, nil
}

// isFile reports that a piece of this number is one file of the archive.
func isFile(piece int) bool { return piece%2 == 1 }

// cursor reads one piece after the other.
type cursor struct {
	root  *os.Root
	sizes []int64
	n     int      // of the next piece
	f     *os.File // of the one before; nil is none
	left  int64    // of f
}

// next opens the next piece. It returns io.EOF after the last.
func (c *cursor) next() error {
	if err := c.close(); err != nil {
		return err
	}
	if c.n == len(c.sizes) {
		return io.EOF
	}
	f, _, err := rootfile.OpenPlain(c.root, strconv.Itoa(c.n), os.O_RDONLY)
	if err != nil {
		return err
	}
	c.f, c.left = f, c.sizes[c.n]
	c.n++
	return nil
}

func (c *cursor) close() error {
	if c.f == nil {
		return nil
	}
	err := c.f.Close()
	c.f = nil
	return err
}

// keptPieces reads pieces and sees whether they are cut as they would be now.
type keptPieces struct {
	cursor
	p *pieces
}

func (k *keptPieces) Read(b []byte) (int, error) {
	for k.left == 0 {
		if k.n < len(k.sizes) && k.p.split.piece != k.n {
			return 0, errMismatch // the piece is shorter than the file that it begins
		}
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
		rest = rest[k.p.step(rest):]
	}
	if err == io.EOF && k.left > 0 {
		err = io.ErrUnexpectedEOF
	} else if err == io.EOF {
		err = nil
	}
	return n, err
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
		n, err := p.w.Write(rest[:p.step(rest)])
		if written += n; err == nil {
			err = p.askRoom()
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// step is the splitter's, and takes note of what is in no piece that will be a file.
func (p *pieces) step(b []byte) int {
	file := isFile(p.split.piece)
	n := p.split.step(b)
	if !file {
		p.copied += int64(n)
		_, _ = p.literal.Write(b[:n]) // never fails
	}
	return n
}

// askRoom sees now and then whether what cannot stay in its piece has room for a copy,
// beside what of the blob is still to come, so that hours are not spent on what does not
// fit. It asks between files: what is reserved for one is no longer free.
func (p *pieces) askRoom() error {
	if isFile(p.index) || p.copied-p.asked < roomStep {
		return nil
	}
	p.asked = p.copied
	free, err := freeSpace(p.site.stagingPath())
	if err != nil {
		return err
	}
	if need := p.copied + p.split.left; need > free {
		return &roomError{&SpaceError{Dir: p.site.dst, Need: need, Free: free}}
	}
	return nil
}

// roomError says that there is no room for an archive as it came, which nobody has
// checked: what another source has may be another one, with fewer small files.
type roomError struct{ *SpaceError }

func (e *roomError) Unwrap() []error { return []error{e.SpaceError, errMismatch} }

// begin opens the piece that the next byte belongs to.
func (p *pieces) begin() error {
	if err := p.finish(); err != nil {
		return err
	}
	f, size, err := rootfile.OpenOwned(p.root, strconv.Itoa(p.split.piece), p.root.RemoveAll)
	if err != nil {
		return err
	}
	reserve := size
	if p.split.content >= writeWindow {
		reserve += p.split.content
	}
	_, err = f.Seek(size, io.SeekStart)
	var w *stagedWriter
	if err == nil {
		w, err = newStagedWriter(f, size, reserve, p.drop)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	p.f, p.w, p.index = f, w, p.split.piece
	return nil
}

// finish closes the piece that is written, or the old one that is read. A small one gets
// to the disk when it becomes a file.
func (p *pieces) finish() error {
	if p.old != nil {
		if err := p.old.close(); err != nil {
			return err
		}
	}
	if p.f == nil {
		return nil
	}
	// Its last window is under way while others come.
	err := startWriting(p.f, p.w.begun, p.w.end-p.w.begun)
	if err == nil && p.w.end >= writeWindow {
		err = p.f.Sync()
	}
	err = errors.Join(err, p.f.Close())
	p.f, p.w = nil, nil
	return err
}

// joined is the blob, to be read as an archive: it knows where a piece begins that is a
// file, and can pass over it without reading it.
type joined struct {
	cursor
	p *pieces
	r *bufio.Reader
	// passing says that nobody looks at what is read.
	passing bool
	// literal is of what was read of pieces with an even number, want what it has to be.
	literal *maphash.Hash
	want    uint64
}

// join reads pieces whose sum of those with an even number was literal when they had the
// digest: they are not flushed, and no file is made of them but by what they hold.
func (p *pieces) join(literal uint64) (*joined, error) {
	// They were checked. What was unpacked of them has a second name.
	sizes, total, err := p.sizes(func(fs.FileInfo) bool { return true })
	if err == nil && total != p.size {
		err = fmt.Errorf("of %s, %d of %d bytes are staged", p.digest, total, p.size)
	}
	return &joined{cursor: cursor{root: p.root, sizes: sizes}, p: p, r: bufio.NewReaderSize(nil, 64<<10), literal: newLiteral(), want: literal}, err
}

// judged is err, what came of unpacking, unless the disk has not given back what was
// written: then nothing can be said of the archive.
func (j *joined) judged(ctx context.Context, err error) error {
	if err != nil && !rejected(err) {
		return err
	}
	var rest error
	for rest == nil {
		if ctx.Err() != nil {
			return cmp.Or(err, context.Cause(ctx))
		}
		// What is in pieces with odd numbers has no part in the sum.
		j.passing = isFile(j.n - 1)
		if _, rest = io.CopyN(io.Discard, j, min(j.left, bufferSize)); rest == nil && j.left == 0 {
			rest = j.next()
		}
	}
	if rest != io.EOF {
		return rest
	}
	if j.literal.Sum64() != j.want {
		return fmt.Errorf("what was staged of %s has changed on the disk", j.p.digest)
	}
	return err
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
	if !isFile(j.n - 1) {
		_, _ = j.literal.Write(b[:n]) // never fails
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
	err := j.cursor.next()
	if err == nil {
		j.r.Reset(j.f)
	} else if err != io.EOF {
		err = &contentReadError{err}
	}
	return err
}

// piece returns the name in the staging directory of the piece that begins here and has
// size bytes, or "".
func (j *joined) piece(size int64) string {
	if j.left != 0 || j.n >= len(j.sizes) || !isFile(j.n) || j.sizes[j.n] != size {
		return ""
	}
	return pieceFile(j.p.digest, j.n)
}
