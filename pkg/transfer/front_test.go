// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// diskFile is a File of the disk that counts what is read of it.
type diskFile struct {
	name string
	size int64
	read atomic.Int64
}

func newDiskFile(t *testing.T, content []byte) *diskFile {
	t.Helper()
	name := filepath.Join(t.TempDir(), "model.bin")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return &diskFile{name: name, size: int64(len(content))}
}

func (d *diskFile) Size() int64  { return d.size }
func (d *diskFile) Check() error { return nil }

func (d *diskFile) Open(offset int64) (io.ReadCloser, error) {
	f, err := os.Open(d.name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return &counted{f, &d.read}, nil
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func newPush(t *testing.T, f File) *push {
	t.Helper()
	return newPushIn(t, NewPool(Limits{}), f)
}

func newPushIn(t *testing.T, pool *Pool, f File) *push {
	t.Helper()
	p := &push{file: f}
	p.o.Options = p.o.withDefaults()
	p.o.Pool = pool
	p.front = newFront(f, p.o.Pool.hashes)
	t.Cleanup(p.front.close)
	p.since0 = p.o.Now()
	p.ahead = newAhead(t.Context(), func(error) {}, p)
	p.pace = new(Pace).Begin(f.Size())
	t.Cleanup(p.pace.End)
	return p
}

// openBody is a body of all of the file.
func openBody(t *testing.T, p *push) *body {
	t.Helper()
	rc, err := p.front.open(0, p.file.Size(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rc.Close() })
	return rc.(*body)
}

// inPieces reads a body as a connection does that sends it without a copy: a piece is
// done with when the next is asked for, and the last one at the end of the test.
type inPieces struct {
	io.ReadCloser
	rest []byte
	done func()
}

func (r *inPieces) Read(p []byte) (n int, err error) {
	if len(r.rest) == 0 {
		r.end()
		if r.rest, r.done, err = r.ReadCloser.(*body).Piece(1 << 30); err != nil {
			return 0, err
		}
	}
	n = copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *inPieces) end() {
	if r.done != nil {
		r.done()
		r.done = nil
	}
}

// byTurns asks for a piece after every few reads, of any size.
type byTurns struct {
	io.ReadCloser
	random *rand.Rand
}

func (r *byTurns) Read(p []byte) (int, error) {
	if r.random.IntN(3) > 0 {
		return r.ReadCloser.Read(p)
	}
	piece, done, err := r.ReadCloser.(*body).Piece(min(int64(len(p)), 1+r.random.Int64N(600<<10)))
	if err != nil {
		return 0, err
	}
	defer done()
	return copy(p, piece), nil
}

// ways are those in which a body is read.
var ways = map[string]func(*testing.T, io.ReadCloser) io.Reader{
	"copied": func(_ *testing.T, rc io.ReadCloser) io.Reader { return rc },
	"in pieces": func(t *testing.T, rc io.ReadCloser) io.Reader {
		r := &inPieces{ReadCloser: rc}
		t.Cleanup(r.end)
		return r
	},
	"by turns": func(_ *testing.T, rc io.ReadCloser) io.Reader {
		return &byTurns{rc, rand.New(rand.NewPCG(5, 6))}
	},
}

// in is one of ways.
func in(t *testing.T, way string) func(io.ReadCloser) io.Reader {
	return func(rc io.ReadCloser) io.Reader { return ways[way](t, rc) }
}

func eachWay(t *testing.T, test func(t *testing.T, way func(io.ReadCloser) io.Reader)) {
	for name := range ways {
		t.Run(name, func(t *testing.T) { test(t, in(t, name)) })
	}
}

// advanceTo sends the bytes up to an offset to nowhere.
func advanceTo(t *testing.T, p *push, offset int64, way func(io.ReadCloser) io.Reader) {
	t.Helper()
	from := p.front.at()
	rc, err := p.front.open(from, offset-from, p)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if n, err := io.CopyN(io.Discard, way(rc), offset-from); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

func TestAFileIsReadOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, way func(io.ReadCloser) io.Reader) {
		content := randomBytes(9<<20 + 17)
		f := newDiskFile(t, content)
		p := newPush(t, f)
		rc := openBody(t, p)
		sent, err := io.ReadAll(way(rc))
		if err != nil || !bytes.Equal(sent, content) {
			t.Errorf("%d of %d bytes were sent, or others: %v", len(sent), f.size, err)
		}
		if d := p.front.digest(); d != digest.FromBytes(content) || f.read.Load() != f.size {
			t.Errorf("digest %s, %d of %d bytes read", d, f.read.Load(), f.size)
		}
	})
}

