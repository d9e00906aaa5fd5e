// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/pacing"
)

// line is a RangeSource of zeros, each of whose connections gives rate bytes a second at
// most. Its round trip takes rtt: four before the first byte of a new connection, and as
// many more as it takes from the usual 14 KiB in one of them to the rate. A connection
// whose body was read to its end is used again.
type line struct {
	rate int64
	rtt  time.Duration
	// shared, when it is not nil, has all connections together give no more than total
	// until a time. It has room for one.
	shared chan struct{}
	total  int64
	until  time.Time
	opened atomic.Int64
	// work is how long a request keeps the processor of all of them busy, which is shared.
	work time.Duration
	// burst is until when a connection has rate, of which it has a third after that. Zero
	// is for good.
	burst time.Time
	// bad makes the connection with this number give next to nothing.
	bad int
	// late is how long each body lets its first byte be waited for.
	late time.Duration
	// asked counts requests for one byte.
	asked atomic.Int64

	mu    sync.Mutex
	conns int
	idle  []conn
}

type conn struct {
	began time.Time
	rate  int64
}

func (l *line) OpenBlob(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	body, err := l.OpenRange(ctx, desc, offset, desc.Size)
	return body, offset, err
}

func (l *line) OpenRange(ctx context.Context, _ ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	l.opened.Add(1)
	if end-offset == 1 {
		l.asked.Add(1)
	}
	l.mu.Lock()
	c := conn{rate: l.rate}
	if last := len(l.idle) - 1; last >= 0 {
		c, l.idle = l.idle[last], l.idle[:last]
	} else if l.conns++; l.conns == l.bad {
		c.rate = l.rate / 200
	}
	l.mu.Unlock()
	if l.work > 0 {
		l.shared <- struct{}{}
		time.Sleep(l.work)
		<-l.shared
	}
	if time.Sleep(l.rtt); c.began.IsZero() {
		time.Sleep(3 * l.rtt)
		c.began = time.Now()
	}
	return &lineBody{ctx, l, c, end - offset, l.late}, nil
}

type lineBody struct {
	ctx context.Context
	*line
	conn
	left  int64
	first time.Duration // until the next byte
}

func (b *lineBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		b.idle = append(b.idle, b.conn)
		b.left = -1
	}
	return nil
}

func (b *lineBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	if b.left <= 0 {
		return 0, io.EOF
	}
	// Not for no time: a timer of zero that is waited for in a bubble crashes Go 1.26's
	// runtime with -race, one in some hundred thousand times.
	if b.first > 0 {
		if err := sleep(b.ctx, b.first); err != nil {
			return 0, err
		}
	}
	b.first = 0
	rate := float64(14<<10) / b.rtt.Seconds() * math.Pow(2, min(30, time.Since(b.began).Seconds()/b.rtt.Seconds()))
	rate = min(rate, float64(b.conn.rate))
	if !b.burst.IsZero() && time.Now().After(b.burst) {
		rate = min(rate, float64(b.conn.rate)/3)
	}
	n := min(b.left, int64(len(p)), max(4<<10, int64(rate/50))) // as it comes
	b.left -= n
	took := time.Duration(float64(n) / rate * float64(time.Second))
	if b.shared != nil && (b.until.IsZero() || time.Now().Before(b.until)) {
		b.shared <- struct{}{}
		turn := min(took, time.Duration(float64(n)/float64(b.total)*float64(time.Second)))
		time.Sleep(turn)
		took -= turn
		<-b.shared
	}
	time.Sleep(took)
	return int(n), nil
}

// pullAll reads blobs of these sizes at one pace, as a pull does, and returns how long
// that took.
func pullAll(t *testing.T, src RangeSource, sizes ...int64) time.Duration {
	var wg sync.WaitGroup
	pool := NewPool(Limits{Enough: 128 << 20}) // as on a small machine
	pace := pacing.Pace{Free: pool.Spread}
	began := time.Now()
	for _, size := range sizes {
		wg.Go(func() {
			r := Open(t.Context(), pool, src, ocispec.Descriptor{Size: size}, 0, Options{})
			defer r.Close()
			runner := pace.Begin(size)
			defer runner.End()
			buffer := make([]byte, 512<<10)
			for size > 0 {
				n, err := io.ReadFull(r, buffer[:min(size, int64(len(buffer)))])
				if err != nil {
					t.Error(err)
					return
				}
				size -= int64(n)
				runner.Step(t.Context(), int64(n))
			}
		})
	}
	wg.Wait()
	idle(t, pool)
	return time.Since(began)
}

