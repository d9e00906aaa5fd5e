// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// slowSource serves a blob over connections that each give rate bytes a second.
type slowSource struct {
	data []byte
	rate int64
	// whole answers every range as a server does that knows none.
	whole bool
	// cut ends every n-th body in its middle, 0 for never.
	cut int64
	// refuse fails every body at this offset for good, if it is not 0.
	refuse int64
	// silent has the bodies say that no part is to be asked for.
	silent bool
	hangs  bool // does not answer a range before its request is given up
	// busy answers so many ranges with an error.
	busy atomic.Int64

	opened, open, most atomic.Int64
	asked              atomic.Int64 // for ranges
	sent               atomic.Int64
}

func (s *slowSource) desc() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(s.data), Size: int64(len(s.data))}
}

func (s *slowSource) OpenBlob(ctx context.Context, _ ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	body, err := s.body(ctx, offset, int64(len(s.data)))
	return body, offset, err
}

func (s *slowSource) OpenRange(ctx context.Context, _ ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	s.asked.Add(1)
	if s.hangs {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if s.busy.Add(-1) >= 0 {
		return nil, errRefused
	}
	if s.whole {
		return nil, fmt.Errorf("range from %d: %w", offset, ErrNoRanges)
	}
	return s.body(ctx, offset, end)
}

var errRefused = errors.New("this range is refused")

func (s *slowSource) body(ctx context.Context, offset, end int64) (io.ReadCloser, error) {
	n := s.opened.Add(1)
	s.most.Store(max(s.most.Load(), s.open.Add(1)))
	if s.cut > 0 && n%s.cut == 0 {
		end = offset + (end-offset)/2
	}
	b := &slowBody{ctx: ctx, s: s, end: io.EOF}
	if s.cut > 0 && n%s.cut == 0 {
		b.end = io.ErrUnexpectedEOF
	}
	if s.refuse > 0 && offset <= s.refuse && s.refuse < end {
		end, b.end = s.refuse, errRefused
	}
	b.left = s.data[offset:end]
	return b, nil
}

type slowBody struct {
	ctx    context.Context
	s      *slowSource
	left   []byte
	end    error
	closed sync.Once
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	if len(b.left) == 0 {
		return 0, b.end
	}
	n := copy(p[:min(len(p), 64<<10)], b.left)
	b.left = b.left[n:]
	b.s.sent.Add(int64(n))
	if b.s.rate > 0 {
		time.Sleep(time.Duration(int64(n) * int64(time.Second) / b.s.rate))
	}
	return n, nil
}

func (b *slowBody) Ranges() bool { return !b.s.silent }

func (b *slowBody) Part(ctx context.Context, offset, end int64) (io.ReadCloser, error) {
	return b.s.OpenRange(ctx, ocispec.Descriptor{}, offset, end)
}

func (b *slowBody) Close() error {
	b.closed.Do(func() { b.s.open.Add(-1) })
	return nil
}

func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// idle checks that a pool got everything back.
func idle(t *testing.T, p *Pool) {
	t.Helper()
	if !p.memory.TryAcquire(p.total) || !p.ahead.TryAcquire(p.mayRun) {
		t.Error("memory was not given back")
	}
	if !p.connections.TryAcquire(int64(p.max)) {
		t.Error("connections were not given back")
	}
	if n := p.working.Load(); n != 0 {
		t.Errorf("%d connections are said to work", n)
	}
	if n := p.fans.Load(); n != 0 {
		t.Errorf("%d blobs are said to have several connections", n)
	}
}

func quick() Options {
	return Options{Sleep: func(context.Context, time.Duration) error { return nil }}
}

// readsAlone reads src to its end and expects one connection.
func readsAlone(t *testing.T, pool *Pool, src *slowSource, o Options) {
	t.Helper()
	r := Open(t.Context(), pool, src, src.desc(), 0, o)
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	if n := src.opened.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	idle(t, pool)
}

func TestOpenSpreadsASlowBlobOverConnections(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(40 << 20), rate: 24 << 20}
	pool := NewPool(Limits{})
	for _, offset := range []int64{0, 12345} {
		r := Open(t.Context(), pool, src, src.desc(), offset, quick())
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, src.data[offset:]) {
			t.Fatalf("from %d: %d bytes, %v", offset, len(got), err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
		r.Close()
	}
	if most := src.most.Load(); most < 4 || most > defaultConnections+1 {
		t.Errorf("%d connections at once", most)
	}
	if open := src.open.Load(); open != 0 {
		t.Errorf("%d bodies are still open", open)
	}
	idle(t, pool)
}

func TestOpenLeavesABlobAloneWhoseReaderIsSlow(t *testing.T) {
	t.Parallel()
	// A clock of the test's own: the network takes no time, a hash or a disk does.
	src := &slowSource{data: randomBytes(64 << 20)}
	var clock atomic.Int64
	o := quick()
	o.Now = func() time.Time { return time.Unix(0, clock.Load()) }
	pool := NewPool(Limits{})
	r := Open(t.Context(), pool, src, src.desc(), 0, o)
	defer r.Close()
	buf := make([]byte, 1<<20)
	for {
		_, err := io.ReadFull(r, buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		clock.Add(int64(15 * time.Millisecond))
	}
	if n := src.opened.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	idle(t, pool)
}

func TestOpenLeavesAFastBlobAlone(t *testing.T) {
	t.Parallel()
	// Everything is spent waiting for the network, and it is fast.
	src := &slowSource{data: randomBytes(64 << 20)}
	var clock atomic.Int64
	o := quick()
	// The clock is asked four times for each read of 8 KiB: 391 MiB/s, for 0.5 s.
	o.Now = func() time.Time { return time.Unix(0, clock.Add(int64(5*time.Microsecond))) }
	src.data = randomBytes(192 << 20)
	readsAlone(t, NewPool(Limits{Enough: 256 << 20}), src, o)
}

func TestOpenGoesOnInOneStreamWithoutRanges(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(24 << 20), rate: 20 << 20, whole: true}
	pool := NewPool(Limits{})
	r := Open(t.Context(), pool, src, src.desc(), 0, quick())
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, src.data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r.Close()
	// A cache that is storing what it sends would not, and begin anew.
	if opened, asked, sent := src.opened.Load(), src.asked.Load(), src.sent.Load(); opened != 1 || asked != 1 || sent != int64(len(src.data)) {
		t.Errorf("%d connections, %d ranges were asked for, and %d bytes came", opened, asked, sent)
	}
	idle(t, pool)
}

func TestOpenAsksForNoPartOfWhoSaysSo(t *testing.T) {
	t.Parallel()
	for _, th := range []*Throttle{nil, NewThrottle(1<<30, nil)} {
		src := &slowSource{data: randomBytes(24 << 20), rate: 20 << 20, silent: true}
		pool := NewPool(Limits{})
		r := Open(t.Context(), pool, throttledSource{src, th}, src.desc(), 0, quick())
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
		if opened, asked := src.opened.Load(), src.asked.Load(); opened != 1 || asked != 0 {
			t.Errorf("%d connections, %d ranges were asked for", opened, asked)
		}
		idle(t, pool)
	}
}

type throttledSource struct {
	*slowSource
	t *Throttle
}

func (s throttledSource) OpenBlob(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	body, at, err := s.slowSource.OpenBlob(ctx, desc, offset)
	return s.t.Reader(ctx, body), at, err
}

// One stream goes on while a part cannot be had, and is asked for later.
func TestOpenGoesOnInOneStreamWhileAPartFails(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(24 << 20), rate: 20 << 20}
	src.busy.Store(1)
	pool := NewPool(Limits{})
	r := Open(t.Context(), pool, src, src.desc(), 0, quick())
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, src.data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r.Close()
	if opened, asked := src.opened.Load(), src.asked.Load(); opened != 1 || asked != 1 {
		t.Errorf("%d connections, %d ranges were asked for", opened, asked)
	}
	idle(t, pool)
}

