// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
	"github.com/aegis-oci/aegis-oci/pkg/internal/pacing"
	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

const (
	// bufferSize and buffers bound the memory of one transfer: buffers are filled,
	// hashed and written at the same time. Package transfer exchanges buffers of this size
	// for its own.
	bufferSize = buffer.Large
	buffers    = 6

	// BlobMemory is what each blob that is being fetched has in memory at most, in bytes,
	// beside what its Fetcher keeps.
	BlobMemory = buffers * bufferSize
)

// newHashes hashes on all cores.
func newHashes() *hashing.Group { return hashing.NewGroup(bufferSize, buffers, 0) }

// fetchAll brings every blob into staging and checks it.
func (u *unpacking) fetchAll(ctx context.Context, s *site, blobs []blob, old map[digest.Digest]string) error {
	var fetched, reused atomic.Int64
	var mu sync.Mutex
	u.literals = make(map[digest.Digest]uint64)
	var total int64
	for _, b := range blobs {
		total += b.desc.Size
	}
	Plan(u.progress, total)
	hashes := newHashes()
	pace := &pacing.Pace{Free: u.o.Spread}
	pace.Expect(total)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(u.o.Concurrency)
	// The largest first: the end of a pull is not one stream on one core.
	slices.SortStableFunc(blobs, func(a, b blob) int { return cmp.Compare(b.desc.Size, a.desc.Size) })
	for _, b := range blobs {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			pace.Expect(-b.desc.Size)
			t := &transfer{blob: b, fetch: u.fetch, progress: u.progress, drop: u.o.DropPageCache,
				old: old[b.desc.Digest], hardLink: u.o.Link, hashing: hashes, pace: pace.Begin(b.desc.Size),
				cache: u.o.Cache, fullCache: u.fullCache, noResume: u.o.NoResume, warn: u.o.Warn}
			if l, ok := u.oldArchives[b.desc.Digest]; ok {
				t.oldArchive = &l
			}
			defer t.pace.End()
			err := t.run(ctx, s)
			fetched.Add(t.fetched)
			reused.Add(t.reused)
			mu.Lock()
			defer mu.Unlock()
			u.literals[b.desc.Digest] = t.literal
			return err
		})
	}
	err := g.Wait()
	u.res.BytesFetched += fetched.Load()
	u.res.BytesReused += reused.Load()
	return err
}

// transfer brings one blob into its staged file.
type transfer struct {
	blob
	fetch           Fetcher
	progress        Progress
	drop            bool   // from the page cache
	old             string // a file of the replaced model, at the destination
	oldArchive      *Layer // of it, nil for none
	hardLink        bool
	hashing         *hashing.Group
	pace            *pacing.Runner
	cache           *nodecache.Cache // nil for none
	fullCache       bool             // only what is there comes out of it
	noResume        bool             // of what is in the cache; a site has none then
	warn            func(string)
	silent          bool   // progress hears nothing
	alive           func() // called now and then while kept bytes are hashed; nil is nobody
	literal         uint64 // of pieces
	fetched, reused int64
	shown           int64 // what progress was told
}

// errMismatch means that a staged file is whole and its content is not wanted.
var errMismatch = errors.New("the content has another digest")

// run fetches what is missing and checks everything. Content that does not match
// is fetched once more from the start, because the kept part or one transfer may
// have been damaged; when it still does not match, it is not what was signed.
func (t *transfer) run(ctx context.Context, s *site) error {
	t.progress.Start(t.name, t.desc.Size)
	defer t.progress.Done(t.name)
	if t.pieces {
		return t.fetchPieces(ctx, s)
	}
	if t.old != "" && t.hardLink {
		if linked, err := t.link(ctx, s); err != nil || linked {
			return err
		}
		if linked, err := t.linkCached(ctx, s); err != nil || linked {
			return err
		}
	}
	f, size, err := rootfile.OpenOwned(s.root, t.file(), s.root.RemoveAll)
	if err != nil {
		return err
	}
	defer f.Close()
	if size > t.desc.Size {
		size = 0
	}
	if t.old != "" && size < t.desc.Size {
		reused, err := t.reuse(ctx, s, f)
		if err != nil {
			return err
		}
		if reused {
			return t.staged(f).flush()
		}
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return err
		}
	}
	if t.cache != nil && size < t.desc.Size {
		got, err := t.throughCache(ctx, s, f)
		if err != nil || got {
			return err
		}
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return err
		}
	}
	return t.fetchRest(ctx, t.staged(f), size)
}

