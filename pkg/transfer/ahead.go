// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// aheadAfter is how long an upload is watched before it is judged.
	aheadAfter = 2 * time.Second
	// aheadBelow is the rate of all blobs together, in bytes a second, below which
	// hashing ahead costs little beside what it may save: one core hashes a dozen
	// times as fast. A gigabit a second is just below.
	aheadBelow = 120 << 20
	// aheadLeast is how much must be left for it to pay.
	aheadLeast = 64 << 20
	aheadBuf   = 256 << 10
)

// ahead hashes the rest of a file while it is being sent, when the network is the
// limit, to ask early whether the blob is there. That is what sending without a
// known digest gives up: of a file of 100 GB that is there already, at 100 MB/s,
// a few per cent are sent instead of all. Where the network is fast, the file is
// read once.
type ahead struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	push   *push

	begun   atomic.Bool
	running sync.WaitGroup

	mu     sync.Mutex
	digest digest.Digest
}

// thereError is the cause that ends an upload of what is there already.
type thereError struct{ digest digest.Digest }

func (e *thereError) Error() string { return fmt.Sprintf("the blob %s is there already", e.digest) }

func newAhead(ctx context.Context, cancel context.CancelCauseFunc, p *push) *ahead {
	a := &ahead{ctx: ctx, cancel: cancel, push: p}
	a.begun.Store(p.o.Digest != "") // there is nothing to find out
	return a
}

// found is the digest of the whole file, "" when it is not known yet.
func (a *ahead) found() digest.Digest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.digest
}

func (a *ahead) wait() { a.running.Wait() }

// consider begins to hash ahead when it pays. It is called with each read.
func (a *ahead) consider() {
	if a.begun.Load() || !a.pays() || a.begun.Swap(true) {
		return
	}
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		a.run()
	}()
}

// pays reports whether what is left is worth hashing ahead: much is left, the
// network is slow, and the disk is not what slows it.
func (a *ahead) pays() bool {
	p := a.push
	took := p.o.Now().Sub(p.since0)
	if took < aheadAfter || p.file.Size()-p.front.at() < aheadLeast || p.front.timeReading() > took/4 {
		return false
	}
	return float64(p.o.Pool.moved.Load()-p.moved0)/took.Seconds() < aheadBelow
}

// run stops without a word when it cannot go on: the sender will see the same.
func (a *ahead) run() {
	state := a.push.front.state()
	rc, err := a.push.file.Open(state.offset)
	if err != nil {
		return
	}
	defer rc.Close()
	buf := make([]byte, aheadBuf)
	for state.offset < a.push.file.Size() {
		n, err := rc.Read(buf)
		state.hash.Write(buf[:n])
		state.offset += int64(n)
		if a.ctx.Err() != nil || err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	if a.ctx.Err() != nil || state.offset != a.push.file.Size() || a.push.file.Check() != nil {
		return
	}
	d := digest.NewDigest(digest.SHA256, state.hash)
	a.mu.Lock()
	a.digest = d
	a.mu.Unlock()
	if there, err := a.push.dst.Has(a.ctx, d, a.push.file.Size()); err == nil && there {
		a.cancel(&thereError{d})
	}
}
