// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

var content = func() []byte {
	b := make([]byte, 100_000)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(b)
	return b
}()

func blob() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// opener is a Source that is one function.
type opener func(ctx context.Context, offset int64) (io.ReadCloser, error)

func (o opener) OpenBlob(ctx context.Context, _ ocispec.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	body, err := o(ctx, offset)
	return body, offset, err
}

var errCut = fmt.Errorf("connection reset: %w", io.ErrUnexpectedEOF)

// clock is moved by waiting alone.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return ctx.Err()
}

func (c *clock) options() transfer.Options { return transfer.Options{Now: c.Now, Sleep: c.Sleep} }

func newClock() *clock { return &clock{now: time.Unix(1e9, 0)} }

func whole(offset int64) io.ReadCloser { return io.NopCloser(bytes.NewReader(content[offset:])) }

func TestReaderIsAReader(t *testing.T) {
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"plain": func(r io.Reader) io.Reader { return r }, "one byte at a time": iotest.OneByteReader,
		"half": iotest.HalfReader, "data with the end": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			small := content[:1000]
			src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
				return io.NopCloser(wrap(bytes.NewReader(small[offset:]))), nil
			})
			for _, offset := range []int64{0, 1, 999, 1000} {
				r := transfer.NewReader(t.Context(), src, ocispec.Descriptor{Size: 1000}, offset, newClock().options())
				if err := iotest.TestReader(r, small[offset:]); err != nil {
					t.Errorf("from %d: %v", offset, err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Every connection is cut after a random number of bytes, some before the first.
func TestReaderGoesOnWhereItWasCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		opened := 0
		src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
			opened++
			n := min(random.Int64N(20_000), int64(len(content))-offset)
			return io.NopCloser(io.MultiReader(bytes.NewReader(content[offset:offset+n]), iotest.ErrReader(errCut))), nil
		})
		retried := 0
		o := newClock().options()
		o.OnRetry = func(err error) {
			if retried++; !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("retried after %v", err)
			}
		}
		got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, o))
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if opened < 2 || retried != opened-1 {
			t.Errorf("opened %d times, retried %d times", opened, retried)
		}
	}
}

func TestReaderEndsWhenTheBudgetIsSpent(t *testing.T) {
	for name, body := range map[string]func() (io.ReadCloser, error){
		"cut before a byte": func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(errCut)), nil },
		"not opened":        func() (io.ReadCloser, error) { return nil, errCut },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			began, opened := c.Now(), 0
			o := c.options()
			o.Budget = 10 * time.Second
			src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
				if opened++; offset == 0 {
					return io.NopCloser(io.MultiReader(bytes.NewReader(content[:5]), iotest.ErrReader(errCut))), nil
				}
				return body()
			})
			got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, o))
			if !errors.Is(err, errCut) || len(got) != 5 {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if took := c.Now().Sub(began); took > o.Budget || opened < 3 {
				t.Errorf("gave up after %s and %d connections", took, opened)
			}
		})
	}
}

// A slow link that is cut again and again is no outage: a byte starts the budget
// anew, however long the whole takes.
func TestReaderBudgetStartsAnewWithEveryByte(t *testing.T) {
	c := newClock()
	began := c.Now()
	o := c.options()
	o.Budget = time.Second
	src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
		end := min(offset+100, int64(len(content)))
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[offset:end]), iotest.ErrReader(errCut))), nil
	})
	got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, o))
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if took := c.Now().Sub(began); took < 10*o.Budget {
		t.Errorf("took %s: the budget was not put to the test", took)
	}
}

func TestReaderGivesUpOnAStalledConnection(t *testing.T) {
	opened := 0
	o := newClock().options()
	o.Stall = 20 * time.Millisecond
	src := opener(func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		if opened++; opened == 1 {
			return io.NopCloser(io.MultiReader(bytes.NewReader(content[:7]), silent{ctx})), nil
		}
		return whole(offset), nil
	})
	got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, o))
	if err != nil || !bytes.Equal(got, content) || opened != 2 {
		t.Errorf("%d bytes over %d connections, %v", len(got), opened, err)
	}
}

