// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// PushManifest uploads a manifest under its digest; no tag is touched.
func (r *Repository) PushManifest(ctx context.Context, mediaType string, manifest []byte) (Pinned, error) {
	subject, err := signature.SubjectOf(mediaType, manifest)
	if err != nil {
		return Pinned{}, fmt.Errorf("push manifest to %s: %w", r.Name(), err)
	}
	about := aboutSubject(r, subject)
	if err := r.putManifest(ctx, "push manifest", about, subject.Digest().String(), mediaType, manifest); err != nil {
		return Pinned{}, err
	}
	return Pinned{name: r.Name(), subject: subject, manifest: bytes.Clone(manifest)}, nil
}

// TagManifest uploads p's bytes under a tag, in one request. It refuses the tags
// that Reference.WithTag refuses.
func (r *Repository) TagManifest(ctx context.Context, p Pinned, tag string) error {
	about := r.Name() + ":" + tag
	if p.subject.IsZero() || p.name != r.Name() {
		return fmt.Errorf("tag %s: the manifest is not one of this repository", about)
	}
	if _, err := r.ref.WithTag(tag); err != nil {
		return err
	}
	err := r.putManifest(ctx, "tag", about, tag, p.subject.MediaType(), p.manifest)
	if !isKind(err, Refused) {
		return err
	}
	// Where tags cannot be moved, Amazon ECR, Google and Harbor refuse one that is there
	// already for the same manifest too: after another push of it, or after our own request
	// whose answer was lost.
	if now, there, asked := r.ResolveTag(ctx, tag); asked == nil && there && now == p.subject.Digest() {
		return nil
	}
	return err
}

// unknownBlobTries and unknownBlobPause bound how long a manifest is pushed again whose
// blobs, which were pushed before it, a registry does not know yet: replicas of Harbor
// share a storage that is slow to show them (goharbor/harbor#22417).
const (
	unknownBlobTries = 4
	unknownBlobPause = 500 * time.Millisecond // and doubling
)

func (r *Repository) putManifest(ctx context.Context, op, about, name, mediaType string, manifest []byte) error {
	put := r.manifestPut(op, about, name, mediaType, manifest)
	got, err := r.do(ctx, put)
	for n := range unknownBlobTries {
		if !lacksBlob(err) {
			break
		}
		if waitErr := r.client.options.Sleep(ctx, unknownBlobPause<<n); waitErr != nil {
			return fmt.Errorf("%w (%w)", err, waitErr)
		}
		r.retries.Add(1)
		got, err = r.do(ctx, put)
	}
	if err != nil {
		return err
	}
	return headerAgrees(op, about, got.header, manifest)
}

// lacksBlob reports that a registry refused a manifest for a blob that it does not know.
func lacksBlob(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) &&
		(e.Code == "MANIFEST_BLOB_UNKNOWN" || e.Code == "BLOB_UNKNOWN")
}

func (r *Repository) manifestPut(op, about, name, mediaType string, manifest []byte) call {
	return call{
		op: op, about: about, method: http.MethodPut, url: r.path("manifests", name), push: true,
		header: http.Header{"Content-Type": {mediaType}},
		accept: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent},
		size:   int64(len(manifest)),
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(manifest)), nil },
	}
}

// PushBlob uploads a blob unless the repository has it, and reports whether it
// did. open returns the content from its beginning; it is called again for every
// try. The content is hashed while it is sent: when it is not what desc says, the
// request is broken off before its end, nothing is committed, and the error is a
// *ChangedError. The retry budget does not count time in which bytes flow.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) (uploaded bool, err error) {
	const op = "push blob"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return false, err
	}
	there, err := r.hasBlob(ctx, op, about, desc)
	if err != nil || there {
		return false, err
	}
	var (
		left     []*Upload
		began    bool // to flow, in any try
		refusals int
		refused  *Error // the last one, which is none of those that pass by themselves
	)
	err = r.try(ctx, func(ctx context.Context) (bool, error) {
		if began && r.arrived(ctx, op, about, desc) {
			return false, nil
		}
		u := &upload{desc: desc, about: about, open: open}
		err := r.upload(ctx, op, u)
		if err != nil && u.session != nil {
			left = append(left, u.session)
		}
		began = began || u.flowed()
		if e, ok := err.(*Error); ok && u.flowed() && refusalMayPass(e) && refusals < maxRefusals {
			refusals++
			e.Kind, refused = Unavailable, e
		}
		return u.flowed(), err
	})
	cancelAll(ctx, left)
	var e *Error
	if errors.As(err, &e) && e == refused {
		e.Kind = Refused // the budget was spent
	}
	if desc.Size == 0 && isKind(err, Refused) && len(left) > 0 {
		e.Detail = strings.TrimPrefix(e.Detail+" (the blob is empty, which not every registry takes)", " ")
	}
	return err == nil, err
}

