// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shown is a body that shows its bytes, at most five at a time, and must not be copied.
type shown struct {
	t    *testing.T
	rest string
	err  error // at the end
	held int   // pieces that were not done with
}

func (s *shown) Read([]byte) (int, error) {
	s.t.Error("the body was copied")
	return 0, io.ErrClosedPipe
}

func (s *shown) Piece(n int64) ([]byte, func(), error) {
	if s.held > 0 {
		s.t.Errorf("%d pieces are not done with", s.held)
	}
	if s.rest == "" {
		return nil, nil, s.err
	}
	n = min(n, 5, int64(len(s.rest)))
	p := []byte(s.rest[:n])
	s.rest = s.rest[n:]
	s.held++
	return p, func() { s.held-- }, nil
}

// bodyOf is b as the body of a request of n bytes.
func bodyOf[B interface {
	io.Reader
	piecer
}](t *testing.T, b B, n int64) *flowingPieces {
	_, dog := watch(t.Context(), time.Hour)
	t.Cleanup(dog.end)
	return &flowingPieces{flowing: &flowing{ReadCloser: io.NopCloser(b), dog: dog, each: time.Hour, last: time.Hour, left: n}, pieces: b}
}

// pair is a connection on loopback and what arrives at its other end.
func pair(t *testing.T) (sender, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return sender{here.(*net.TCPConn)}, there.(*net.TCPConn)
}

func TestABodyThatShowsItsBytesIsNotCopied(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		limit int64
		end   error // of the body
		want  string
		err   error
	}{
		"whole":            {21, io.EOF, "twenty-one bytes here", nil},
		"up to the limit":  {7, io.EOF, "twenty-", nil},
		"more is expected": {30, io.EOF, "twenty-one bytes here", nil},
		"a body that ends": {30, broken, "twenty-one bytes here", broken},
		"nothing":          {0, io.EOF, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here, there := pair(t)
			b := &shown{t: t, rest: "twenty-one bytes here", err: c.end}
			body := bodyOf(t, b, c.limit)
			l := &io.LimitedReader{R: body, N: c.limit}
			n, err := here.ReadFrom(l)
			if n != int64(len(c.want)) || !errors.Is(err, c.err) || err != nil && c.err == nil || l.N != c.limit-n {
				t.Errorf("%d bytes, %d left, %v; want %d and %v", n, l.N, err, len(c.want), c.err)
			}
			if body.left != l.N {
				t.Errorf("the watchdog heard of all but %d bytes, %d are left", body.left, l.N)
			}
			here.Close()
			got, err := io.ReadAll(there)
			if err != nil || string(got) != c.want || b.held != 0 {
				t.Errorf("%q arrived, want %q; %d pieces are held; %v", got, c.want, b.held, err)
			}
		})
	}
}

func TestAConnectionThatBreaksHoldsNoPiece(t *testing.T) {
	t.Parallel()
	here, _ := pair(t)
	here.Close()
	b := &shown{t: t, rest: "some bytes", err: io.EOF}
	if n, err := here.ReadFrom(&io.LimitedReader{R: bodyOf(t, b, 10), N: 10}); n != 0 || !errors.Is(err, net.ErrClosed) || b.held != 0 {
		t.Errorf("%d bytes, %v, %d pieces are held", n, err, b.held)
	}
}

// whole is a body that shows all of its bytes at once.
type whole struct{ rest []byte }

func (w *whole) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func (w *whole) Piece(n int64) ([]byte, func(), error) {
	p := w.rest[:min(n, int64(len(w.rest)))]
	w.rest = w.rest[len(p):]
	return p, func() {}, nil
}

// However large a piece, a connection has to take no more of it in the watchdog's time
// than of any other body.
func TestTheWatchdogHearsOfEveryWrite(t *testing.T) {
	t.Parallel()
	here, _ := pair(t)
	here.Close()
	const size = 4*sendBuffer + 1
	body := bodyOf(t, &whole{make([]byte, size)}, size)
	if n, err := here.ReadFrom(&io.LimitedReader{R: body, N: size}); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if told := size - body.left; told != sendBuffer {
		t.Errorf("before its first write returned the watchdog heard of %d bytes, want %d", told, sendBuffer)
	}
}

func TestOtherBodiesAreCopied(t *testing.T) {
	t.Parallel()
	here, there := pair(t)
	text := strings.Repeat("any reader ", 1000)
	for _, r := range []io.Reader{strings.NewReader(text), io.LimitReader(strings.NewReader(text), int64(len(text)))} {
		if n, err := here.ReadFrom(r); n != int64(len(text)) || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	here.Close()
	if got, err := io.ReadAll(there); err != nil || !bytes.Equal(got, []byte(text+text)) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
}

// A name that was found, and is not for a while, is asked for again. One that never was is
// not waited for.
func TestANameThatWasFoundMayBeFoundAgain(t *testing.T) {
	t.Parallel()
	content := []byte("content")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	t.Cleanup(srv.Close)
	missing := 0 // lookups that fail
	c, err := NewClient(Options{PlainHTTP: true, Sleep: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	c.transport.DialContext = sending(remembering(func(ctx context.Context, network, address string) (net.Conn, error) {
		if missing--; missing < 0 && address == "registry.example:80" {
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}}
	}))
	for _, ask := range []struct {
		host             string
		missing, retries int
		found            bool
	}{
		{"registry.example", 1, 0, false},
		{"registry.example", 0, 0, true},
		{"registry.example", 3, 3, true},
		{"other.example", 0, 0, false},
	} {
		ref, err := ParseReference(ask.host + "/m")
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Repository(ref)
		if err != nil {
			t.Fatal(err)
		}
		c.transport.CloseIdleConnections()
		missing = ask.missing
		_, err = r.FetchBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}, 100)
		if (err == nil) != ask.found || r.Retries() != ask.retries || err != nil && !strings.Contains(err.Error(), "no such host") {
			t.Errorf("%+v: %v after %d retries", ask, err, r.Retries())
		}
	}
}
