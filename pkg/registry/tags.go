// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"regexp"

	"github.com/opencontainers/go-digest"
)

const (
	opTags = "list tags"
	// maxTags bounds a list that a registry may make as long as it likes.
	maxTags     = 100000
	maxTagPages = 1000
)

// Tags lists the repository's tags as the registry sends them (distribution spec
// 1.1, "Listing Tags"), in pages of its own choice: some refuse a size that they
// find too large. What is no tag is left out. The sequence ends with the
// first error.
func (r *Repository) Tags(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		at := r.path("tags", "list")
		seen := make(map[string]bool)
		count := 0
		for {
			if len(seen) == maxTagPages {
				yield("", newError(opTags, r.Name(), TooLarge, "more than %d pages", len(seen)))
				return
			}
			seen[at.String()] = true
			tags, next, err := r.tagsPage(ctx, at)
			if err != nil {
				yield("", err)
				return
			}
			for _, t := range tags {
				if count++; count > maxTags {
					yield("", newError(opTags, r.Name(), TooLarge, "more than %d tags", maxTags))
					return
				}
				if tagPattern.MatchString(t) && !yield(t, nil) {
					return
				}
			}
			if next == nil {
				return
			}
			if seen[next.String()] {
				yield("", newError(opTags, r.Name(), Protocol, "the list of pages turns in a circle"))
				return
			}
			at = *next
		}
	}
}

func (r *Repository) tagsPage(ctx context.Context, at url.URL) ([]string, *url.URL, error) {
	got, err := r.do(ctx, call{
		op: opTags, about: r.Name(), method: http.MethodGet, url: at,
		accept: []int{http.StatusOK}, limit: maxPage,
	})
	if err != nil {
		return nil, nil, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(got.body, &list); err != nil {
		return nil, nil, newError(opTags, r.Name(), Protocol, "the list is not JSON: %s", scrubText(err.Error()))
	}
	link := nextLink(got.header.Values("Link"))
	if link == "" {
		return list.Tags, nil, nil
	}
	next, err := r.nextPageOf(opTags, r.Name(), at, link)
	return list.Tags, next, err
}

var fallbackPattern = regexp.MustCompile(`^sha256-([0-9a-f]{64})$`)

// FallbackSubject returns the digest whose referrers a tag lists on a registry
// without the referrers API, and false for an ordinary tag.
func FallbackSubject(tag string) (digest.Digest, bool) {
	m := fallbackPattern.FindStringSubmatch(tag)
	if m == nil {
		return "", false
	}
	return digest.NewDigestFromEncoded(digest.SHA256, m[1]), true
}
