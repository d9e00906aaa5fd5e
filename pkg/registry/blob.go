// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func newError(op, about string, kind Kind, format string, args ...any) *Error {
	return &Error{Op: op, Reference: about, Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// checkDescriptor refuses descriptors whose digest cannot be part of a URL or be
// checked, and impossible sizes.
func checkDescriptor(op, about string, desc ocispec.Descriptor) error {
	if reason := checkDigest(desc.Digest.String()); reason != "" {
		return newError(op, clip(printable(about), 300), Protocol, "%s", reason)
	}
	if desc.Size < 0 {
		return newError(op, about, Protocol, "a size of %d", desc.Size)
	}
	return nil
}

func checkContent(op, about string, desc ocispec.Descriptor, content []byte) error {
	if int64(len(content)) != desc.Size {
		return newError(op, about, Corrupt, "%d bytes, its descriptor says %d", len(content), desc.Size)
	}
	if actual := digest.FromBytes(content); actual != desc.Digest {
		return wrongBytes(op, about, "the bytes are %s", actual)
	}
	return nil
}

// wrongBytes says that content, of the right size where that is known, has
// another digest.
func wrongBytes(op, about, format string, args ...any) *Error {
	e := newError(op, about, Corrupt, format, args...)
	e.lied = true
	return e
}

// BlobExists asks whether the repository has a blob, as who is about to push it: what a
// token may that was asked for to pull only is nothing in a repository that does not
// exist yet. One of another size is an error of Kind Corrupt.
func (r *Repository) BlobExists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	const op = "look up blob"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return false, err
	}
	return r.hasBlob(ctx, op, about, desc)
}

func (r *Repository) hasBlob(ctx context.Context, op, about string, desc ocispec.Descriptor) (bool, error) {
	got, err := r.do(ctx, blobHead(r, op, about, desc))
	if isKind(err, NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if got.length >= 0 && got.length != desc.Size {
		return false, newError(op, about, Corrupt, "the registry has %d bytes under this digest, not %d", got.length, desc.Size)
	}
	return true, nil
}

func blobHead(r *Repository, op, about string, desc ocispec.Descriptor) call {
	return call{
		op: op, about: about, method: http.MethodHead, url: r.path("blobs", desc.Digest.String()),
		push: true, accept: []int{http.StatusOK},
	}
}

// discardable is how many bytes are rather fetched again from the first source that
// has the blob than asked of another one that may send a part of it.
const discardable = 64 << 20

// OpenBlob returns a blob's bytes from offset on, unverified: the caller hashes
// them. The registry may send fewer or more bytes than the descriptor says, and
// a read error is an *Error that may be retryable. at is where the bytes begin: the
// offset, or zero when nobody sends less than the whole blob, or a mirror does not and
// the offset is small. A redirect to another host gets no credentials. The body's methods
// Ranges and Part say whether its server may be asked for a part meanwhile, and ask it.
func (r *Repository) OpenBlob(ctx context.Context, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, at int64, err error) {
	const op = "fetch blob"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return nil, 0, err
	}
	if offset < 0 || offset > desc.Size {
		return nil, 0, fmt.Errorf("%s %s: offset %d is outside of its %d bytes", op, about, offset, desc.Size)
	}
	if offset > 0 && offset == desc.Size {
		return io.NopCloser(bytes.NewReader(nil)), offset, nil
	}
	wholeToo := r.sources == nil || offset <= discardable
	refused := false
	open := func(ctx context.Context, from *Repository) (body io.ReadCloser, n int64, err error) {
		body, at, err = from.openBlob(ctx, op, about, desc, offset)
		if err == nil && at != offset && !wholeToo {
			refused = true
			body.Close()
			return nil, 0, errWhole
		}
		return body, desc.Size - at, err
	}
	body, err = r.stream(ctx, desc.Digest, open)
	if err != nil && refused && ctx.Err() == nil {
		wholeToo = true
		body, err = r.stream(ctx, desc.Digest, open)
	}
	return body, at, err
}

