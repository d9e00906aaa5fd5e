// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// BenchmarkPush sends files of 256 MiB over a loopback connection each to somebody who
// reads and forgets: the client's side of a push to a registry that never keeps it
// waiting.
func BenchmarkPush(b *testing.B) {
	for name, files := range map[string]int{"one": 1, "three": 3} {
		b.Run(name, func(b *testing.B) { benchmarkPush(b, files) })
	}
}

func benchmarkPush(b *testing.B, files int) {
	const size = 256 << 20
	name := filepath.Join(b.TempDir(), "model.bin")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
			}()
		}
	}()
	b.SetBytes(int64(files) * size)
	for b.Loop() {
		pool := NewPool(Limits{})
		done := make(chan error, files)
		for range files {
			go func() {
				_, err := Push(b.Context(), sink(l.Addr().String()), &diskFile{name: name, size: size}, PushOptions{Pool: pool})
				done <- err
			}()
		}
		for range files {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
}

// sink is a Destination at an address that takes everything.
type sink string

func (s sink) Begin(context.Context) (Session, error) { return s, nil }
func (s sink) Has(context.Context, digest.Digest, int64) (bool, error) {
	return false, nil
}
func (s sink) MinChunk() int64                             { return 0 }
func (s sink) Received(context.Context) (int64, error)     { return 0, nil }
func (s sink) Commit(context.Context, digest.Digest) error { return nil }
func (s sink) Cancel(context.Context)                      {}
func (s sink) Send(_ context.Context, _, _ int64, open func() (io.ReadCloser, error)) error {
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	c, err := net.Dial("tcp", string(s))
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		p, done, err := rc.(*body).Piece(1 << 40)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = c.Write(p)
		done()
		if err != nil {
			return err
		}
	}
}
