// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Upload is a blob's upload session (distribution spec 1.1, "Pushing a blob in
// chunks"): its digest is named at the end, so that content can be hashed while it
// is sent. It is for one goroutine at a time.
type Upload struct {
	repo     *Repository
	about    string
	at       url.URL
	minChunk int64
	// astray says that the registry may hold more or less than its last answer said.
	astray bool
	held   holding
}

const opUpload = "push blob"

// BeginUpload asks for a session. name says what is sent, for errors.
func (r *Repository) BeginUpload(ctx context.Context, name string) (*Upload, error) {
	about := r.Name() + " (" + clip(printable(name), 200) + ")"
	got, err := r.do(ctx, call{
		op: opUpload, about: about, method: http.MethodPost, url: r.path("blobs", "uploads", ""), push: true,
		accept: []int{http.StatusAccepted},
	})
	if err != nil {
		return nil, err
	}
	return r.session(about, got)
}

func (r *Repository) session(about string, got *answer) (*Upload, error) {
	at, err := r.location(opUpload, about, &got.from, got.header.Get("Location"))
	if err != nil {
		return nil, err
	}
	// A length that is none, or absurd, is no wish that we could meet.
	least, err := strconv.ParseInt(got.header.Get("OCI-Chunk-Min-Length"), 10, 64)
	if err != nil || least < 0 {
		least = 0
	}
	return &Upload{repo: r, about: about, at: *at, minChunk: least}, nil
}

// MinChunk is the fewest bytes that the registry takes in a piece that is not the
// last one; zero when it does not say.
func (u *Upload) MinChunk() int64 { return u.minChunk }

// Send sends size bytes, which begin at offset of the blob, in one request, once.
// open returns them, and is called again when the registry asks for credentials.
func (u *Upload) Send(ctx context.Context, offset, size int64, open func() (io.ReadCloser, error)) error {
	u.astray = true
	u.held.sending(offset, size)
	got, err := u.repo.send(ctx, call{
		op: opUpload, about: u.about, method: http.MethodPatch, url: u.at, push: true,
		header: http.Header{
			"Content-Type":  {"application/octet-stream"},
			"Content-Range": {fmt.Sprintf("%d-%d", offset, offset+size-1)},
		},
		// Amazon ECR answers 201 to a chunk.
		accept: []int{http.StatusAccepted, http.StatusCreated, http.StatusNoContent},
		size:   size, body: open, blob: true,
	})
	if err != nil {
		u.held.refused(err)
		return err
	}
	if err := u.move(got); err != nil {
		return err
	}
	if held, ok := heldBytes(got.header.Get("Range")); ok && held != offset+size {
		return newError(opUpload, u.about, Unavailable, "it kept %d of %d bytes", held, offset+size)
	}
	u.astray = false
	u.held.taken(offset, size)
	return nil
}

// move follows the session to where the next request has to go.
func (u *Upload) move(got *answer) error {
	header := got.header.Get("Location")
	if header == "" {
		return nil
	}
	at, err := u.repo.location(opUpload, u.about, &got.from, header)
	if err != nil {
		return err
	}
	u.at = *at
	return nil
}

// Received asks how many bytes the registry holds.
func (u *Upload) Received(ctx context.Context) (int64, error) {
	got, err := u.repo.do(ctx, u.status())
	if err != nil {
		return 0, err
	}
	return u.received(got)
}

func (u *Upload) status() call {
	return call{
		op: opUpload, about: u.about, method: http.MethodGet, url: u.at, push: true,
		accept: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted},
	}
}

func (u *Upload) received(got *answer) (int64, error) {
	header := got.header.Get("Range")
	held, ok := heldBytes(header)
	if !ok {
		return 0, newError(opUpload, u.about, Protocol, "no Range in the upload's status")
	}
	held = u.held.of(held, strings.HasPrefix(header, "bytes"))
	if err := u.move(got); err != nil {
		return 0, err
	}
	u.astray = false
	return held, nil
}

var heldRange = regexp.MustCompile(`^(?:bytes[= ])?0-(-?[0-9]{1,18})$`)

// heldBytes reads the Range of an upload. "0-0" is what distribution says of an
// empty one too; it is taken for that, and a byte that is there after all makes
// the next request fail, not the blob.
func heldBytes(header string) (int64, bool) {
	m := heldRange.FindStringSubmatch(header)
	if m == nil {
		return 0, false
	}
	last, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || last <= 0 {
		return 0, err == nil
	}
	return last + 1, true
}

// holding finds out what a status counts. Quay, whose has the form of an HTTP range
// ("bytes=0-9"), and Gitea give the number of bytes in place of the last one.
type holding struct {
	sure, sent int64 // held for certain; and at most
	said       int64 // by the last status
	meant      int64 // by that, as it was understood
	tried      bool  // to go on from there, in vain
	over       bool  // it counts one more
	known      bool  // that it does, or does not
}

// sending notes what a request sends that may go wrong.
func (h *holding) sending(offset, size int64) {
	h.sent = max(h.sent, offset+size)
	h.tried = false
}