// openBlob asks r itself.
func (r *Repository) openBlob(ctx context.Context, op, about string, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, at int64, err error) {
	open := func() error {
		body, at, err = r.openBlobOnce(ctx, op, about, desc, offset)
		return err
	}
	err = r.sizeTwice(ctx, desc, open)
	if refusesRanges(err, desc) {
		// It may have no such byte, or send no ranges now: the whole blob tells.
		offset = 0
		err = r.sizeTwice(ctx, desc, open)
	}
	return body, at, err
}

// sizePause is the time that an odd answer has to pass.
const sizePause = time.Second

// sizeTwice asks the registry once more when it answers that a blob has another size than
// its descriptor says. That is the last word about an artifact, for which all goes that
// was fetched of it, and one odd answer of a proxy or a cache on the way must not be. A
// mirror is not asked again: there is somebody else to ask.
func (r *Repository) sizeTwice(ctx context.Context, desc ocispec.Descriptor, ask func() error) error {
	err := ask()
	var e *Error
	if !errors.As(err, &e) || e.Kind != Corrupt || r.client.options.mirror != nil {
		return err
	}
	r.retries.Add(1)
	r.elsewhere.Delete(desc.Digest)
	if err := r.client.options.Sleep(ctx, sizePause); err != nil {
		return err
	}
	return ask()
}

func (r *Repository) openBlobOnce(ctx context.Context, op, about string, desc ocispec.Descriptor, offset int64) (body io.ReadCloser, at int64, err error) {
	c := call{
		op: op, about: about, method: http.MethodGet, url: r.path("blobs", desc.Digest.String()),
		accept: []int{http.StatusOK}, content: true, limit: -1,
	}
	if offset > 0 {
		c.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, desc.Size-1)}}
		c.accept = append(c.accept, http.StatusPartialContent)
	}
	got, err := r.do(ctx, c)
	if offset > 0 {
		r.unannounced.learn(got, err, desc)
	}
	if e, ok := err.(*Error); ok && e.Status == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		e.Kind, e.Detail = Corrupt, fmt.Sprintf("the registry has %d bytes, its descriptor says %d", e.total, desc.Size)
		if refusesRanges(e, desc) {
			e.Detail = fmt.Sprintf("the registry has no byte %d of the %d that its descriptor says", offset, desc.Size)
		}
	}
	if err != nil {
		return nil, 0, err
	}
	at, err = placeAt(c, got, desc, offset)
	if err != nil {
		got.stream.Close()
		return nil, 0, err
	}
	return &blobBody{got.promised(), r, desc, got.header.Get("Accept-Ranges"), got.status == http.StatusPartialContent}, at, nil
}

// refusesRanges reports a 416 that does not say that the blob is shorter: there may be no
// such byte, or no wish to send ranges (RFC 9110, section 15.5.17).
func refusesRanges(err error, desc ocispec.Descriptor) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable && (e.total < 0 || e.total == desc.Size)
}

// errWhole means that a source has the whole blob only, and another one may have a part.
var errWhole = errors.New("there is only the whole blob")

// ErrNoRanges means that a registry answers a range with the whole blob.
var ErrNoRanges = errors.New("the registry does not send ranges")

// OpenRange returns the blob's bytes from offset up to end, unverified. There may
// be fewer, and a read error is an *Error that may be retryable. A redirect to
// another host is followed without credentials and remembered for the blob's next
// range, until that host refuses: its URLs expire. An error that is ErrNoRanges
// says that there is only the whole blob to be had.
func (r *Repository) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	const op = "fetch blob"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return nil, err
	}
	if offset < 0 || offset >= end || end > desc.Size {
		return nil, fmt.Errorf("%s %s: the range from %d to %d is outside of its %d bytes", op, about, offset, end, desc.Size)
	}
	return r.stream(ctx, desc.Digest, func(ctx context.Context, from *Repository) (io.ReadCloser, int64, error) {
		body, err := from.openPart(ctx, op, about, desc, offset, end)
		return body, end - offset, err
	})
}

