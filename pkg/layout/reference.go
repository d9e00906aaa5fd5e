// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Reference names a manifest in a layout by a tag or a digest. Where both are given
// the digest decides.
type Reference struct {
	// Path is the directory or the tar file.
	Path   string
	Tag    string
	Digest digest.Digest
}

// tagPattern is a registry's grammar for tags: what cannot be one there is not
// taken for one here.
var tagPattern = regexp.MustCompile("^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$")

// ParseReference reads PATH[:TAG][@DIGEST], as oras does. What follows the last
// colon is a tag, and what follows the last @ a digest, when no separator is in it. A
// path that ends in such a way needs a slash behind it, or for a colon a tag and for an @
// a digest. Errors are *ReferenceError.
func ParseReference(s string) (Reference, error) {
	ref := Reference{Path: s}
	if path, dgst, found := cutLast(s, "@"); found && !hasSeparator(dgst) {
		d := digest.Digest(dgst)
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return Reference{}, &ReferenceError{Input: s, Reason: "what follows @ is not a digest of the form sha256:<64 hex digits>"}
		}
		ref.Path, ref.Digest = path, d
	}
	volume := filepath.VolumeName(ref.Path)
	if path, tag, found := cutLast(ref.Path[len(volume):], ":"); found && !hasSeparator(tag) {
		if !tagPattern.MatchString(tag) {
			return Reference{}, &ReferenceError{Input: s, Reason: "what follows the colon is not a tag"}
		}
		ref.Path, ref.Tag = volume+path, tag
	}
	if ref.Path == "" {
		return Reference{}, &ReferenceError{Input: s, Reason: "it must be PATH[:TAG][@DIGEST]"}
	}
	return ref, nil
}

// ParseReferences reads PATH[:TAG[,TAG...]]: several tags in one layout, each as a
// Reference of its own, in order and without repeats.
func ParseReferences(s string) ([]Reference, error) {
	first, more := s, []string(nil)
	// A comma elsewhere is the path's.
	at := max(strings.LastIndex(s, ":"), len(filepath.VolumeName(s)))
	if at < len(s) && s[at] == ':' && !hasSeparator(s[at+1:]) {
		tags := strings.Split(s[at:], ",")
		first, more = s[:at]+tags[0], tags[1:]
	}
	ref, err := ParseReference(first)
	if err != nil {
		return nil, err
	}
	refs := []Reference{ref}
	for _, tag := range more {
		if !tagPattern.MatchString(tag) || ref.Tag == "" || ref.Digest != "" {
			return nil, &ReferenceError{Input: s, Reason: "more tags can only follow a tag"}
		}
		next := ref
		if next.Tag = tag; !slices.Contains(refs, next) {
			refs = append(refs, next)
		}
	}
	return refs, nil
}

func hasSeparator(s string) bool { return strings.ContainsAny(s, "/"+string(filepath.Separator)) }

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Name is the layout's path.
func (r Reference) Name() string { return r.Path }

func (r Reference) String() string {
	s := r.Path
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// named is the name of a blob's file.
func named(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// referrersTag is the form of tags that hold lists of referrers.
var referrersTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// CheckTag refuses what no tag may be. Errors are *ReferenceError.
func CheckTag(tag string) error {
	switch {
	case !tagPattern.MatchString(tag):
		return &ReferenceError{Input: tag, Reason: "it is no tag"}
	case referrersTag.MatchString(tag):
		return &ReferenceError{Input: tag, Reason: "tags of the form sha256-<hex> are kept for lists of referrers"}
	}
	return nil
}