// fetchPieces is run for an archive that is cut where its files are.
func (t *transfer) fetchPieces(ctx context.Context, s *site) (err error) {
	p, err := openPieces(s, t.desc, t.drop)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	_, kept, err := p.kept()
	if err != nil {
		return err
	}
	reused := false
	if t.oldArchive != nil && kept < t.desc.Size {
		if reused, err = t.reuseArchive(ctx, s, p, kept); err != nil {
			return err
		}
	}
	if !reused {
		if _, kept, err = p.kept(); err != nil {
			return err
		}
		if err := t.fetchRest(ctx, p, kept); err != nil {
			return err
		}
	}
	t.literal = p.literal.Sum64()
	return nil
}

// staged is where a blob is put together.
type staged interface {
	// keep drops what is beyond the first n bytes and returns a reader of those, which
	// is read to its end before anything is written. It fails with errMismatch when they
	// cannot be the blob's.
	keep(n int64) (io.Reader, error)
	// writer appends to the n bytes that were kept.
	writer(n int64) (io.Writer, error)
	flush() error
}

// stagedFile is a blob in one file.
type stagedFile struct {
	*os.File
	size int64
	drop bool // from the page cache
}

func (t *transfer) staged(f *os.File) stagedFile { return stagedFile{f, t.desc.Size, t.drop} }

func (f stagedFile) keep(n int64) (io.Reader, error) {
	if err := f.Truncate(n); err != nil {
		return nil, err
	}
	_, err := f.Seek(0, io.SeekStart)
	return io.LimitReader(f, n), err
}

func (f stagedFile) writer(n int64) (io.Writer, error) {
	return newStagedWriter(f.File, n, f.size, f.drop)
}

func (f stagedFile) flush() error {
	if err := f.Sync(); err != nil || !f.drop {
		return err
	}
	return dropCache(f.File, 0, 0)
}

// fetchRest fills what is staged, of which size bytes are there.
func (t *transfer) fetchRest(ctx context.Context, f staged, size int64) error {
	var room *roomError
	got, err := t.fill(ctx, f, size)
	for again := true; errors.Is(err, errMismatch); {
		doubter, several := t.fetch.(Doubter)
		elsewhere := several && doubter.Doubt(t.desc, size == 0)
		if errors.As(err, &room) {
			again = again && size > 0 // the same from the same source needs the same room
		}
		if !again && !elsewhere {
			break
		}
		again, size, t.reused = false, 0, 0
		t.show(0)
		got, err = t.fill(ctx, f, 0)
	}
	if errors.As(err, &room) {
		return room.SpaceError
	}
	if errors.Is(err, errMismatch) {
		return &ContentError{Path: t.name, Want: t.desc.Digest, Got: got, Reason: "fetched twice"}
	}
	if err != nil {
		return err
	}
	return f.flush()
}

// alive tells with every Read that somebody is at work.
type alive struct {
	io.Reader
	tell func()
}

func (a alive) Read(p []byte) (int, error) {
	if a.tell != nil {
		a.tell()
	}
	return a.Reader.Read(p)
}

// fill hashes the first kept bytes of f, appends what is missing and compares.
// It returns the digest of what it found.
func (t *transfer) fill(ctx context.Context, f staged, kept int64) (digest.Digest, error) {
	old, err := f.keep(kept)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if kept > 0 {
		n, err := t.pump(ctx, alive{old, t.alive}, nil, sum)
		if err != nil {
			return "", err
		}
		if n != kept {
			return "", fmt.Errorf("read the kept part of %s: %w", t.name, io.ErrUnexpectedEOF)
		}
		t.reused = kept
	}
	if kept < t.desc.Size {
		if err := t.download(ctx, f, kept, sum); err != nil {
			return "", err
		}
	}
	got := digest.NewDigest(digest.SHA256, sum)
	if got != t.desc.Digest {
		return got, errMismatch
	}
	return got, nil
}