// openPart asks r itself.
func (r *Repository) openPart(ctx context.Context, op, about string, desc ocispec.Descriptor, offset, end int64) (body io.ReadCloser, err error) {
	err = r.sizeTwice(ctx, desc, func() error {
		body, err = r.openPartOnce(ctx, op, about, desc, offset, end)
		return err
	})
	return body, err
}

func (r *Repository) openPartOnce(ctx context.Context, op, about string, desc ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	c := call{
		op: op, about: about, method: http.MethodGet, url: r.path("blobs", desc.Digest.String()),
		header: http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, end-1)}},
		accept: []int{http.StatusOK, http.StatusPartialContent}, content: true, limit: -1,
	}
	got, err := r.openRange(ctx, c, desc.Digest)
	r.unannounced.learn(got, err, desc)
	if refusesRanges(err, desc) {
		return nil, fmt.Errorf("%s %s: %w: %w", op, about, ErrNoRanges, err)
	}
	if err != nil {
		return nil, err
	}
	if err := asStored(c, got, desc); err != nil {
		got.stream.Close()
		r.elsewhere.Delete(desc.Digest) // a host to which we were sent before
		return nil, err
	}
	if got.status == http.StatusOK && (offset > 0 || end < desc.Size) {
		got.stream.Close()
		return nil, fmt.Errorf("%s %s: %w", op, about, ErrNoRanges)
	}
	if got.status == http.StatusPartialContent {
		err = checkRange(c, got, desc, offset, end)
	} else {
		err = checkLength(c, got, desc)
	}
	if err != nil {
		got.stream.Close()
		return nil, err
	}
	return got.promised(), nil
}

// openRange asks where the blob's last range came from, and the registry when
// that is nowhere or no longer answers.
func (r *Repository) openRange(ctx context.Context, c call, d digest.Digest) (*answer, error) {
	if at, ok := r.elsewhere.Load(d); ok {
		there := c
		there.url = at.(url.URL)
		got, err := r.send(ctx, there)
		if err == nil {
			return got, nil
		}
		if e, ok := err.(*Error); ctx.Err() != nil || ok && e.Retryable() && e.retryAfter > 0 && e.retryAfter <= r.client.options.Retry.Budget {
			// The registry would send us to the same busy host. Where the wait is longer
			// than we have, it may know another one.
			return nil, err
		}
		// Another connection may have come by a newer one.
		r.elsewhere.CompareAndDelete(d, at)
	}
	got, err := r.do(ctx, c)
	if err == nil && !sameOrigin(&r.base, &got.from) {
		r.elsewhere.Store(d, got.from)
	}
	return got, err
}

// noPage refuses a web page in place of a blob: of a proxy, a CDN or a log-in, which say
// 200 too, and nothing of the blob. A blob that is a page has its size.
func noPage(c call, got *answer, desc ocispec.Descriptor) error {
	if got.status != http.StatusOK || got.length == desc.Size || !isPage(got.header) || isPage(http.Header{"Content-Type": {desc.MediaType}}) {
		return nil
	}
	e := newError(c.op, c.about, Unavailable, "a web page in place of the blob")
	e.Status = got.status
	return e
}

// asStored refuses a web page in place of a blob, and a blob that somebody on the way has
// compressed. One that is said to be, and has its size, may have been stored so.
func asStored(c call, got *answer, desc ocispec.Descriptor) error {
	size := got.length
	if part, ok := got.part(); ok {
		size = part.total
	}
	if coding := coded(got.header); coding != "" && size != desc.Size {
		return codedError(c, got.status, coding)
	}
	return noPage(c, got, desc)
}