// refused notes an answer that may be about the offset. A registry that was busy, or not
// reached, has not looked at it.
func (h *holding) refused(err error) {
	var e *Error
	if errors.As(err, &e) {
		h.tried = e.Status == http.StatusRequestedRangeNotSatisfiable || e.Status == http.StatusBadRequest || e.Status == http.StatusConflict
	}
}

// taken notes a request that was.
func (h *holding) taken(offset, size int64) {
	if h.said > 0 && offset == h.meant {
		h.known = true
	}
	h.sure = offset + size
}

// of returns how many bytes are held where a status says n. It says the same again when
// going on from there is refused: then it may have meant the other number. One more than
// what is certain is Quay's count where the status has its form; elsewhere it is the one
// byte that came of a request which broke, until that is refused.
func (h *holding) of(n int64, likeQuay bool) int64 {
	switch {
	case h.known:
	case n == h.sent+1, likeQuay && h.sure > 0 && n == h.sure+1:
		h.over, h.known = true, true
	case h.sure > 0 && n == h.sure:
		h.over, h.known = false, true
	case h.tried && n > 0 && n == h.said:
		h.over = !h.over
	}
	h.said, h.tried, h.meant = n, false, n
	if h.over && n > 0 {
		h.meant = n - 1
	}
	return h.meant
}

// Commit ends the session: what was sent becomes the blob d. It is sent once.
func (u *Upload) Commit(ctx context.Context, d digest.Digest) error {
	target := u.at
	query := target.Query()
	query.Set("digest", d.String())
	target.RawQuery = query.Encode()
	got, err := u.repo.send(ctx, call{
		op: opUpload, about: u.about, method: http.MethodPut, url: target, push: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		accept: []int{http.StatusCreated, http.StatusOK, http.StatusNoContent},
		body:   func() (io.ReadCloser, error) { return http.NoBody, nil }, blob: true,
	})
	if err != nil {
		return err
	}
	if says := got.header.Get(digestHeader); says != "" && says != d.String() {
		return newError(opUpload, u.about, Corrupt, "the registry stored it as %s", clip(printable(says), 100))
	}
	return nil
}

const (
	// cancelTimeout bounds how long a failed push waits to clean up behind itself.
	cancelTimeout = 5 * time.Second
	cancelTries   = 6
	cancelPause   = 100 * time.Millisecond // before the second try, and doubling
)

// Cancel has the registry forget the session, also when ctx is over. It is a
// courtesy: registries drop abandoned sessions on their own, later.
func (u *Upload) Cancel(ctx context.Context) { cancelAll(ctx, []*Upload{u}) }

// cancelAll cancels sessions within the time for one, and no more after one of which
// nothing was heard.
func cancelAll(ctx context.Context, sessions []*Upload) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	for _, u := range sessions {
		err := u.cancel(ctx)
		if err == nil {
			continue
		}
		u.repo.client.options.Logger.LogAttrs(ctx, slog.LevelDebug, "registry upload not cancelled", slog.String("reason", err.Error()))
		if isKind(err, Unreachable) {
			return
		}
	}
}

func (u *Upload) cancel(ctx context.Context) error {
	var err error
	for n := range cancelTries {
		if err = u.forget(ctx); err == nil || !mayCancelLater(err) {
			return err
		}
		u.astray = true
		if sleep(ctx, cancelPause<<n) != nil {
			return err
		}
	}
	return err
}

// forget asks once for the session to be cancelled.
func (u *Upload) forget(ctx context.Context) error {
	if u.astray {
		// The location of distribution holds the offset, and it wants the true one.
		got, err := u.repo.send(ctx, u.status())
		if err == nil {
			_, err = u.received(got)
		}
		switch {
		case isKind(err, NotFound):
			return nil
		case isKind(err, Unreachable), mayCancelLater(err):
			return err
		}
		// Where it does not tell, the old location may do.
	}
	_, err := u.repo.send(ctx, call{
		op: "cancel upload", about: u.about, method: http.MethodDelete, url: u.at, push: true,
		accept: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted, http.StatusNotFound},
	})
	return err
}

// mayCancelLater reports whether another try may do it: while a registry still drains a
// request that was broken off, the session moves under our feet, which is 416. What else
// it refuses, as those without a DELETE do, stays refused.
func mayCancelLater(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Kind == Unavailable && e.Retryable() || e.Status == http.StatusRequestedRangeNotSatisfiable)
}

// UploadRules is how a registry takes blobs whose digest is not known yet.
type UploadRules struct {
	// Whole says that a blob must be sent in one request that names its digest.
	Whole bool
	// Piece is the most bytes of one request, zero for no bound.
	Piece int64
}

// UploadRules returns what is known of the registry's service, and what WantsWhole said.
// The rest shows when it is tried.
func (r *Repository) UploadRules() UploadRules {
	rules := uploadRules(r.ref.Registry)
	rules.Whole = rules.Whole || r.whole.Load()
	return rules
}

// WantsWhole notes that the registry refused an upload in the form of Upload.
func (r *Repository) WantsWhole() { r.whole.Store(true) }