// pullOne reads a blob of pool to its end and returns how long that took.
func pullOne(t *testing.T, pool *Pool, src RangeSource, size int64) time.Duration {
	t.Helper()
	began := time.Now()
	r := Open(t.Context(), pool, src, ocispec.Descriptor{Size: size}, 0, Options{})
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// A model's files share what connections there are, however different they are, and none
// is left with few of them at the end. 13 is the most for one, 15 for three.
func TestAModelOverSlowConnections(t *testing.T) {
	t.Parallel()
	const near, far = time.Millisecond, 100 * time.Millisecond
	for _, c := range []struct {
		rate  int64 // of a connection
		rtt   time.Duration
		sizes []int64
		want  float64 // connections in use on average, at least
	}{
		{mib / 4, near, []int64{64 * mib}, 9},
		{1 * mib, near, []int64{192 * mib, 48 * mib, 48 * mib}, 12},
		{16 * mib, near, []int64{512 * mib}, 8},
		{16 * mib, near, []int64{192 * mib, 48 * mib, 48 * mib}, 7},
		{16 * mib, near, []int64{64 * mib, 64 * mib, 64 * mib, 64 * mib}, 6},
		{16 * mib, near, []int64{512 * mib, 128 * mib, 128 * mib, 10 * mib}, 9},
		{32 * mib, near, []int64{512 * mib, 128 * mib, 128 * mib}, 7},
		{4 * mib, far, []int64{256 * mib}, 5},
		{8 * mib, far, []int64{256 * mib, 64 * mib}, 5},
		{16 * mib, far, []int64{512 * mib}, 4.5},
	} {
		synctest.Test(t, func(t *testing.T) {
			var total int64
			for _, n := range c.sizes {
				total += n
			}
			l := &line{rate: c.rate, rtt: c.rtt}
			took := pullAll(t, l, c.sizes...)
			if got := float64(total) / float64(c.rate) / took.Seconds(); got < c.want {
				t.Errorf("files of %d bytes at %d bytes/s a connection, %v away: %v, %.1f connections on average, want %.1f at least", c.sizes, c.rate, c.rtt, took, got, c.want)
			}
		})
	}
}

// One connection that gives next to nothing, as a trunk's member that loses packets, holds
// nobody up for long: what it was to bring comes by another one.
func TestOneBadConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	const rate, size = 20 << 20, 512 << 20
	for _, bad := range []int{3, 9} {
		synctest.Test(t, func(t *testing.T) {
			good := pullAll(t, &line{rate: rate, rtt: time.Millisecond}, size)
			took := pullAll(t, &line{rate: rate, rtt: time.Millisecond, bad: bad}, size)
			if took > good+2*leastPatience {
				t.Errorf("with bad connection %d it takes %v, without %v", bad, took, good)
			}
		})
	}
}

// Where a line is all there is, more connections are tried less and less often.
func TestASharedLineIsNotTriedForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 8 << 20, 1 << 30
		l := &line{rate: rate, rtt: time.Millisecond, shared: make(chan struct{}, 1), total: rate}
		took := pullAll(t, l, size)
		if want := size / rate * time.Second; took > want*21/20 {
			t.Errorf("%v, want %v", took, want)
		}
		// Four tries in 128 s, of a byte, four segments or five, and a stream after that.
		if n, tries := l.opened.Load(), l.asked.Load(); n < 10 || n > 29 || tries > 4 {
			t.Errorf("%d requests, %d tries", n, tries)
		}
	})
}

