// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"net"
	"sync"
)

// sendBuffer is how much of a body is read and written at a time. The standard
// library's 32 KiB cost a system call, and a wake-up at the other end, eight times
// as often.
const sendBuffer = 256 << 10

var sendBuffers = sync.Pool{New: func() any { b := make([]byte, sendBuffer); return &b }}

// sender is a TCP connection whose bodies go out in large writes.
type sender struct{ *net.TCPConn }

// onlyReader and onlyWriter hide what would have io.CopyBuffer choose a buffer of
// its own.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func (s sender) ReadFrom(r io.Reader) (int64, error) {
	buf := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(buf)
	return io.CopyBuffer(onlyWriter{s.TCPConn}, onlyReader{r}, *buf)
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
