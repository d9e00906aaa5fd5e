// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
)

func pumping() *transfer {
	return &transfer{progress: orNoProgress(nil), hashing: hashing.NewGroup(1<<10, buffers, 0)}
}

// fullDisk takes room bytes and no more.
type fullDisk struct {
	bytes.Buffer
	room int
}

var errFull = errors.New("no space left")

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.Len()+len(p) > d.room {
		return 0, errFull
	}
	return d.Buffer.Write(p)
}

// A write that fails ends a read that waits for a server that has stopped sending.
func TestAFullDiskEndsABlockedRead(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	disk := &fullDisk{room: 3 << 10}
	server, client := io.Pipe()
	defer context.AfterFunc(ctx, func() { server.Close() })()
	sent := bytes.Repeat([]byte{7}, 4<<10)
	go client.Write(sent)
	_, err := pumping().pump(ctx, server, newBehind(disk, cancel, nil), sha256.New())
	if !errors.Is(err, errFull) {
		t.Errorf("%v, want the disk's error", err)
	}
	if !bytes.Equal(disk.Bytes(), sent[:disk.room]) {
		t.Errorf("%d bytes are on the disk, want %d", disk.Len(), disk.room)
	}
}

// What came before a cut is on the disk when pump returns, and in the hash.
func TestWhatCameBeforeACutIsWritten(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1 << 10, 20<<10 + 1} {
		sent := bytes.Repeat([]byte{byte(n)}, n)
		disk, sum := &fullDisk{room: n}, sha256.New()
		r := io.MultiReader(bytes.NewReader(sent), iotest.ErrReader(io.ErrUnexpectedEOF))
		total, err := pumping().pump(t.Context(), r, newBehind(disk, nil, nil), sum)
		if total != int64(n) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes and %v, want %d and the cut", total, err, n)
		}
		if want := sha256.Sum256(sent); !bytes.Equal(disk.Bytes(), sent) || [32]byte(sum.Sum(nil)) != want {
			t.Errorf("of %d bytes %d are on the disk; the hash is right: %v", n, disk.Len(), [32]byte(sum.Sum(nil)) == want)
		}
	}
}
