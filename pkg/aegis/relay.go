// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// relay is a blob on its way from one place to another, as package transfer wants
// what it sends. What one request has not read, the next one goes on with: a source is
// not opened anew for each piece. It has to be closed.
type relay struct {
	desc ocispec.Descriptor
	open func(offset int64) (io.ReadCloser, error)

	mu     sync.Mutex
	kept   io.ReadCloser // stands at the offset at; nobody reads it
	at     int64
	timer  *time.Timer // gives it up
	closed bool
}

// keptFor is how long a body waits for the next request. It holds connections and memory
// that others may want.
const keptFor = 5 * time.Second

var _ transfer.File = (*relay)(nil)

func (r *relay) Size() int64 { return r.desc.Size }

// Check has nothing to say: a blob does not change, and its digest is known.
func (r *relay) Check() error { return nil }

func (r *relay) Open(offset int64) (io.ReadCloser, error) {
	body := r.take(offset)
	if body == nil {
		var err error
		if body, err = r.open(offset); err != nil {
			return nil, err
		}
	}
	return &lease{relay: r, body: body, at: offset}, nil
}

// take returns what is kept if it stands at an offset, and closes it otherwise.
func (r *relay) take(offset int64) io.ReadCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	body := r.kept
	if body == nil {
		return nil
	}
	r.kept = nil
	if r.timer.Stop(); r.at != offset {
		body.Close()
		return nil
	}
	return body
}

// keep takes a body back.
func (r *relay) keep(body io.ReadCloser, at int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.kept != nil || at >= r.desc.Size {
		return body.Close()
	}
	r.kept, r.at = body, at
	r.timer = time.AfterFunc(keptFor, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.kept == body {
			r.kept = nil
			body.Close()
		}
	})
	return nil
}

// Close gives up what is kept, and whatever comes back later.
func (r *relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.take(-1)
	return nil
}

// lease is a relay's body while it is being read.
type lease struct {
	relay *relay
	body  io.ReadCloser

	reading sync.Mutex // held by Read
	at      int64
	failed  bool
	closed  bool
}

func (l *lease) Read(p []byte) (int, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.closed {
		return 0, os.ErrClosed
	}
	n, err := l.body.Read(p)
	if l.at += int64(n); err == io.EOF && l.at < l.relay.desc.Size {
		// Of a source that says what is missing, this is not heard.
		err = &model.ContentError{Path: "the layer", Want: l.relay.desc.Digest,
			Reason: fmt.Sprintf("it is %d bytes shorter", l.relay.desc.Size-l.at)}
	}
	l.failed = err != nil
	return n, err
}

// Close may come in the middle of a Read, which it ends.
func (l *lease) Close() error {
	if !l.reading.TryLock() {
		return l.body.Close()
	}
	defer l.reading.Unlock()
	if l.closed {
		return nil
	}
	if l.closed = true; l.failed {
		return l.body.Close()
	}
	return l.relay.keep(l.body, l.at)
}