// Where each request keeps a processor busy, as many connections as could be get no more
// than fewer do, and each of those asks for more at a time.
func TestABusyProcessorGetsFewRequests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sizes []int64
		each  int64   // bytes of a request on average, at least
		part  float64 // of what there is, at least
	}{
		{[]int64{2 << 30}, 7 << 20, 0.66},
		{[]int64{1 << 30, 256 << 20, 256 << 20}, 5 << 20, 0.60},
	} {
		synctest.Test(t, func(t *testing.T) {
			const rate, all = 32 << 20, 256 << 20
			l := &line{rate: rate, rtt: time.Millisecond, shared: make(chan struct{}, 1), total: all, work: 10 * time.Millisecond}
			var total int64
			for _, n := range c.sizes {
				total += n
			}
			took := pullAll(t, l, c.sizes...)
			t.Logf("files of %d bytes: %v, %d requests", c.sizes, took, l.opened.Load())
			if n := total / l.opened.Load(); n < c.each {
				t.Errorf("%d requests, for %d bytes each on average, want %d", l.opened.Load(), n, c.each)
			}
			if got := float64(total) / took.Seconds() / all; got < c.part {
				t.Errorf("%v, which is %.2f of what there is, want %.2f", took, got, c.part)
			}
		})
	}
}

// What a shaper lets pass at first is not taken for the rate: as many connections are
// plenty as are by what one brings after that.
func TestAShortBurstIsNotCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, plentyOf = 32 << 20, 8
		pool := NewPool(Limits{Enough: plentyOf * rate / plenty})
		l := &line{rate: 3 * rate, rtt: time.Millisecond, burst: time.Now().Add(30 * time.Millisecond)}
		r := Open(t.Context(), pool, l, ocispec.Descriptor{Size: 1 << 30}, 0, Options{})
		defer r.Close()
		readFor(t, r, 800*time.Millisecond)
		if n := pool.working.Load(); n != plentyOf {
			t.Errorf("%d connections, want %d", n, plentyOf)
		}
	})
}

// More than plenty of connections are tried where each brings all that one did alone, and not
// where something else is in the way already.
func TestMoreThanPlentyIsTriedWhereNothingElseIsInTheWay(t *testing.T) {
	for part, more := range map[float64]bool{0.9: false, 0.96: true} {
		f := &fan{pool: NewPool(Limits{}), slots: make(chan struct{}, defaultConnections), took: 7, tuning: tuning{alone: 64, helped: true, before: 8}}
		f.pool.enough = 8 * f.tuning.alone / plenty
		f.pool.working.Store(8)
		f.growFrom(part*8*f.tuning.alone, time.Now())
		if got := f.took > 7; got != more || f.tuning.settled == more {
			t.Errorf("%.2f of what they could bring: %d connections, settled: %v", part, f.took+1, f.tuning.settled)
		}
	}
}

// Eight connections and a little of a ninth are eight, for each one makes all ranges shorter.
func TestLittleMoreThanPlentyIsPlenty(t *testing.T) {
	for _, c := range []struct {
		alone float64
		want  int
	}{{64, 3}, {63.9, 3}, {66, 3}, {80, 2}, {1000, 0}, {1, 255}} {
		f := &fan{pool: NewPool(Limits{}), tuning: tuning{alone: c.alone, helped: true}}
		f.pool.enough = 256 / plenty
		f.pool.working.Store(1)
		if got := f.lacking(); got != c.want {
			t.Errorf("alone %v: %d lacking, want %d", c.alone, got, c.want)
		}
	}
}

// Where one stream says that a few connections are plenty, these come at once. Where plenty
// are many, or others have some already, a few are measured first.
func TestPlentyComeAtOnceWhereTheyAreFew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate    int64
		others  bool  // have several
		streams int64 // that are open beside this one
		max     int
		want    int64
	}{
		{rate: 128 << 20, want: 4},
		{rate: 100 << 20, want: 5},
		{rate: 64 << 20, want: 8},
		{rate: 64 << 20, want: 4, others: true},
		{rate: 64 << 20, want: 4, streams: 1},
		{rate: 64 << 20, want: 4, max: 6},
		{rate: 64 << 20, want: 8, max: 7},
		{rate: 48 << 20, want: 8},
		{rate: 40 << 20, want: 8}, // 13 would be plenty, which there are with the stream's
		{rate: 37 << 20, want: 4},
		{rate: 1 << 20, want: 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			pool := NewPool(Limits{Enough: 256 << 20, Connections: c.max})
			if c.others {
				pool.fans.Add(1)
				defer pool.fans.Add(-1)
			}
			pool.streams.Add(1 + c.streams)
			f := newFan(t.Context(), pool, &line{rate: c.rate, rtt: time.Millisecond}, ocispec.Descriptor{Size: 1 << 30},
				0, float64(c.rate), float64(c.rate), Options{}.withDefaults())
			if got := pool.working.Load(); got != c.want {
				t.Errorf("%+v: %d connections", c, got)
			}
			f.close()
		})
	}
}

