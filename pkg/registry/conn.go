// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// sendBuffer is how much of a body is read and written at a time. The standard
// library's 32 KiB cost a system call, and a wake-up at the other end, eight times
// as often.
const sendBuffer = 256 << 10

var sendBuffers = buffer.NewPool(sendBuffer)

// sender is a TCP connection whose bodies go out in large writes.
type sender struct{ *net.TCPConn }

// onlyReader and onlyWriter hide what would have io.CopyBuffer choose a buffer of
// its own.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// piecer is a body that can show its bytes where they are, at most n at a time and
// until done is called. Its end is io.EOF.
type piecer interface {
	Piece(n int64) (p []byte, done func(), err error)
}

// ReadFrom is what net/http sends a body with whose size is known.
func (s sender) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if b, ok := l.R.(*flowingPieces); ok {
			return s.sendPieces(b, l)
		}
	}
	buf := sendBuffers.Get()
	defer sendBuffers.Put(buf)
	return io.CopyBuffer(onlyWriter{s.TCPConn}, onlyReader{r}, *buf)
}

// sendPieces sends what l lets through of b, without a copy of it. The watchdog hears of
// every write, as it does of every Read of another body.
func (s sender) sendPieces(b *flowingPieces, l *io.LimitedReader) (total int64, err error) {
	for l.N > 0 {
		p, done, err := b.Piece(l.N)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := s.sendPiece(b, p)
		done()
		total += int64(n)
		l.N -= int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (s sender) sendPiece(b *flowingPieces, p []byte) (total int, err error) {
	for part := range slices.Chunk(p, sendBuffer) {
		b.flowed(len(part))
		n, err := s.TCPConn.Write(part)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// sending makes connections senders.
func sending(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			return sender{tcp}, nil
		}
		return conn, err
	}
}

// remembering has a name that cannot be found pass where it was found before: a service of
// Kubernetes none of whose pods is ready has no address, and name servers have hiccups. One
// that was never found is a typing error, and is not waited for.
func remembering(dial dialFunc) dialFunc {
	var found sync.Map
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		var dns *net.DNSError
		if !errors.As(err, &dns) {
			found.Store(address, true)
			return conn, err
		}
		if _, before := found.Load(address); before && dns.IsNotFound {
			passes := *dns // it may be shared with other lookups
			passes.IsNotFound, passes.IsTemporary = false, true
			err = &net.OpError{Op: "dial", Net: network, Err: &passes}
		}
		return nil, err
	}
}