// arrived looks once whether a blob is there of which only the answer was lost: GitHub's
// registry takes a while to put a large one in its place.
func (r *Repository) arrived(ctx context.Context, op, about string, desc ocispec.Descriptor) bool {
	got, err := r.send(ctx, blobHead(r, op, about, desc))
	return err == nil && got.length == desc.Size
}

// maxRefusals bounds how often one blob is sent again after refusalMayPass.
const maxRefusals = 2

// refusalMayPass knows refusals of an upload that another session may not meet: of a session
// that a registry lost track of (Azure's says 416), or of parts that it lost (Amazon ECR).
func refusalMayPass(e *Error) bool {
	switch {
	case e.Kind != Refused:
		return false
	case e.Status == http.StatusRequestedRangeNotSatisfiable:
		return true
	}
	return e.Code == "BLOB_UPLOAD_INVALID" || e.Code == "BLOB_UPLOAD_UNKNOWN"
}

// MountBlob asks the registry to take a blob from another of its repositories
// (distribution spec 1.1, "Mounting a blob from another repository"), and reports
// whether it did. A registry that will not is no error: the blob can be sent.
func (r *Repository) MountBlob(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error) {
	mounted, begun, err := r.MountOrBegin(ctx, desc, from)
	if begun != nil {
		begun.Cancel(ctx)
	}
	return mounted, err
}

// MountOrBegin is MountBlob for a caller that will send the blob otherwise: the
// session that a registry opens in place of a mount comes back, and is to be used
// or cancelled. It is nil when there is none.
func (r *Repository) MountOrBegin(ctx context.Context, desc ocispec.Descriptor, from string) (mounted bool, begun *Upload, err error) {
	const op = "mount blob"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return false, nil, err
	}
	at := r.path("blobs", "uploads", "")
	at.RawQuery = url.Values{"mount": {desc.Digest.String()}, "from": {from}}.Encode()
	got, err := r.do(ctx, call{
		op: op, about: about, method: http.MethodPost, url: at, push: true, pullFrom: from,
		accept: []int{http.StatusCreated, http.StatusAccepted},
	})
	var e *Error
	if errors.As(err, &e) && !e.Retryable() && e.Answered() {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if got.status == http.StatusAccepted {
		// Without a usable Location there is nothing to go on with.
		begun, _ = r.session(about, got)
		return false, begun, nil
	}
	// Whatever it says it has mounted, this is the blob that must be there.
	mounted, err = r.hasBlob(ctx, op, about, desc)
	return mounted, nil, err
}

// upload sends one POST for a session and one PUT with everything (distribution
// spec 1.1, "POST then PUT").
func (r *Repository) upload(ctx context.Context, op string, u *upload) error {
	session, err := r.send(ctx, call{
		op: op, about: u.about, method: http.MethodPost, url: r.path("blobs", "uploads", ""), push: true,
		accept: []int{http.StatusAccepted},
	})
	if err != nil {
		return err
	}
	target, err := r.location(op, u.about, &session.from, session.header.Get("Location"))
	if err != nil {
		return err
	}
	u.session = &Upload{repo: r, about: u.about, at: *target, astray: true}
	query := target.Query()
	query.Set("digest", u.desc.Digest.String())
	target.RawQuery = query.Encode()
	if u.desc.Size == 0 {
		// The transport does not read an empty body; look at it ourselves.
		if err := u.checkEmpty(); err != nil {
			return err
		}
	}
	got, err := r.send(ctx, call{
		op: op, about: u.about, method: http.MethodPut, url: *target, push: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		accept: []int{http.StatusCreated, http.StatusOK, http.StatusNoContent},
		size:   u.desc.Size, body: u.body, blob: true,
	})
	if own := u.failure(); own != nil {
		// The transport's own error only says that the body could not be read.
		return own
	}
	if e, ok := err.(*Error); ok && e.Kind == NotFound {
		// The session is gone: a restarted registry, or another replica of it.
		e.Kind = Unavailable
	}
	if err != nil {
		return err
	}
	if says := got.header.Get(digestHeader); says != "" && says != u.desc.Digest.String() {
		return newError(op, u.about, Corrupt, "the registry stored it as %s", clip(printable(says), 100))
	}
	return nil
}