// silent says nothing until its connection is given up.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// wholeOnly is a Source that sends no less than the whole blob.
type wholeOnly func() io.Reader

func (w wholeOnly) OpenBlob(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, int64, error) {
	return io.NopCloser(w()), 0, nil
}

// slowly gives step bytes a read, each of which takes a time by the clock.
type slowly struct {
	io.Reader
	c    *clock
	step int
	each time.Duration
}

func (s slowly) Read(p []byte) (int, error) {
	_ = s.c.Sleep(context.Background(), s.each)
	return s.Reader.Read(p[:min(len(p), s.step)])
}

// What lies before the offset is discarded and told, and takes as long as it takes.
func TestReaderDiscardsWhatItHas(t *testing.T) {
	const offset = 90_000
	c := newClock()
	o := c.options()
	o.Budget = time.Minute
	opened, discarded := 0, int64(0)
	o.OnDiscard = func(n int64) { discarded += n }
	src := wholeOnly(func() io.Reader {
		// Ten seconds for 10,000 bytes: more than the budget before the first new one.
		all := slowly{bytes.NewReader(content), c, 10_000, 10 * time.Second}
		if opened++; opened == 1 {
			return io.MultiReader(io.LimitReader(all, 80_000), iotest.ErrReader(errCut))
		}
		return all
	})
	got, err := io.ReadAll(bufio.NewReaderSize(transfer.NewReader(t.Context(), src, blob(), offset, o), 32<<10))
	if err != nil || !bytes.Equal(got, content[offset:]) || opened != 2 {
		t.Fatalf("%d bytes over %d connections, %v", len(got), opened, err)
	}
	if discarded != 80_000+offset {
		t.Errorf("%d bytes were discarded", discarded)
	}
}

// Who never gets to the offset does not go on for ever, though bytes flow.
func TestReaderEndsWhenAllIsInVain(t *testing.T) {
	const size = 200 << 20
	src := wholeOnly(func() io.Reader {
		return io.MultiReader(io.LimitReader(zeros{}, 100<<20), iotest.ErrReader(errCut))
	})
	discarded := int64(0)
	o := newClock().options()
	o.OnDiscard = func(n int64) { discarded += n }
	r := transfer.NewReader(t.Context(), src, ocispec.Descriptor{Size: size}, 150<<20, o)
	if n, err := r.Read(make([]byte, 1<<20)); n != 0 || !errors.Is(err, errCut) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if discarded < 2*size || discarded > 5*size {
		t.Errorf("gave up after %d bytes", discarded)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A connection that drips is given up like one that is silent, and who only drips, over
// however many connections, is no better than who says nothing.
func TestReaderGivesUpOnADrippingConnection(t *testing.T) {
	clk := newClock()
	drips := func(r io.Reader) io.Reader { return slowly{r, clk, 100, 25 * time.Second} }
	aByte := func(r io.Reader, silence time.Duration) io.Reader {
		return io.MultiReader(io.LimitReader(r, 1), slowly{iotest.ErrReader(errCut), clk, 1, silence})
	}
	for name, c := range map[string]struct {
		least int64
		times int // connections that are like that
		body  func(io.Reader) io.Reader
		ends  bool
		opens int
	}{
		"one":                  {0, 1, drips, false, 2},
		"is allowed":           {-1, 1, drips, false, 1},
		"all":                  {0, 1 << 20, drips, true, 0},
		"a byte, then silence": {0, 1 << 20, func(r io.Reader) io.Reader { return aByte(r, 30*time.Second) }, true, 0},
		"a byte, then cut":     {0, 1 << 20, func(r io.Reader) io.Reader { return aByte(r, 0) }, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			opened, began := 0, clk.Now()
			o := clk.options()
			o.Budget, o.Least = 10*time.Minute, c.least
			src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
				if opened++; opened > c.times {
					return whole(offset), nil
				}
				return io.NopCloser(c.body(bytes.NewReader(content[offset:]))), nil
			})
			got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, o))
			if !bytes.Equal(got, content[:len(got)]) || (err != nil) != c.ends || !c.ends && (len(got) != len(content) || opened != c.opens) {
				t.Errorf("%d bytes over %d connections, %v", len(got), opened, err)
			}
			// 30 seconds are what a read may take.
			if took := clk.Now().Sub(began); c.ends && (took > o.Budget+2*time.Minute || took < o.Budget) {
				t.Errorf("gave up after %v", took)
			}
		})
	}
}