// Of eight connections that came at once those are given back that bring nothing.
func TestPlentyThatComeAtOnceAreGivenBack(t *testing.T) {
	t.Parallel()
	const rate = 64 << 20
	for _, c := range []struct {
		all         int64 // what the line brings
		least, most int64
	}{
		{2 * rate, 4, 4},
		{4 * rate, 5, 6},
		{6 * rate, 8, 8},
		{8 * rate, 8, 8},
	} {
		synctest.Test(t, func(t *testing.T) {
			pool := NewPool(Limits{Enough: 256 << 20})
			l := &line{rate: rate, rtt: time.Millisecond, shared: make(chan struct{}, 1), total: c.all}
			r := Open(t.Context(), pool, l, ocispec.Descriptor{Size: 4 << 30}, 0, Options{})
			defer r.Close()
			readWhile(t, r, func() bool { return pool.working.Load() == 0 })
			if n := pool.working.Load(); n != 8 {
				t.Errorf("%d connections at first", n)
			}
			readFor(t, r, 3*time.Second)
			if n := pool.working.Load(); n < c.least || n > c.most || pool.helped.Load() != 1 {
				t.Errorf("a line of %d bytes a second: %d connections, which help %d", c.all, n, pool.helped.Load())
			}
		})
	}
}

// While several connections are measured first, each brings what it can with one request or
// two, unless others need the room: all of them are set up at once then.
func TestTheFirstSegmentsAreFew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate, least, most int64
		others            bool
	}{
		{rate: 64 << 20, least: 8, most: 10},
		{rate: 32 << 20, least: 4, most: 5},
		{rate: 4 << 20, least: 4, most: 4}, // the least that is asked for takes a second
		{rate: 64 << 20, least: 7, most: 9, others: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			pool, l := NewPool(Limits{Enough: 256 << 20}), &line{rate: c.rate, rtt: time.Millisecond}
			if c.others {
				pool.fans.Add(1)
				defer pool.fans.Add(-1)
			}
			r := Open(t.Context(), pool, l, ocispec.Descriptor{Size: 1 << 30}, 0, Options{})
			defer r.Close()
			readWhile(t, r, func() bool { return pool.working.Load() == 0 })
			readFor(t, r, settlesIn*2/3)
			// Beside the stream, and the byte that it asked for.
			if n := l.opened.Load() - 2; n < c.least || n > c.most {
				t.Errorf("%+v: %d requests", c, n)
			}
		})
	}
}

// What waits in a connection after nobody could read from it for a while, or comes in lumps,
// is no rate.
func TestAGaugeCountsForAWhile(t *testing.T) {
	const enough = 256 << 20
	start := time.Now()
	at := func(ms float64) time.Time { return start.Add(time.Duration(ms * float64(time.Millisecond))) }
	for _, c := range []struct {
		name  string
		reads [][3]float64 // began, ended (ms), bytes
		rate  float64      // of the first period, 0 for none that ended
	}{
		{"a gap, and what came meanwhile", [][3]float64{{-5, 0, 9}, {0, 10, 9}, {10, 300, 64 << 10}, {300, 300.05, 64 << 10}, {300.05, 300.1, 1 << 20}}, 0},
		{"the clock stands still", [][3]float64{{0, 0, 9}, {0, 200, 9}, {200, 200, 1 << 20}}, 0},
		{"a gap, and a while after it", [][3]float64{{-5, 0, 9}, {10, 300, 1 << 20}, {300, 400, 4000}, {400, 420, 800}}, 40000},
		{"a burst", [][3]float64{{-5, 0, 9}, {0, 20, 10 << 20}, {20, 30, 10 << 20}, {30, 80, 2000}, {80, 150, 2800}}, 40000},
		{"far away", [][3]float64{{-100, 0, 9}, {0, 30, 9}, {30, 200, 1000}, {200, 300, 1700}}, 10000},
	} {
		var g gauge
		var all int64
		var got float64
		for _, r := range c.reads {
			all += int64(r[2])
			if ended, slow := g.slow(int64(r[2]), all, enough, at(r[0]), at(r[1])); ended {
				if got = g.rate; !slow {
					t.Errorf("%s: not slow at %v", c.name, got)
				}
			}
		}
		if math.Abs(got-c.rate) > 1 {
			t.Errorf("%s: %v, want %v", c.name, got, c.rate)
		}
	}
}

