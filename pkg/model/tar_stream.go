// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
)

const (
	// maxSkeleton bounds what an archive may hold besides its files' content:
	// headers, padding and what follows the end.
	maxSkeleton = 256 << 20
	// expansionFactor and expansionBase bound what an archive may expand to where
	// no limit is given, against archives that are small and expand without end.
	expansionFactor = 100
	expansionBase   = 1 << 30
	// maxZstdWindow bounds the decoder's memory.
	maxZstdWindow = 128 << 20
)

// window is how much memory it takes to decompress l, whose bytes r has, beside some
// buffers. It is what the first frame says. Those that follow are like it, or their signer
// wanted to take memory, and gets no more than the largest window for each archive.
func (l Layer) window(r io.ReaderAt) int64 {
	if l.Compression != compressionZstd {
		return 0
	}
	var (
		first [zstd.HeaderMaxSize]byte
		h     zstd.Header
	)
	n, _ := r.ReadAt(first[:], 0) //nolint:errcheck // what is no frame is refused when it is read
	if h.Decode(first[:n]) != nil || h.Skippable {
		return maxZstdWindow
	}
	if h.SingleSegment {
		return int64(min(h.FrameContentSize, maxZstdWindow))
	}
	return int64(min(h.WindowSize, maxZstdWindow))
}

// decompress opens the archive in a layer.
func decompress(l Layer, r io.Reader) (io.ReadCloser, error) {
	switch l.Compression {
	case compressionGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, tarReadError(l.Descriptor.Digest, err)
		}
		return z, nil
	case compressionZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, tarReadError(l.Descriptor.Digest, err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// readAhead reads and hashes an archive while what it has of it is unpacked.
type readAhead struct {
	stream *hashing.Stream
	sum    hash.Hash
	pieces chan piece
	stop   chan struct{}
	now    piece
	err    error // what the last of the pieces ended with
}

// newReadAhead reads r, decompressed, until it is closed.
func newReadAhead(g *hashing.Group, r io.Reader) *readAhead {
	a := &readAhead{sum: sha256.New(), pieces: make(chan piece, buffers), stop: make(chan struct{})}
	a.stream = g.Stream(a.sum)
	go a.run(r)
	return a
}

func (a *readAhead) run(r io.Reader) {
	defer close(a.pieces)
	for {
		buffer := a.stream.Buffer()
		select {
		case <-a.stop:
			a.stream.Write(buffer, 0, nil)
			return
		default:
		}
		n, err := fillBuffer(r, *buffer)
		if a.err = err; n == 0 {
			a.stream.Write(buffer, 0, nil)
		} else {
			a.pieces <- piece{(*buffer)[:n], a.stream.Share(buffer, n, nil)}
		}
		if err != nil {
			return
		}
	}
}

func (a *readAhead) Read(p []byte) (int, error) {
	if len(a.now.b) == 0 {
		a.release()
		var more bool
		if a.now, more = <-a.pieces; !more {
			return 0, a.err
		}
	}
	n := copy(p, a.now.b)
	a.now.b = a.now.b[n:]
	return n, nil
}

func (a *readAhead) release() {
	if a.now.done != nil {
		a.now.done()
	}
	a.now = piece{}
}

// close waits until r is let go of, and everything that came of it hashed.
func (a *readAhead) close() {
	close(a.stop)
	a.release()
	for p := range a.pieces {
		p.done()
	}
	a.stream.Close()
}

// digest is of all of r, when it was read to its end and closed.
func (a *readAhead) digest() digest.Digest { return digest.NewDigest(digest.SHA256, a.sum) }

// tarRecorder hands an archive on to archive/tar while it is unpacked. It bounds it,
// and writes all that is not a file's content to skeleton. archive/tar reads no further
// than it must, so that the content of a file is exactly what is read while content is
// set.
type tarRecorder struct {
	r        io.Reader
	skeleton io.Writer // nil when it is not wanted
	content  bool
	literal  int64
	left     int64
	tooLong  error // what reading past left gives
	copies   int64 // bytes that hard links may still be copied to
	tooMany  error // what copying past copies gives
	layer    digest.Digest
}

func newTarRecorder(r io.Reader, l Layer, skeleton io.Writer) *tarRecorder {
	return &tarRecorder{r: r, skeleton: skeleton, layer: l.Descriptor.Digest}
}

// expandTo bounds the whole archive to limit bytes, and the copies that its hard
// links become to copies bytes: or each to the free bytes of the volume where
// those are fewer.
func (t *tarRecorder) expandTo(limit, copies, free int64, dir string) {
	bound := func(limit int64) (int64, error) {
		if free < limit {
			return free, &SpaceError{Dir: dir, Need: limit, Free: free}
		}
		return limit, &TarError{Layer: t.layer, Reason: fmt.Sprintf("it expands to more than %d bytes", limit)}
	}
	t.left, t.tooLong = bound(limit)
	t.copies, t.tooMany = bound(copies)
}

func (t *tarRecorder) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if t.left -= int64(n); t.left < 0 {
		return 0, t.tooLong
	}
	if t.content {
		return n, err
	}
	if t.literal += int64(n); t.literal > maxSkeleton {
		return 0, &TarError{Layer: t.layer, Reason: fmt.Sprintf("more than %d bytes beside the files' content", maxSkeleton)}
	}
	if t.skeleton != nil {
		if _, werr := t.skeleton.Write(p[:n]); werr != nil {
			return 0, &contentReadError{werr}
		}
	}
	return n, err
}

// tarRebuilder is the way back: it yields an archive again from its skeleton
// and, while content is set, from a file on disk. The skeleton is not trusted.
// It is read as an archive like any other, the names are taken from it by the
// same rules, and nothing counts before the whole has the signed digest.
type tarRebuilder struct {
	skeleton io.Reader
	content  io.Reader
	sum      hash.Hash // nil for nobody who asks
}

func (t *tarRebuilder) Read(p []byte) (n int, err error) {
	if t.content != nil {
		n, err = t.content.Read(p)
	} else {
		n, err = t.skeleton.Read(p)
	}
	if t.sum != nil {
		t.sum.Write(p[:n])
	}
	return n, err
}

func (t *tarRebuilder) digest() digest.Digest { return digest.NewDigest(digest.SHA256, t.sum) }

// skimmer is an archive without the content of its files, which a reader passes over:
// there is nothing but its length. It can be sought in, forward, as archive/tar does.
type skimmer struct {
	skeleton io.Reader
	content  int64 // left of the file that is passed
	at       int64
}

func (s *skimmer) Read(p []byte) (n int, err error) {
	if s.content == 0 {
		n, err = s.skeleton.Read(p)
	} else {
		n = int(min(int64(len(p)), s.content))
		clear(p[:n])
		s.content -= int64(n)
	}
	s.at += int64(n)
	return n, err
}

func (s *skimmer) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return s.at, errors.ErrUnsupported
	}
	n := min(offset, s.content)
	s.content -= n
	s.at += n
	_, err := io.CopyN(io.Discard, s, offset-n)
	return s.at, err
}