// A piece stays as it is until it is done with, although it was hashed long before and
// the push goes on elsewhere.
func TestAPieceStaysWhileItIsSent(t *testing.T) {
	content := randomBytes(20 << 20)
	f := newDiskFile(t, content)
	p := newPush(t, f)
	rc := openBody(t, p)
	piece, done, err := rc.Piece(f.size)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.moveTo(0); err != nil {
		t.Fatal(err)
	}
	other := newPushIn(t, p.o.Pool, f)
	advanceTo(t, p, f.size, in(t, "in pieces"))
	advanceTo(t, other, f.size, in(t, "in pieces"))
	if d := p.front.digest(); d != digest.FromBytes(content) {
		t.Errorf("digest %s", d)
	}
	if !bytes.Equal(piece, content[:len(piece)]) {
		t.Error("the piece was written over")
	}
	done()
}

// A request that ends while its file is being read gives its buffer back: the push has
// to go on with all of them.
func TestABodyThatIsOvertakenKeepsNoBuffer(t *testing.T) {
	content := randomBytes(8 << 20)
	f := newDiskFile(t, content)
	p := newPush(t, f)
	for range 3 * hashBuffers {
		rc := openBody(t, p)
		buffer, stream, size, err := p.front.room(rc)
		if err != nil || size != hashBuffer {
			t.Fatalf("%d bytes of room, %v", size, err)
		}
		rc.Close()
		if err := p.moveTo(0); err != nil {
			t.Fatal(err)
		}
		if _, err := p.front.share(rc, stream, buffer, len(*buffer), 0, nil); !errors.Is(err, errSuperseded) {
			t.Fatalf("share: %v", err)
		}
	}
	advanceTo(t, p, f.size, in(t, "in pieces"))
	if d := p.front.digest(); d != digest.FromBytes(content) {
		t.Errorf("digest %s", d)
	}
}

// Wherever a server stands, the hash goes on from there, and little is read again.
func TestTheHashGoesOnFromAnywhere(t *testing.T) { eachWay(t, testTheHashGoesOnFromAnywhere) }

func testTheHashGoesOnFromAnywhere(t *testing.T, way func(io.ReadCloser) io.Reader) {
	content := randomBytes(30<<20 + 5)
	f := newDiskFile(t, content)
	p := newPush(t, f)
	var moved int64
	p.o.Moved = func(n int64) { moved += n }
	random := rand.New(rand.NewPCG(1, 2))
	var back int64
	for range 20 {
		at := p.front.at()
		to := at + 1 + random.Int64N(f.size-at)
		advanceTo(t, p, to, way)
		held := random.Int64N(to + 1)
		if err := p.moveTo(held); err != nil {
			t.Fatal(err)
		}
		back += to - held
		if p.front.at() != held || moved != held {
			t.Fatalf("at %d, moved %d, want %d", p.front.at(), moved, held)
		}
		if d := p.front.digest(); d != digest.FromBytes(content[:held]) {
			t.Fatalf("the digest at %d is wrong", held)
		}
	}
	advanceTo(t, p, f.size, way)
	if d := p.front.digest(); d != digest.FromBytes(content) {
		t.Error("the digest is wrong")
	}
	if again := f.read.Load() - f.size - back; again > 20*markEvery {
		t.Errorf("%d bytes were read again to be hashed", again)
	}
	if p.front.furthest() != f.size {
		t.Errorf("the furthest is %d", p.front.furthest())
	}
}

