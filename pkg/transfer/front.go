// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
)

const (
	// markEvery is how far apart the states of the hash are that are kept to go
	// back to, and marksKept how many: a registry falls behind by what was in
	// buffers on the way. Further back the file is hashed again.
	markEvery = 4 << 20
	marksKept = 64
	rereadBuf = 256 << 10
	// hashBuffer and hashBuffers bound what is sent of a file and not hashed yet. A
	// mark falls on the end of a buffer.
	hashBuffer  = buffer.Large
	hashBuffers = 8

	// PushMemory is what each file that is being pushed has in memory at most, in bytes.
	PushMemory = hashBuffers * hashBuffer
)

// front is how far a file was sent, and its hash, which follows a few buffers behind.
// Of the bodies that it opened only the latest moves it: a transport may still read
// from one that it has failed to send.
type front struct {
	file   File
	hashes *hashing.Group

	mu      sync.Mutex
	offset  int64
	high    int64       // the furthest offset that was ever sent
	hash    hash.Cloner // of stream; of all before offset once that is settled
	stream  *hashing.Stream
	buffer  *[]byte // the next of stream, nil for none
	filled  int     // bytes of it
	latest  *body
	closed  bool
	err     error // the file's own
	reading time.Duration

	marksMu sync.Mutex // taken by those who hash, under no other lock
	marks   []mark
}

// mark is the hash of all before an offset.
type mark struct {
	offset int64
	hash   hash.Cloner
}

// newHash is SHA-256, whose state can be copied.
func newHash() hash.Cloner { return sha256.New().(hash.Cloner) }

func clone(h hash.Cloner) hash.Cloner {
	// The standard library's SHA-256 never fails to.
	c, err := h.Clone()
	if err != nil {
		panic(err)
	}
	return c
}

// newFront has to be closed.
func newFront(f File, hashes *hashing.Group) *front {
	h := newHash()
	return &front{file: f, hashes: hashes, hash: h, stream: hashes.Stream(h)}
}

// close ends the hash.
func (f *front) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latest, f.closed = nil, true
	f.settle()
	f.stream.Close()
}

// pass has the buffer hashed. The caller holds f.mu.
func (f *front) pass() {
	if f.buffer == nil {
		return
	}
	f.stream.Write(f.buffer, f.filled, f.marking())
	f.buffer, f.filled = nil, 0
}

// settle waits until all before the offset is hashed. The caller holds f.mu.
func (f *front) settle() {
	f.pass()
	f.stream.Flush()
}

func (f *front) at() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.offset
}

func (f *front) furthest() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.high
}

// timeReading is how long the file itself was waited for.
func (f *front) timeReading() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reading
}

func (f *front) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// fail notes that the file cannot be sent; the first reason stays.
func (f *front) fail(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	return f.err
}

func (f *front) digest() digest.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	return digest.NewDigest(digest.SHA256, f.hash)
}

// state is a copy of the hash, and what it is of.
func (f *front) state() mark {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	return mark{f.offset, clone(f.hash)}
}

// rewind goes back to an offset. What lies between it and the mark before is read
// again, to be hashed, and further, to the next state of the hash that is known: what
// was sent must be what is read now, for the other end keeps it. Forward, to what was
// sent before it went back, it is read without that: a File has to be one that says
// itself when it has changed.
func (f *front) rewind(offset int64) error {
	f.mu.Lock()
	f.latest = nil
	if f.closed {
		f.mu.Unlock()
		return errSuperseded
	}
	if offset == f.offset {
		f.mu.Unlock()
		return nil
	}
	f.settle()
	here := mark{f.offset, clone(f.hash)}
	from, next := here, mark{offset: offset}
	if offset < here.offset {
		from, next = f.marksAround(offset, here)
	}
	f.mu.Unlock()
	if from.offset < offset {
		if err := f.reread(from.hash, from.offset, offset, next); err != nil {
			return f.fail(err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errSuperseded
	}
	f.stream.Close()
	f.offset, f.hash, f.stream = offset, from.hash, f.hashes.Stream(from.hash)
	return nil
}

// marksAround forgets the marks behind an offset and returns copies of the last one up
// to it and of the first one after it, which is last where there is none.
func (f *front) marksAround(offset int64, last mark) (before, after mark) {
	f.marksMu.Lock()
	defer f.marksMu.Unlock()
	for after = last; len(f.marks) > 0 && f.marks[len(f.marks)-1].offset > offset; f.marks = f.marks[:len(f.marks)-1] {
		after = f.marks[len(f.marks)-1]
	}
	if n := len(f.marks); n > 0 {
		return mark{f.marks[n-1].offset, clone(f.marks[n-1].hash)}, after
	}
	return mark{0, newHash()}, after
}

// reread brings a hash from one offset to another, and compares what follows with next,
// if its hash is known.
func (f *front) reread(h hash.Cloner, from, to int64, next mark) error {
	rc, err := f.file.Open(from)
	if err != nil {
		return err
	}
	defer rc.Close()
	buffer := make([]byte, rereadBuf)
	if err := readInto(h, rc, to-from, buffer); err != nil || next.hash == nil {
		return err
	}
	probe := clone(h)
	if err := readInto(probe, rc, next.offset-to, buffer); err != nil {
		return err
	}
	if !bytes.Equal(probe.Sum(nil), next.hash.Sum(nil)) {
		return fmt.Errorf("%w, between %d and %d", ErrChanged, from, next.offset)
	}
	return nil
}

func readInto(h hash.Hash, r io.Reader, size int64, buffer []byte) error {
	n, err := io.CopyBuffer(onlyWriter{h}, io.LimitReader(r, size), buffer)
	if err == nil && n != size {
		err = fmt.Errorf("the file ends %d bytes early", size-n)
	}
	return err
}

type onlyWriter struct{ io.Writer }

// open is the body of a request that sends n bytes from offset on. A second one
// for the same request starts over.
func (f *front) open(offset, n int64, p *push) (io.ReadCloser, error) {
	if err := p.moveTo(offset); err != nil {
		return nil, err
	}
	rc, err := f.file.Open(offset)
	if err != nil {
		return nil, f.fail(err)
	}
	b := &body{front: f, file: rc, left: n, push: p}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		rc.Close()
		return nil, errSuperseded
	}
	f.latest = b
	return b, nil
}

// body reads one request's bytes, which are hashed as they go by.
type body struct {
	front *front
	push  *push
	file  io.ReadCloser
	left  int64

	closed atomic.Bool
}

var errSuperseded = errors.New("the request is over")

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, took, err := b.read(p[:min(int64(len(p)), b.left)])
	if err := b.front.advance(b, p[:n], took, err); err != nil {
		return 0, err
	}
	b.sent(n)
	return n, nil
}