// contentReadError carries an input or output error of ours through archive/tar.
type contentReadError struct{ err error }

func (e *contentReadError) Error() string { return e.err.Error() }
func (e *contentReadError) Unwrap() error { return e.err }

// hasModelConfig reports whether the config blob can say what archives expand to.
func (m Manifest) hasModelConfig() bool {
	t := m.config.MediaType
	return m.config.Size <= maxConfigSize &&
		(strings.HasPrefix(t, "application/vnd.cncf.model.config.") || strings.HasPrefix(t, "application/vnd.cnai.model.config."))
}

// contentDigest returns the digest of l's uncompressed archive where the
// manifest's own digest covers it: the layer's own for a plain tar, else the
// annotation of oras, else the config's diffIds. config may be nil.
func (m Manifest) contentDigest(l Layer, config []byte) (digest.Digest, bool) {
	if l.Compression == compressionNone {
		return l.Descriptor.Digest, true
	}
	if l.ContentDigest != "" {
		return l.ContentDigest, true
	}
	if !m.hasModelConfig() || digest.FromBytes(config) != m.config.Digest {
		return "", false
	}
	ids := m.diffIDs(config)
	if len(ids) != m.layerCount {
		return "", false
	}
	id := ids[l.index]
	// Some writers put the compressed layer's digest there: that says nothing.
	if id.Validate() != nil || id.Algorithm() != digest.SHA256 || id == l.Descriptor.Digest {
		return "", false
	}
	return id, true
}