// location resolves the Location of an upload, in an answer from a URL. Another host is
// followed, without credentials; a step down from TLS is not (GHSA-jxpm-75mh-9fp7).
func (r *Repository) location(op, about string, from *url.URL, header string) (*url.URL, error) {
	if header == "" {
		return nil, newError(op, about, Protocol, "no Location for the upload")
	}
	at, err := url.Parse(header)
	if err != nil {
		return nil, newError(op, about, Protocol, "the upload's Location is no URL")
	}
	at = from.ResolveReference(at)
	at.User, at.Fragment = nil, ""
	if at.Host == "" || (at.Scheme != "https" && at.Scheme != "http") {
		return nil, newError(op, about, Protocol, "the upload's Location is no URL")
	}
	if r.base.Scheme == "https" && at.Scheme != "https" {
		return nil, newError(op, about, Protocol, "the upload's Location leaves TLS, for http://%s", clip(printable(at.Host), 200))
	}
	return at, nil
}

// upload is one try to send a blob; a 401 can open its content more than once.
type upload struct {
	desc  ocispec.Descriptor
	about string
	open  func() (io.ReadCloser, error)
	// session is what has to be cancelled when the upload is given up.
	session *Upload

	mu   sync.Mutex
	sent int64
	err  error
}

func (u *upload) flowed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent > 0
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

func (u *upload) note(n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sent += int64(n)
	if err != nil && u.err == nil {
		u.err = err
	}
}

func (u *upload) body() (io.ReadCloser, error) {
	content, err := u.open()
	if err != nil {
		err = fmt.Errorf("push blob %s: %w", u.about, err)
		u.note(0, err)
		return nil, err
	}
	return &checked{ReadCloser: content, upload: u, hash: sha256.New(), left: u.desc.Size}, nil
}

func (u *upload) checkEmpty() error {
	body, err := u.body()
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// checked hashes what is sent and holds the last bytes back until all of them,
// and nothing after them, are known to be right: a registry that does not check
// the digest itself must never see a whole body of wrong content.
type checked struct {
	io.ReadCloser
	upload *upload
	hash   hash.Hash
	left   int64
	err    error
	closed atomic.Bool
}

// Close may come in the middle of a Read, when the registry answers early.
func (c *checked) Close() error {
	c.closed.Store(true)
	return c.ReadCloser.Close()
}

func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 {
		c.err = io.EOF
		if c.upload.desc.Size == 0 {
			c.err = c.finish()
		}
		return 0, c.err
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.ReadCloser.Read(p)
	c.hash.Write(p[:n])
	c.left -= int64(n)
	switch {
	case c.left == 0:
		if c.err = c.finish(); c.err != io.EOF {
			return 0, c.err
		}
		c.err = nil
	case err == io.EOF:
		return 0, c.fail(c.changed("it is %d bytes shorter", c.left))
	case err != nil:
		return 0, c.fail(fmt.Errorf("push blob %s: %w", c.upload.about, err))
	}
	c.upload.note(n, nil)
	return n, nil
}

// finish returns io.EOF when the content is complete and right.
func (c *checked) finish() error {
	var one [1]byte
	switch n, err := io.ReadFull(c.ReadCloser, one[:]); {
	case n > 0:
		return c.fail(c.changed("it is longer than %d bytes", c.upload.desc.Size))
	case err != io.EOF:
		return c.fail(fmt.Errorf("push blob %s: %w", c.upload.about, err))
	}
	if actual := digest.NewDigest(digest.SHA256, c.hash); actual != c.upload.desc.Digest {
		return c.fail(c.changed("its digest is %s now", actual))
	}
	return io.EOF
}

func (c *checked) changed(format string, args ...any) error {
	return &ChangedError{Reference: c.upload.about, Reason: fmt.Sprintf(format, args...)}
}

func (c *checked) fail(err error) error {
	c.err = err
	if !c.closed.Load() {
		c.upload.note(0, err)
	}
	return err
}