func TestCloseGivesUpAPartThatWasAskedFor(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(24 << 20), rate: 20 << 20, hangs: true}
	pool := NewPool(Limits{})
	r := Open(t.Context(), pool, src, src.desc(), 0, quick())
	if _, err := io.CopyN(io.Discard, r, 16<<20); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if opened, asked := src.opened.Load(), src.asked.Load(); opened != 1 || asked != 1 {
		t.Errorf("%d connections, %d ranges were asked for", opened, asked)
	}
	idle(t, pool)
}

func TestOpenReadsThroughCuts(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(32 << 20), rate: 24 << 20, cut: 3}
	pool := NewPool(Limits{})
	retries := atomic.Int64{}
	o := quick()
	o.OnRetry = func(error) { retries.Add(1) }
	r := Open(t.Context(), pool, src, src.desc(), 0, o)
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, src.data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r.Close()
	if retries.Load() == 0 {
		t.Error("nothing was cut, so that the test shows nothing")
	}
	// The stream that is given up for several connections was at most one read ahead.
	if sent := src.sent.Load(); sent > int64(len(src.data))*11/10 {
		t.Errorf("%d bytes were fetched for %d", sent, len(src.data))
	}
	idle(t, pool)
}

func TestOpenReportsASegmentThatFailsWhereItStands(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(32 << 20), rate: 24 << 20, refuse: 28 << 20}
	pool := NewPool(Limits{})
	r := Open(t.Context(), pool, src, src.desc(), 0, quick())
	got, err := io.ReadAll(r)
	if !errors.Is(err, errRefused) {
		t.Fatalf("error %v", err)
	}
	if len(got) == 0 || !bytes.Equal(got, src.data[:len(got)]) || len(got) > 28<<20 {
		t.Errorf("%d bytes came before the error", len(got))
	}
	if _, again := r.Read(make([]byte, 1)); !errors.Is(again, errRefused) {
		t.Errorf("the next read: %v", again)
	}
	r.Close()
	idle(t, pool)
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(64 << 20), rate: 4 << 20}
	pool := NewPool(Limits{})
	r := Open(t.Context(), pool, src, src.desc(), 0, quick())
	failed := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, r)
		failed <- err
	}()
	time.Sleep(time.Second)
	r.Close()
	if err := <-failed; !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
	if open := src.open.Load(); open != 0 {
		t.Errorf("%d bodies are still open", open)
	}
	idle(t, pool)
}

func TestBlobsThatShareAPoolDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	// Memory for two segments only, and five blobs that want it.
	pool := NewPool(Limits{Memory: 2 * segmentSize})
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			src := &slowSource{data: randomBytes(24 << 20), rate: 20 << 20}
			r := Open(t.Context(), pool, src, src.desc(), 0, quick())
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, src.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	idle(t, pool)
}

// Four blobs that share a machine's processor are each slow, and fast together.
func TestOpenLeavesBlobsAloneThatAreFastTogether(t *testing.T) {
	t.Parallel()
	pool := NewPool(Limits{Enough: 256 << 20})
	// What the others moved meanwhile.
	pool.moved.Store(1)
	src := &slowSource{data: randomBytes(40 << 20)}
	var clock atomic.Int64
	o := quick()
	// 32 KiB in about 0.5 ms: 64 MiB/s; five times that by the others.
	o.Now = func() time.Time {
		pool.moved.Add(32 << 10 * 5 / 3)
		return time.Unix(0, clock.Add(int64(160*time.Microsecond)))
	}
	readsAlone(t, pool, src, o)
}

func TestOpenDoesNotTryAgainAtOnceWhatDidNotHelp(t *testing.T) {
	t.Parallel()
	pool := NewPool(Limits{})
	src := &slowSource{data: randomBytes(40 << 20), rate: 24 << 20}
	o := quick()
	pool.quiet.Store(time.Now().Add(time.Hour).UnixNano())
	readsAlone(t, pool, src, o)
}

func TestBestAloneIsForgotten(t *testing.T) {
	pool, now := NewPool(Limits{}), time.Unix(1000, 0)
	for _, step := range []struct {
		after      time.Duration
		rate, want float64
	}{{0, 5, 5}, {time.Second, 3, 5}, {quietFor, 4, 5}, {quietFor + time.Second, 2, 2}} {
		if got := pool.bestAlone(step.rate, now.Add(step.after)); got != step.want {
			t.Errorf("after %v: %v, not %v", step.after, got, step.want)
		}
	}
}

// What came over several connections is handed out in the buffers in which it came, which
// are not filled anew while their new owner has them.
func TestExchangeGivesBuffersAway(t *testing.T) {
	t.Parallel()
	src := &slowSource{data: randomBytes(40<<20 + 12345), rate: 24 << 20, cut: 7}
	theirs := buffer.NewPool(pieceSize)
	for _, c := range []struct {
		what  string
		size  int
		get   func() *[]byte
		put   func(*[]byte)
		gives bool
	}{
		{"buffers of a pool", pieceSize, theirs.Get, theirs.Put, true},
		// Whoever made them may have a slice of them, or keep what would come for them.
		{"others of that size", pieceSize, func() *[]byte { b := make([]byte, pieceSize); return &b }, func(*[]byte) {}, false},
		{"smaller ones", 100_000, func() *[]byte { b := make([]byte, 100_000); return &b }, func(*[]byte) {}, false},
	} {
		pool := NewPool(Limits{})
		r := Open(t.Context(), pool, src, src.desc(), 777, quick())
		var buffers []*[]byte
		var kept [][]byte
		exchanged := 0
		for {
			b := c.get()
			mine := *b
			n, err := r.Exchange((*buffer.Block)(b))
			if len(*b) != c.size {
				t.Fatalf("a buffer of %d bytes came for one of %d", len(*b), c.size)
			}
			buffers, kept = append(buffers, b), append(kept, (*b)[:n])
			if &(*b)[0] != &mine[0] {
				exchanged++
				if n != c.size {
					t.Fatalf("%d bytes in a buffer that was exchanged", n)
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := bytes.Join(kept, nil); !bytes.Equal(got, src.data[777:]) {
			t.Errorf("%s: %d bytes, which are not those from 777 on", c.what, len(got))
		}
		if c.gives && exchanged <= 20 || !c.gives && exchanged > 0 {
			t.Errorf("%s: %d of %d were exchanged", c.what, exchanged, len(kept))
		}
		r.Close()
		for _, b := range buffers {
			c.put(b)
		}
		idle(t, pool)
	}
}