// download appends the bytes from offset on. It never writes more than the
// descriptor says, and asks for one byte more to see that there is none.
func (t *transfer) download(ctx context.Context, f staged, offset int64, sum hash.Hash) error {
	w, err := f.writer(offset)
	if err != nil {
		return err
	}
	rc, err := t.fetch.Fetch(ctx, t.desc, offset)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", t.name, err)
	}
	defer rc.Close()
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A reader that is blocked in the network does not see the end of it by itself.
	stop := context.AfterFunc(reading, func() { rc.Close() })
	defer stop()
	rest := t.desc.Size - offset
	t.pace.Left(rest)
	n, err := t.pump(reading, io.LimitReader(rc, rest), newBehind(w, cancel, t.pace), sum)
	t.fetched += n
	if again, ok := rc.(interface{ Discarded() int64 }); ok {
		t.fetched += again.Discarded()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", t.name, err)
	}
	if n < rest {
		return &ShortError{Path: t.name, Digest: t.desc.Digest, Want: t.desc.Size, Got: offset + n}
	}
	var more [1]byte
	if k, _ := io.ReadFull(rc, more[:]); k > 0 {
		return &ContentError{Path: t.name, Want: t.desc.Digest, Reason: fmt.Sprintf("it goes on after the %d bytes of its descriptor", t.desc.Size)}
	}
	return nil
}

// pump reads r to its end, writing to w (unless nil) and hashing at the same time, in
// memory that does not grow. What was read before an error is written.
func (t *transfer) pump(ctx context.Context, r io.Reader, w *behind, sum hash.Hash) (int64, error) {
	stream := t.hashing.Stream(sum)
	defer stream.Close()
	total, err := t.pass(ctx, r, w, stream)
	return total, cmp.Or(w.end(), err)
}

func (t *transfer) pass(ctx context.Context, r io.Reader, w *behind, stream *hashing.Stream) (total int64, err error) {
	for {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		buffer := stream.Buffer()
		n, err := fillOrExchange(r, buffer)
		if n > 0 && w != nil {
			w.write((*buffer)[:n], stream.Share(buffer, n, nil))
		} else {
			// What has n of zero gives the buffer back.
			stream.Write(buffer, n, nil)
		}
		if n > 0 {
			total += int64(n)
			t.show(t.shown + int64(n))
			w.keepPace(ctx, n)
		}
		// Not errors.Is: a connection that was closed before the answer came wraps
		// io.EOF, and is no end of the layer.
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// behind writes while the next bytes are being read. Nil writes nothing.
type behind struct {
	w      io.Writer
	cancel context.CancelCauseFunc
	pace   *pacing.Runner // of the reader; nil where bytes cost no connection
	pieces chan piece
	ended  chan struct{}
	err    error // of the first write that failed, once ended is closed
}

type piece struct {
	b    []byte
	done func()
}

// newBehind writes to w, and calls cancel when that fails. It has to be ended.
func newBehind(w io.Writer, cancel context.CancelCauseFunc, pace *pacing.Runner) *behind {
	d := &behind{w: w, cancel: cancel, pace: pace, pieces: make(chan piece, buffers), ended: make(chan struct{})}
	go d.run()
	return d
}

func (d *behind) run() {
	defer close(d.ended)
	for p := range d.pieces {
		if d.err == nil {
			if _, d.err = d.w.Write(p.b); d.err != nil {
				d.cancel(d.err)
			}
		}
		p.done()
	}
}

// write has b written, and done called after that.
func (d *behind) write(b []byte, done func()) { d.pieces <- piece{b, done} }

// keepPace waits while the n bytes that were read last are more than the pace of all.
func (d *behind) keepPace(ctx context.Context, n int) {
	if d != nil && d.pace != nil {
		d.pace.Step(ctx, int64(n))
	}
}

// end waits for everything to be written.
func (d *behind) end() error {
	if d == nil {
		return nil
	}
	close(d.pieces)
	<-d.ended
	return d.err
}

// fillBuffer is io.ReadFull that hands the reader's own error on: a connection
// that was cut (io.ErrUnexpectedEOF) must not pass for a clean end.
func fillBuffer(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	return n, err
}

// exchanger is a reader that may put a full buffer in the place of *b instead of filling it.
// Fewer bytes are no end.
type exchanger interface {
	Exchange(b *buffer.Block) (n int, err error)
}

// fillOrExchange is fillBuffer, of an exchanger without a copy where that can be.
func fillOrExchange(r io.Reader, b *[]byte) (int, error) {
	if l, ok := r.(*io.LimitedReader); ok && l.N >= int64(len(*b)) {
		if from, ok := l.R.(exchanger); ok {
			n, err := from.Exchange((*buffer.Block)(b))
			l.N -= int64(n)
			return n, err
		}
	}
	return fillBuffer(r, *b)
}

// show tells progress that n bytes of the blob are there.
func (t *transfer) show(n int64) {
	if n != t.shown && !t.silent {
		t.progress.Add(t.name, n-t.shown)
		t.shown = n
	}
}