// Files that are sent at the same time are hashed together, and each goes back on its
// own; somebody who hashes ahead takes copies meanwhile.
func TestFilesThatAreHashedTogetherGoBackOnTheirOwn(t *testing.T) {
	pool := NewPool(Limits{})
	var all sync.WaitGroup
	for i := range 4 {
		content := randomBytes(9<<20 + 1000*i)
		f := newDiskFile(t, content)
		p := newPushIn(t, pool, f)
		random := rand.New(rand.NewPCG(3, uint64(i)))
		ended := make(chan struct{})
		all.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				s := p.front.state()
				if got := digest.NewDigest(digest.SHA256, s.hash); got != digest.FromBytes(content[:s.offset]) {
					t.Errorf("file %d: the state at %d is wrong", i, s.offset)
					return
				}
			}
		})
		all.Go(func() {
			defer close(ended)
			for range 10 {
				at := p.front.at()
				to := at + 1 + random.Int64N(f.size-at)
				advanceTo(t, p, to, in(t, []string{"copied", "in pieces", "by turns"}[i%3]))
				if err := p.moveTo(random.Int64N(to + 1)); err != nil {
					t.Error(err)
				}
			}
			advanceTo(t, p, f.size, in(t, "by turns"))
			if d := p.front.digest(); d != digest.FromBytes(content) {
				t.Errorf("file %d: digest %s", i, d)
			}
		})
	}
	all.Wait()
}

// A transport may ask for a body once more when the push has been given up.
func TestAFrontThatIsClosedOpensNothing(t *testing.T) {
	f := newDiskFile(t, randomBytes(1<<20))
	p := newPush(t, f)
	rc := openBody(t, p)
	if _, err := io.CopyN(io.Discard, rc, 1000); err != nil {
		t.Fatal(err)
	}
	p.front.close()
	for name, way := range ways {
		if _, err := way(t, rc).Read(make([]byte, 1)); !errors.Is(err, errSuperseded) {
			t.Errorf("read %s: %v", name, err)
		}
	}
	for _, offset := range []int64{0, 1000} {
		if _, err := p.front.open(offset, 1, p); !errors.Is(err, errSuperseded) {
			t.Errorf("open at %d: %v", offset, err)
		}
	}
}

// Further back than the states that are kept, the file is hashed from its start.
func TestTheHashGoesBackFurtherThanItRemembers(t *testing.T) {
	f := newDiskFile(t, nil)
	f.size = (marksKept + 4) * markEvery
	if err := os.Truncate(f.name, f.size); err != nil {
		t.Fatal(err)
	}
	p := newPush(t, f)
	advanceTo(t, p, f.size, in(t, "in pieces"))
	p.front.digest()
	if len(p.front.marks) != marksKept {
		t.Fatalf("%d states are kept", len(p.front.marks))
	}
	const held = markEvery + 1
	if err := p.moveTo(held); err != nil {
		t.Fatal(err)
	}
	if d := p.front.digest(); d != digest.FromBytes(make([]byte, held)) {
		t.Error("the digest is wrong")
	}
}

// A transport may still read a body whose request has failed.
func TestAFormerBodyMovesNothing(t *testing.T) { eachWay(t, testAFormerBodyMovesNothing) }

func testAFormerBodyMovesNothing(t *testing.T, way func(io.ReadCloser) io.Reader) {
	content := randomBytes(1 << 20)
	f := newDiskFile(t, content)
	p := newPush(t, f)
	former := openBody(t, p)
	if _, err := io.CopyN(io.Discard, way(former), 1000); err != nil {
		t.Fatal(err)
	}
	latest := openBody(t, p)
	if _, err := io.Copy(io.Discard, way(former)); !errors.Is(err, errSuperseded) {
		t.Errorf("error %v", err)
	}
	if _, err := io.Copy(io.Discard, way(latest)); err != nil {
		t.Fatal(err)
	}
	if d := p.front.digest(); d != digest.FromBytes(content) || p.front.failure() != nil {
		t.Errorf("digest %s, %v", d, p.front.failure())
	}
}