// Piece is Read without a copy: it returns at most n of the next bytes where they are
// hashed. They stay there until done is called. There is none at the end, which is
// io.EOF.
func (b *body) Piece(n int64) (p []byte, done func(), err error) {
	if b.left == 0 {
		return nil, nil, io.EOF
	}
	buffer, stream, size, err := b.front.room(b)
	if err != nil {
		return nil, nil, err
	}
	k, took, err := b.read((*buffer)[:min(size, b.left, n)])
	if done, err = b.front.share(b, stream, buffer, k, took, err); err != nil {
		return nil, nil, err
	}
	b.sent(k)
	return (*buffer)[:k], done, nil
}

// read reads the file, and says how long that took. An early end is an error.
func (b *body) read(p []byte) (int, time.Duration, error) {
	began := b.push.o.Now()
	n, err := b.file.Read(p)
	took := b.push.o.Now().Sub(began)
	switch {
	case b.closed.Load():
		return 0, took, errSuperseded
	case n > 0 && err == io.EOF:
		err = nil
	case err == io.EOF:
		err = fmt.Errorf("the file ends %d bytes early", b.left)
	}
	return n, took, err
}

// sent takes note of n bytes that are on their way, and waits while they are more than
// the pace of all.
func (b *body) sent(n int) {
	b.left -= int64(n)
	b.push.o.Pool.moved.Add(int64(n))
	b.push.ahead.consider()
	b.push.moved(int64(n))
	b.push.pace.Step(b.push.ahead.ctx, int64(n))
}

// Close may come in the middle of a Read, when the registry answers early.
func (b *body) Close() error {
	b.closed.Store(true)
	return b.file.Close()
}

// advance hashes p, which is sent next, unless b's request is over.
func (f *front) advance(b *body, p []byte, took time.Duration, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mayAdvance(b, took, err); err != nil {
		return err
	}
	for len(p) > 0 {
		if f.buffer == nil {
			f.buffer = f.stream.Buffer()
		}
		n := copy((*f.buffer)[f.filled:], p[:min(int64(len(p)), markEvery-f.offset%markEvery)])
		p = p[n:]
		f.filled += n
		if f.offset += int64(n); f.filled == len(*f.buffer) || f.offset%markEvery == 0 {
			f.pass()
		}
	}
	f.high = max(f.high, f.offset)
	return nil
}

// mayAdvance takes note of how reading for b went. The caller holds f.mu.
func (f *front) mayAdvance(b *body, took time.Duration, err error) error {
	if f.latest != b || errors.Is(err, errSuperseded) {
		return errSuperseded
	}
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		return err
	}
	f.reading += took
	return nil
}

// room returns a buffer of stream for b to read into, and how much of it, up to the next
// mark. It goes to share.
func (f *front) room(b *body) (buffer *[]byte, stream *hashing.Stream, size int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.latest != b {
		return nil, nil, 0, errSuperseded
	}
	f.pass()
	buffer = f.stream.Buffer()
	return buffer, f.stream, min(int64(len(*buffer)), markEvery-f.offset%markEvery), nil
}

// share hashes the first n bytes of a buffer of stream, which are sent next, unless b's
// request is over. done takes the buffer back.
func (f *front) share(b *body, stream *hashing.Stream, buffer *[]byte, n int, took time.Duration, err error) (done func(), _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.mayAdvance(b, took, err); err != nil {
		stream.Write(buffer, 0, nil)
		return nil, err
	}
	f.offset += int64(n)
	f.high = max(f.high, f.offset)
	return stream.Share(buffer, n, f.marking()), nil
}

// marking returns what keeps a mark at the offset once all before it is hashed, nil
// where none is due. The caller holds f.mu.
func (f *front) marking() func() {
	offset, h := f.offset, f.hash
	if offset%markEvery != 0 {
		return nil
	}
	return func() { f.mark(offset, h) }
}

// mark keeps a state of the hash to go back to.
func (f *front) mark(offset int64, h hash.Cloner) {
	f.marksMu.Lock()
	defer f.marksMu.Unlock()
	if n := len(f.marks); n > 0 && f.marks[n-1].offset >= offset {
		return
	}
	if len(f.marks) == marksKept {
		f.marks = append(f.marks[:0], f.marks[1:]...)
	}
	f.marks = append(f.marks, mark{offset, clone(h)})
}