// asksFor is an error that says when to come again.
type asksFor time.Duration

func (a asksFor) Error() string             { return "too many requests" }
func (a asksFor) Retryable() bool           { return true }
func (a asksFor) RetryAfter() time.Duration { return time.Duration(a) }

func TestReaderWaitsAsLongAsItIsAsked(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		opens int
		fails bool
	}{{40 * time.Second, 3, false}, {time.Hour, 1, true}} {
		clk, opened := newClock(), 0
		began := clk.Now()
		src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
			if opened++; opened < 3 {
				return nil, asksFor(c.after)
			}
			return whole(offset), nil
		})
		got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, clk.options()))
		if c.fails != (err != nil) || opened != c.opens || !c.fails && !bytes.Equal(got, content) {
			t.Errorf("%v: %d bytes after %d tries, %v", c.after, len(got), opened, err)
		}
		if took := clk.Now().Sub(began); took < time.Duration(opened-1)*c.after {
			t.Errorf("%v: waited %v", c.after, took)
		} else if !c.fails && took == time.Duration(opened-1)*c.after {
			t.Errorf("%v: all clients would come back at once", c.after)
		}
	}
}

func TestReaderReportsABlobThatIsShort(t *testing.T) {
	opened := 0
	src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
		opened++
		return io.NopCloser(bytes.NewReader(content[min(offset, 500):500])), nil
	})
	got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, newClock().options()))
	var short *transfer.ShortError
	if !errors.As(err, &short) || short.Got != 500 || short.Want != int64(len(content)) || len(got) != 500 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// Once more, for a connection that was closed instead of cut.
	if opened != 2 {
		t.Errorf("opened %d times, want twice", opened)
	}
}

func TestReaderNeverGivesMoreThanTheDescriptor(t *testing.T) {
	src := opener(func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[offset:]), bytes.NewReader(content))), nil
	})
	got, err := io.ReadAll(transfer.NewReader(t.Context(), src, blob(), 0, newClock().options()))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestReaderStopsAtOnce(t *testing.T) {
	final := errors.New("denied")
	for name, c := range map[string]struct {
		offset int64
		err    error
	}{"a final error": {0, final}, "before the beginning": {-1, nil}, "past the end": {blob().Size + 1, nil}} {
		opened := 0
		src := opener(func(context.Context, int64) (io.ReadCloser, error) { opened++; return nil, c.err })
		r := transfer.NewReader(t.Context(), src, blob(), c.offset, newClock().options())
		_, err := r.Read(make([]byte, 1))
		if err == nil || (c.err != nil && !errors.Is(err, c.err)) || (c.err == nil) != (opened == 0) || opened > 1 {
			t.Errorf("%s: %v after %d connections", name, err, opened)
		}
		if _, again := r.Read(make([]byte, 1)); again != err {
			t.Errorf("%s: then %v", name, again)
		}
	}
	r := transfer.NewReader(t.Context(), opener(func(_ context.Context, o int64) (io.ReadCloser, error) { return whole(o), nil }), blob(), 0, transfer.Options{})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("read %d after Close, %v", n, err)
	}
}

