// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Whoever can push can add referrers, and a lying registry can invent them: a
// list ends at these limits with an error of Kind TooLarge.
const (
	maxPages     = 100
	maxReferrers = 10000
	maxPage      = 4 << 20
)

// Referrers lists what the registry says refers to s: by the referrers API, else
// by the tag sha256-<hex>. Nothing of it is verified: entries are candidates
// whose manifests the caller fetches and checks. Entries without a usable digest
// are left out. No artifactType is asked for: registries without filters, and
// fallback lists with wrong types, would lose entries. The sequence ends with
// the first error.
func (r *Repository) Referrers(ctx context.Context, s signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		l := &listing{repo: r, about: aboutSubject(r, s), yield: yield}
		if s.IsZero() {
			yield(ocispec.Descriptor{}, errors.New("list referrers: the subject names nothing"))
			return
		}
		if err := l.run(ctx, s); err != nil && !l.stopped {
			yield(ocispec.Descriptor{}, err)
		}
	}
}

// HasReferrersAPI asks the registry, with one request about s. The OCI-Subject
// header of a push says nothing: ECR sends it and has no API.
func (r *Repository) HasReferrersAPI(ctx context.Context, s signature.Subject) (bool, error) {
	if s.IsZero() {
		return false, errors.New("probe the referrers API: the subject names nothing")
	}
	page, err := r.referrersPage(ctx, aboutSubject(r, s), r.path("referrers", s.Digest().String()))
	return page != nil, err
}

const opReferrers = "list referrers"

type listing struct {
	repo    *Repository
	about   string
	yield   func(ocispec.Descriptor, error) bool
	entries int
	stopped bool
}

func (l *listing) run(ctx context.Context, s signature.Subject) error {
	at := l.repo.path("referrers", s.Digest().String())
	seen := make(map[string]bool)
	for n := 0; ; n++ {
		if n == maxPages {
			return newError(opReferrers, l.about, TooLarge, "more than %d pages", maxPages)
		}
		seen[at.String()] = true
		page, err := l.repo.referrersPage(ctx, l.about, at)
		if err != nil {
			return err
		}
		if page == nil {
			if n > 0 {
				return newError(opReferrers, l.about, Protocol, "page %d is missing", n+1)
			}
			return l.fallback(ctx, s)
		}
		if err := l.emit(page.entries); err != nil || l.stopped {
			return err
		}
		if page.next == "" {
			return nil
		}
		next, err := l.repo.nextPage(l.about, at, page.next)
		if err != nil {
			return err
		}
		if seen[next.String()] {
			return newError(opReferrers, l.about, Protocol, "the list of pages turns in a circle")
		}
		at = *next
	}
}

func (l *listing) fallback(ctx context.Context, s signature.Subject) error {
	index, err := l.repo.readFallback(ctx, opReferrers, l.about, s)
	var fallback *FallbackError
	if errors.As(err, &fallback) && fallback.Itself {
		// There is no list. Whoever could hide one behind this could push an empty one
		// as well.
		return nil
	}
	if err != nil {
		return err
	}
	return l.emit(index.entries())
}

func (l *listing) emit(entries []json.RawMessage) error {
	for _, raw := range entries {
		if l.entries++; l.entries > maxReferrers {
			return newError(opReferrers, l.about, TooLarge, "more than %d referrers", maxReferrers)
		}
		desc, ok := usable(raw)
		if !ok {
			continue
		}
		if !l.yield(desc, nil) {
			l.stopped = true
			return nil
		}
	}
	return nil
}

// usable decodes an entry that can be fetched.
func usable(raw json.RawMessage) (ocispec.Descriptor, bool) {
	var desc ocispec.Descriptor
	if json.Unmarshal(raw, &desc) != nil {
		return ocispec.Descriptor{}, false
	}
	return desc, checkDigest(desc.Digest.String()) == "" && desc.Size >= 0
}

type referrersPage struct {
	entries []json.RawMessage
	next    string
}

// referrersPage gets one page. It is nil when the registry has no API: 404, as
// the spec has it, or one of the answers of those that do not know the path.
func (r *Repository) referrersPage(ctx context.Context, about string, at url.URL) (*referrersPage, error) {
	got, err := r.do(ctx, call{
		op: opReferrers, about: about, method: http.MethodGet, url: at,
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		accept: []int{http.StatusOK}, limit: maxPage, pageToo: true,
	})
	var e *Error
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
			return nil, nil
		case http.StatusBadRequest:
			if e.Kind != PlainHTTP {
				return nil, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	// "If the response is anything other than application/vnd.oci.image.index
	// .v1+json, the API is not there" is how oras-go reads the spec as well:
	// front ends answer unknown paths with a page of HTML.
	if t, _, _ := mime.ParseMediaType(got.header.Get("Content-Type")); t != ocispec.MediaTypeImageIndex {
		return nil, nil
	}
	var index struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(got.body, &index); err != nil {
		return nil, newError(opReferrers, about, Protocol, "the list is not JSON: %s", scrubText(err.Error()))
	}
	return &referrersPage{entries: index.Manifests, next: nextLink(got.header.Values("Link"))}, nil
}

// linkPattern splits a Link header (RFC 8288) into targets and parameters; a
// target may hold commas.
var linkPattern = regexp.MustCompile(`<([^>]*)>([^<]*)`)

// nextLink returns the target of rel="next", "" without one.
func nextLink(headers []string) string {
	for _, header := range headers {
		for _, m := range linkPattern.FindAllStringSubmatch(header, -1) {
			for param := range strings.FieldsFuncSeq(m[2], func(r rune) bool { return r == ';' || r == ',' }) {
				key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
				if strings.EqualFold(key, "rel") && strings.EqualFold(strings.Trim(value, `" `), "next") {
					return m[1]
				}
			}
		}
	}
	return ""
}

// nextPage resolves a Link. Another host would be asked with our credentials.
func (r *Repository) nextPage(about string, at url.URL, link string) (*url.URL, error) {
	return r.nextPageOf(opReferrers, about, at, link)
}

func (r *Repository) nextPageOf(op, about string, at url.URL, link string) (*url.URL, error) {
	target, err := url.Parse(link)
	if err != nil {
		return nil, newError(op, about, Protocol, "the link to the next page is no URL")
	}
	next := at.ResolveReference(target)
	if !sameOrigin(&r.base, next) {
		return nil, newError(op, about, Protocol, "the link to the next page leaves the registry, for %s", clip(printable(next.Host), 200))
	}
	next.User, next.Fragment = nil, ""
	if r.ns != "" {
		query := next.Query()
		query.Set("ns", r.ns)
		next.RawQuery = query.Encode()
	}
	return next, nil
}
