// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package hashing

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// send writes all of p to a stream, in pieces of any size, and returns its sum.
func send(g *Group, p []byte, pieces *rand.Rand) [32]byte {
	sum := sha256.New()
	s := g.Stream(sum)
	defer s.Close()
	for len(p) > 0 {
		b := s.Buffer()
		n := copy((*b)[:1+pieces.IntN(len(*b))], p)
		s.Write(b, n, nil)
		p = p[n:]
		if pieces.IntN(5) == 0 {
			s.Flush()
		}
		if pieces.IntN(3) == 0 {
			runtime.Gosched()
		}
	}
	s.Close()
	return [32]byte(sum.Sum(nil))
}

func TestEveryStreamOfAGroupHasItsSum(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{0, 1, 3, 16} {
		for _, streams := range []int{1, 2, 3, 17} {
			synctest.Test(t, func(t *testing.T) {
				g := NewGroup(8<<10, 3, workers)
				for i := range streams {
					go func() {
						r := rand.New(rand.NewPCG(uint64(i), uint64(workers)))
						p := text(uint64(i), r.IntN(300<<10))
						if send(g, p, r) != sha256.Sum256(p) {
							t.Errorf("%d streams, %d workers: stream %d of %d bytes has a wrong sum", streams, workers, i, len(p))
						}
					}()
				}
				synctest.Wait()
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.open != 0 || g.workers != 0 || len(g.ready) != 0 {
					t.Errorf("left behind: %d streams, %d workers, %d ready", g.open, g.workers, len(g.ready))
				}
			})
		}
	}
}

// A stream whose neighbour brings nothing must not wait for it once its writer does:
// a server that stalls would stop the others.
func TestAStreamDoesNotWaitForOneThatIsIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(1<<10, 3, 1)
		idle := g.Stream(sha256.New())
		p := text(1, 100<<10)
		if send(g, p, rand.New(rand.NewPCG(1, 1))) != sha256.Sum256(p) {
			t.Error("wrong sum")
		}
		idle.Close()
	})
}

// What the last stream is waited for is hashed when it turns out to bring nothing.
func TestTheEndOfAStreamLetsTheOtherGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(1<<10, 3, 1)
		idle, sum := g.Stream(sha256.New()), sha256.New()
		s := g.Stream(sum)
		hashed := false
		b := s.Buffer()
		s.Write(b, copy(*b, "waits"), func() { hashed = true })
		synctest.Wait()
		if hashed == pairing {
			t.Errorf("hashed before there was company: %v", hashed)
		}
		idle.Close()
		synctest.Wait()
		if !hashed {
			t.Error("not hashed when nobody else was left")
		}
		s.Close()
		if !bytes.Equal(sum.Sum(nil), func() []byte { s := sha256.Sum256([]byte("waits")); return s[:] }()) {
			t.Error("wrong sum")
		}
	})
}

// then hears of each piece in its turn, whatever it is paired with.
func TestPiecesAreHashedInOrder(t *testing.T) {
	t.Parallel()
	g := NewGroup(8<<10, 4, 0)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			s := g.Stream(sha256.New())
			var got []int
			for n := range 200 {
				b := s.Buffer()
				s.Write(b, 1+(n*731+i)%len(*b), func() { got = append(got, n) })
			}
			s.Close()
			if len(got) != 200 {
				t.Fatalf("%d of 200 pieces", len(got))
			}
			for n, v := range got {
				if n != v {
					t.Fatalf("piece %d came as number %d", v, n)
				}
			}
		})
	}
	wg.Wait()
}

// However much goes through, a stream has no more than its buffers.
func TestAStreamKeepsToItsBuffers(t *testing.T) {
	t.Parallel()
	g := NewGroup(1<<10, 3, 1)
	s := g.Stream(sha256.New())
	had := make(map[*[]byte]bool)
	for range 200 {
		b := s.Buffer()
		had[b] = true
		s.Write(b, len(*b), nil)
	}
	s.Close()
	if len(had) > 3 {
		t.Errorf("%d buffers, want 3 at most", len(had))
	}
}

// A buffer that somebody else reads is nobody's to fill before both have done.
func TestASharedBufferIsKeptForBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(1<<10, 2, 1)
		sum := sha256.New()
		s := g.Stream(sum)
		first := s.Buffer()
		done := s.Share(first, copy(*first, "shared"), nil)
		second := s.Buffer()
		s.Write(second, copy(*second, " and not"), nil)
		if third := s.Buffer(); third != second {
			t.Fatal("the buffer that is still being read was given out")
		}
		s.Flush()
		time.AfterFunc(time.Second, done)
		began := time.Now()
		if fourth := s.Buffer(); fourth != first || time.Since(began) != time.Second {
			t.Errorf("the shared buffer came back: %v, after %v of the reader's second", fourth == first, time.Since(began))
		}
		s.Close()
		if want := sha256.Sum256([]byte("shared and not")); [32]byte(sum.Sum(nil)) != want {
			t.Error("wrong sum")
		}
	})
}

// What is shared when a stream ends, or was not written yet, comes back to the group all the
// same.
func TestBuffersComeBackAfterTheEnd(t *testing.T) {
	before := buffer.InUse()
	g := NewGroup(buffer.Large, 4, 0)
	s := g.Stream(sha256.New())
	shared, unwritten, other := s.Buffer(), s.Buffer(), s.Buffer()
	done := s.Share(shared, 100, nil)
	s.Write(other, 100, nil)
	s.Close()
	if n := buffer.InUse() - before; n != 2 {
		t.Errorf("%d in use after the end, want 2", n)
	}
	done()
	s.Write(unwritten, 0, nil)
	if n := buffer.InUse() - before; n != 0 {
		t.Errorf("%d in use when all are done", n)
	}
}

// Whoever reads what is hashed finds it as it was, whichever of the two is faster.
func TestSharedBuffersHoldWhatWasWritten(t *testing.T) {
	t.Parallel()
	g := NewGroup(4<<10, 4, 0)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			p := text(uint64(i), 300<<10+i)
			sum, read := sha256.New(), sha256.New()
			s := g.Stream(sum)
			type piece struct {
				b    []byte
				done func()
			}
			pieces, end := make(chan piece, 4), make(chan struct{})
			go func() {
				defer close(end)
				for q := range pieces {
					read.Write(q.b)
					q.done()
				}
			}()
			for rest := p; len(rest) > 0; {
				b := s.Buffer()
				n := copy(*b, rest)
				pieces <- piece{(*b)[:n], s.Share(b, n, nil)}
				rest = rest[n:]
			}
			close(pieces)
			<-end
			s.Close()
			if want := sha256.Sum256(p); [32]byte(sum.Sum(nil)) != want || [32]byte(read.Sum(nil)) != want {
				t.Errorf("stream %d: the sum is right: %v, and so is what was read: %v", i, [32]byte(sum.Sum(nil)) == want, [32]byte(read.Sum(nil)) == want)
			}
		})
	}
	wg.Wait()
}