// placeAt says where the answer begins: at the range that was asked for, or at zero.
func placeAt(c call, got *answer, desc ocispec.Descriptor, offset int64) (int64, error) {
	if err := asStored(c, got, desc); err != nil {
		return 0, err
	}
	if got.status == http.StatusPartialContent {
		// A range that starts elsewhere would be joined to the wrong bytes, and
		// the whole download thrown away at its end.
		return offset, checkRange(c, got, desc, offset, desc.Size)
	}
	return 0, checkLength(c, got, desc)
}

// checkLength is checkRange for an answer of the whole blob.
func checkLength(c call, got *answer, desc ocispec.Descriptor) error {
	if got.length >= 0 && got.length != desc.Size {
		return newError(c.op, c.about, Corrupt, "the registry announces %d bytes, its descriptor says %d", got.length, desc.Size)
	}
	return nil
}

// promised is the answer's stream, whose Content-Range, which was checked, says how much
// comes where no length does.
func (a *answer) promised() *stream {
	if part, ok := a.part(); ok && a.length < 0 {
		a.stream.left = part.last - part.first + 1
	}
	return a.stream
}

// contentRange is RFC 9110, section 14.4, for a single byte range; units have no case.
var contentRange = regexp.MustCompile(`^(?i:bytes) ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)$`)

// byteRange is what an answer says that it is of: both ends included, and of how many
// bytes, -1 where that is not told.
type byteRange struct{ first, last, total int64 }

// part reads the Content-Range of an answer that is a part.
func (a *answer) part() (byteRange, bool) {
	m := contentRange.FindStringSubmatch(a.header.Get("Content-Range"))
	if m == nil || a.status != http.StatusPartialContent {
		return byteRange{}, false
	}
	b := byteRange{total: -1}
	b.first, _ = strconv.ParseInt(m[1], 10, 64)
	b.last, _ = strconv.ParseInt(m[2], 10, 64)
	if m[3] != "*" {
		b.total, _ = strconv.ParseInt(m[3], 10, 64)
	}
	return b, true
}

func checkRange(c call, got *answer, desc ocispec.Descriptor, offset, end int64) error {
	header := got.header.Get("Content-Range")
	part, ok := got.part()
	if !ok {
		return newError(c.op, c.about, Protocol, "asked from byte %d, the Content-Range is %q", offset, clip(printable(header), 80))
	}
	switch {
	case part.first != offset:
		return newError(c.op, c.about, Protocol, "asked from byte %d, got byte %d on", offset, part.first)
	case part.total >= 0 && part.total != desc.Size:
		return newError(c.op, c.about, Corrupt, "the registry announces %d bytes, its descriptor says %d", part.total, desc.Size)
	case part.last < part.first || part.last >= end:
		return newError(c.op, c.about, Protocol, "the Content-Range is %q", clip(header, 80))
	case got.length >= 0 && got.length != part.last-part.first+1:
		return newError(c.op, c.about, Protocol, "%d bytes for the Content-Range %q", got.length, clip(header, 80))
	}
	return nil
}

// FetchBlob returns a small blob whole, checked against the descriptor's digest
// and size. One that is larger than limit bytes is not asked for.
func (r *Repository) FetchBlob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	const op = "fetch blob"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return nil, err
	}
	if desc.Size > limit {
		return nil, newError(op, about, TooLarge, "its descriptor says %d bytes, at most %d are read", desc.Size, limit)
	}
	if desc.Size == 0 {
		return []byte{}, checkContent(op, about, desc, nil)
	}
	return r.small(ctx, desc.Digest, func(ctx context.Context, from *Repository) ([]byte, error) {
		c := call{
			op: op, about: about, method: http.MethodGet, url: from.path("blobs", desc.Digest.String()),
			accept: []int{http.StatusOK}, content: true, limit: desc.Size,
		}
		got, err := from.do(ctx, c)
		if isKind(err, TooLarge) {
			return nil, newError(op, about, Corrupt, "more than the %d bytes that its descriptor says", desc.Size)
		}
		if err != nil {
			return nil, err
		}
		if err := asStored(c, got, desc); err != nil {
			return nil, err
		}
		return got.body, checkContent(op, about, desc, got.body)
	})
}