// A registry that answers early has a body closed while it is read: no fault of
// the file.
func TestAClosedBodyIsNoFaultOfTheFile(t *testing.T) { eachWay(t, testAClosedBodyIsNoFaultOfTheFile) }

func testAClosedBodyIsNoFaultOfTheFile(t *testing.T, way func(io.ReadCloser) io.Reader) {
	f := newDiskFile(t, randomBytes(1<<20))
	p := newPush(t, f)
	rc := openBody(t, p)
	rc.Close()
	if _, err := io.Copy(io.Discard, way(rc)); !errors.Is(err, errSuperseded) || p.front.failure() != nil {
		t.Errorf("%v, %v", err, p.front.failure())
	}
}

// A file that ends early is the file's fault, and stays so.
func TestAShortFileFailsTheFront(t *testing.T) { eachWay(t, testAShortFileFailsTheFront) }

func testAShortFileFailsTheFront(t *testing.T, way func(io.ReadCloser) io.Reader) {
	f := newDiskFile(t, randomBytes(1000))
	f.size = 2000
	p := newPush(t, f)
	rc := openBody(t, p)
	if _, err := io.Copy(io.Discard, way(rc)); err == nil || p.front.failure() == nil {
		t.Errorf("%v, %v", err, p.front.failure())
	}
	if err := os.Remove(f.name); err != nil {
		t.Fatal(err)
	}
	first := p.front.failure()
	if _, err := p.front.open(0, 1, p); err == nil || !errors.Is(err, first) {
		t.Errorf("error %v, want the first one, %v", err, first)
	}
}

// What is read again after a cut has to be what was sent: the other end keeps that.
func TestRewindNoticesOtherBytes(t *testing.T) {
	for name, c := range map[string]struct {
		at, to  int64 // the byte that changes, and where to go on
		refused bool
	}{
		"nothing":                     {-1, 5 * mib, false},
		"between the mark and there":  {4*mib + 7, 5 * mib, true},
		"between there and the next":  {6 * mib, 5 * mib, true},
		"before the mark":             {3 * mib, 5 * mib, false}, // the digest tells
		"at a mark":                   {5 * mib, 4 * mib, false}, // all of it is sent again
		"what was not sent":           {8 * mib, 5 * mib, false},
		"long before, past two marks": {1*mib + 9, 2 * mib, true},
	} {
		t.Run(name, func(t *testing.T) {
			content := randomBytes(9 * mib)
			f := newDiskFile(t, content)
			p := newPush(t, f)
			if _, err := io.CopyN(io.Discard, openBody(t, p), 7*mib); err != nil {
				t.Fatal(err)
			}
			if c.at >= 0 {
				content[c.at] ^= 1
				if err := os.WriteFile(f.name, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := p.front.rewind(c.to)
			if errors.Is(err, ErrChanged) != c.refused || (err != nil) != c.refused || (p.front.failure() != nil) != c.refused {
				t.Errorf("%v, %v", err, p.front.failure())
			}
			if err == nil && p.front.at() != c.to {
				t.Errorf("it stands at %d", p.front.at())
			}
		})
	}
}

// A server that said too little at first is followed forward again.
func TestRewindGoesForwardToWhatWasSent(t *testing.T) {
	content := randomBytes(9 * mib)
	p := newPush(t, newDiskFile(t, content))
	if _, err := io.CopyN(io.Discard, openBody(t, p), 7*mib); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1 * mib, 5*mib + 3, 2 * mib, 6 * mib} {
		if err := p.front.rewind(at); err != nil || p.front.at() != at {
			t.Fatalf("to %d: %v, it stands at %d", at, err, p.front.at())
		}
		if got := p.front.digest(); got != digest.FromBytes(content[:at]) {
			t.Errorf("at %d the digest is %s", at, got)
		}
	}
}