// readFor reads for as long as that.
func readFor(t *testing.T, r io.Reader, d time.Duration) {
	t.Helper()
	end := time.Now().Add(d)
	readWhile(t, r, func() bool { return time.Now().Before(end) })
}

func readWhile(t *testing.T, r io.Reader, more func() bool) {
	t.Helper()
	for buffer := make([]byte, 64<<10); more(); {
		if _, err := r.Read(buffer); err != nil {
			t.Fatal(err)
		}
	}
}

// What a first connection does before the line is shared by many, or has spent its burst,
// does not say for good how many are enough.
func TestABurstIsNotBelievedForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 64 << 20, 4 << 30
		l := &line{rate: rate, rtt: time.Millisecond, burst: time.Now().Add(500 * time.Millisecond)}
		took := pullAll(t, l, size)
		if most := 32 * time.Second; took > most {
			t.Errorf("%v, want %v at most: of thirteen connections it would take %v", took, most, size/(13*rate/3)*time.Second)
		}
	})
}

// A stream that was fast a moment ago is not held up by its connection: further ones
// have to beat what it did, and here they cannot.
func TestOpenGoesBackToOneStreamThatWasFasterBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 16 << 20, 256 << 20
		pool, l := NewPool(Limits{Enough: 256 << 20}), &line{rate: rate, rtt: time.Millisecond}
		pool.bestAlone(200<<20, time.Now().Add(time.Hour))
		// With four connections to the end it would take 4 s.
		if took := pullOne(t, pool, l, size); took < 12*time.Second || took > 16*time.Second {
			t.Errorf("%v: it did not go back", took)
		}
		if n := l.opened.Load(); n < 4 || pool.quiet.Load() == 0 {
			t.Errorf("%d connections, quiet until %d: it did not try", n, pool.quiet.Load())
		}
		idle(t, pool)
	})
}

// That others are done, again and again, does not put off what is tried after a pause.
func TestABurstIsNotBelievedBecauseOthersAreDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 64 << 20, 4 << 30
		pool := NewPool(Limits{Enough: 128 << 20})
		l := &line{rate: rate, rtt: time.Millisecond, burst: time.Now().Add(500 * time.Millisecond)}
		ctx, cancel := context.WithCancel(t.Context())
		var others sync.WaitGroup
		others.Go(func() {
			for sleep(ctx, 4*time.Second) == nil {
				pool.freed.Add(1)
			}
		})
		if took, most := pullOne(t, pool, l, size), 34*time.Second; took > most {
			t.Errorf("%v, want %v at most", took, most)
		}
		cancel()
		others.Wait()
		idle(t, pool)
	})
}

// Once the other blob is done they have to help this one.
func TestConnectionsThatHelpedAnotherBlobAreGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 16 << 20, 512 << 20
		pool, l := NewPool(Limits{Enough: 256 << 20}), &line{rate: rate, rtt: time.Millisecond}
		pool.helped.Add(1)
		pool.bestAlone(200<<20, time.Now().Add(time.Hour))
		time.AfterFunc(4*time.Second, func() {
			pool.helped.Add(-1)
			pool.freed.Add(1)
		})
		pullOne(t, pool, l, size)
		if pool.quiet.Load() == 0 {
			t.Error("several connections went on, each of which is slower than one was")
		}
		idle(t, pool)
	})
}

// Of several files one can get too little of a processor for its connections to show. It
// keeps them while they help another, and who has none is not told to try none.
func TestConnectionsAreKeptThatHelpAnotherBlob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 16 << 20, 256 << 20
		pool, l := NewPool(Limits{Enough: 256 << 20}), &line{rate: rate, rtt: time.Millisecond}
		pool.helped.Add(1)
		pool.bestAlone(200<<20, time.Now().Add(time.Hour))
		if took := pullOne(t, pool, l, size); took > 6*time.Second || pool.quiet.Load() != 0 {
			t.Errorf("%v, quiet until %d: it did not keep four connections", took, pool.quiet.Load())
		}
		idle(t, pool)
		if n := pool.helped.Load(); n != 1 {
			t.Errorf("%d blobs are helped, want the other one", n)
		}
	})
}

