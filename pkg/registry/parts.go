// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobBody is a blob's bytes, and what their server says of ranges of it.
type blobBody struct {
	*stream
	repo    *Repository
	desc    ocispec.Descriptor
	accepts string
	part    bool // it is one itself
}

// Part asks the one that sends the body, and no mirror beside it, for a part of the blob.
func (b *blobBody) Part(ctx context.Context, offset, end int64) (io.ReadCloser, error) {
	return b.repo.openPart(ctx, b.op, b.about, b.desc, offset, end)
}

// Ranges says whether to ask for a part of the blob while the body is read. Who says
// nothing may send parts anyway (RFC 9110, section 14.3, as zot does), or be a cache that
// is fetching the blob, and fetches it once more for whoever asks again (distribution
// 3.1.2, registry/proxy/proxyblobstore.go). So true is said once for all blobs of such a
// one, until it is known.
func (b *blobBody) Ranges() bool {
	switch {
	case b.part || announced(b.accepts):
		return true
	case b.accepts != "":
		return false
	}
	return b.repo.unannounced.ask()
}

// announced reports an Accept-Ranges that has bytes.
func announced(accepts string) bool {
	for unit := range strings.SplitSeq(accepts, ",") {
		if strings.EqualFold(strings.TrimSpace(unit), "bytes") {
			return true
		}
	}
	return false
}

// parts is what is known of the ranges of a server that does not announce them.
type parts struct{ state atomic.Int32 }

const (
	partsUnknown int32 = iota
	partsAsked
	partsSent
	partsRefused
)

// ask reports whether one may be asked for: by the first, and by all when it was sent.
func (p *parts) ask() bool {
	return p.state.Load() == partsSent || p.state.CompareAndSwap(partsUnknown, partsAsked)
}

// learn takes note of how a range was answered; one that came to nothing is no answer, and
// another may be asked for. What is announced with it is said of one
// blob only: that one a cache has.
func (p *parts) learn(got *answer, err error, desc ocispec.Descriptor) {
	switch {
	case err == nil && got.header.Get("Accept-Ranges") == "" && got.status == http.StatusPartialContent:
		p.state.Store(partsSent)
	case err == nil && got.status == http.StatusOK, refusesRanges(err, desc):
		// Who has sent some may not have all of another blob yet.
		if !p.state.CompareAndSwap(partsAsked, partsRefused) {
			p.state.CompareAndSwap(partsUnknown, partsRefused)
		}
	default:
		p.state.CompareAndSwap(partsAsked, partsUnknown)
	}
}