func TestReaderStopsWithItsContext(t *testing.T) {
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	src := opener(func(ctx context.Context, _ int64) (io.ReadCloser, error) {
		cancel(cause)
		return io.NopCloser(silent{ctx}), nil
	})
	if _, err := transfer.NewReader(ctx, src, blob(), 0, newClock().options()).Read(make([]byte, 1)); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

// A model's other layers are closed when one fails, in the middle of their reads.
func TestReaderMayBeClosedWhileItReads(t *testing.T) {
	for name, c := range map[string]struct {
		open opener
		o    func(*transfer.Options)
	}{
		"in a read": {open: func(ctx context.Context, _ int64) (io.ReadCloser, error) { return io.NopCloser(silent{ctx}), nil }},
		"in opening": {open: func(ctx context.Context, _ int64) (io.ReadCloser, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		"in waiting": {open: func(context.Context, int64) (io.ReadCloser, error) { return nil, errCut },
			o: func(o *transfer.Options) {
				o.Sleep = func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return context.Cause(ctx) }
			}},
	} {
		t.Run(name, func(t *testing.T) {
			var o transfer.Options
			if c.o != nil {
				c.o(&o)
			}
			r := transfer.NewReader(t.Context(), c.open, blob(), 0, o)
			done := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(r)
				done <- err
			}()
			time.Sleep(5 * time.Millisecond)
			if err := errors.Join(r.Close(), r.Close()); err != nil {
				t.Error(err)
			}
			select {
			case err := <-done:
				if err == nil {
					t.Error("a closed reader passes for one at its end")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the read goes on")
			}
		})
	}
}

// The same over HTTP, with a registry's client as the Source.
func TestReaderOverHTTP(t *testing.T) {
	kept := int64(len(content) / 2)
	tests := map[string]struct {
		serve http.HandlerFunc
		kind  registry.Kind // zero: the blob arrives
		gets  int
	}{
		"ranges": {serve: cutHalf(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		}), gets: 2},
		"200 in answer to a range": {serve: cutHalf(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }), gets: 2},
		"a range from elsewhere": {serve: cutHalf(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", kept-1, len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[kept-1:])
		}), kind: registry.Protocol, gets: 2},
		"a range of another whole": {serve: cutHalf(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", kept, len(content)-1, len(content)+1))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[kept:])
		}), kind: registry.Corrupt, gets: 3},
		"no Content-Range": {serve: cutHalf(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[kept:])
		}), kind: registry.Protocol, gets: 2},
		"no such range": {serve: cutHalf(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", kept))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}), kind: registry.Corrupt, gets: 3},
		"no ranges any more": {serve: wholeAfterRefusal(), gets: 3},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			gets := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				gets++
				c.serve(w, r)
			}))
			defer srv.Close()
			o := newClock().options()
			o.Retryable = registry.Retryable
			got, err := io.ReadAll(transfer.NewReader(t.Context(), repository(t, srv.URL), blob(), 0, o))
			if c.kind == 0 && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if e := (*registry.Error)(nil); c.kind != 0 && (!errors.As(err, &e) || e.Kind != c.kind) {
				t.Errorf("error %v, want kind %q", err, c.kind)
			}
			if gets != c.gets {
				t.Errorf("%d requests, want %d", gets, c.gets)
			}
		})
	}
}

// wholeAfterRefusal breaks answers in their middle until it has refused a range, without a
// word about the blob.
func wholeAfterRefusal() http.HandlerFunc {
	refused := false
	cut := cutHalf(func(w http.ResponseWriter, _ *http.Request) {
		refused = true
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	})
	return func(w http.ResponseWriter, r *http.Request) {
		if refused {
			_, _ = w.Write(content)
			return
		}
		cut(w, r)
	}
}

// cutHalf breaks the first answer in its middle; then has the others.
func cutHalf(then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			then(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func repository(t *testing.T, url string) *registry.Repository {
	t.Helper()
	c, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(strings.TrimPrefix(url, "http://") + "/m:v1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