// What was enough for a while need not be enough later.
func TestMoreConnectionsAreTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 1 << 20, 512 << 20
		l := &line{rate: rate, rtt: time.Millisecond, shared: make(chan struct{}, 1), total: 2 * rate, until: time.Now().Add(5 * time.Second)}
		// Eight connections have proved not to be better than four until then, and would
		// take 68 s.
		if took, want := pullAll(t, l, size), time.Minute; took > want {
			t.Errorf("%v, want %v at most", took, want)
		}
	})
}

// A pull that is cancelled closes what it reads twice: once to end the read, and at its end.
func TestAFanIsClosedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(Limits{})
		r := Open(t.Context(), pool, &line{rate: 1 << 20, rtt: time.Millisecond}, ocispec.Descriptor{Size: 1 << 30}, 0, Options{})
		readWhile(t, r, func() bool { return !pool.Spread() })
		if n := pool.streams.Load(); n != 1 {
			t.Errorf("%d blobs are open", n)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		idle(t, pool)
		if open, helped := pool.streams.Load(), pool.helped.Load(); open != 0 || helped != 0 {
			t.Errorf("%d blobs are said to be open, and %d to be helped", open, helped)
		}
	})
}

// A server that takes longer for the first byte of any part than a bad connection is given,
// as one that scans what it sends, is waited for.
func TestALateServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 100<<20 + 300_000 // the last segment is short
		pool, l := NewPool(Limits{Connections: 3}), &line{rate: 4 << 20, rtt: time.Millisecond, late: 4 * time.Second}
		var retries atomic.Int64
		r := Open(t.Context(), pool, l, ocispec.Descriptor{Size: size}, 0, Options{OnRetry: func(error) { retries.Add(1) }})
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			t.Errorf("%d of %d bytes: %v", n, size, err)
		}
		// Before anything is known of others.
		if n := retries.Load(); n > 2 {
			t.Errorf("%d connections were given up", n)
		}
		r.Close()
		idle(t, pool)
	})
}

// A blob for which there is no memory, since the reader of another one is slow, does not ask
// for a part again and again.
func TestABlobWithoutMemoryDoesNotAskForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, l := NewPool(Limits{}), &line{rate: 4 << 20, rtt: time.Millisecond}
		slow := Open(t.Context(), pool, l, ocispec.Descriptor{Size: 1 << 40}, 0, Options{})
		end := time.Now().Add(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			for buffer := make([]byte, 256<<10); time.Now().Before(end); {
				if _, err := slow.Read(buffer); err != nil {
					t.Error(err)
					return
				}
				if pool.Spread() {
					time.Sleep(time.Second / 4)
				}
			}
		})
		time.Sleep(20 * time.Second)
		r, before := Open(t.Context(), pool, l, ocispec.Descriptor{Size: 128 << 20}, 0, Options{}), l.asked.Load()
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		if n := l.asked.Load() - before; n > 5 {
			t.Errorf("%d bytes were asked for", n)
		}
		r.Close()
		wg.Wait()
		slow.Close()
		idle(t, pool)
	})
}

// Who reads slowly waits for no connection, and gives none up.
func TestASlowReaderGivesNoConnectionUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 20 << 20, 256 << 20
		pool, retries := NewPool(Limits{}), atomic.Int64{}
		r := Open(t.Context(), pool, &line{rate: rate, rtt: time.Millisecond}, ocispec.Descriptor{Size: size}, 0,
			Options{OnRetry: func(error) { retries.Add(1) }})
		defer r.Close()
		spread := false
		for buffer, left := make([]byte, 64<<10), size; left > 0; {
			n, err := io.ReadFull(r, buffer)
			if err != nil {
				t.Fatal(err)
			}
			left -= n
			if spread = spread || pool.Spread(); spread {
				time.Sleep(time.Second / 64) // 4 MiB/s: a segment lasts longer than any patience
			}
		}
		if n := retries.Load(); !spread || n > 0 {
			t.Errorf("spread: %v, %d connections were given up", spread, n)
		}
	})
}
