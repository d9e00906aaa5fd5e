// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Pinned is one manifest of one repository, from one resolve or one push. A tag
// is not asked again after it. The zero Pinned names nothing.
type Pinned struct {
	name     string
	tag      string
	subject  signature.Subject
	manifest []byte
}

// Name is "registry/repository".
func (p Pinned) Name() string { return p.name }

// Subject is the manifest as it is signed and verified.
func (p Pinned) Subject() signature.Subject { return p.subject }

// Manifest returns a copy of the manifest's bytes.
func (p Pinned) Manifest() []byte { return append([]byte(nil), p.manifest...) }

// Reference is "registry/repository@sha256:...".
func (p Pinned) Reference() string { return p.name + "@" + p.subject.Digest().String() }

// Tag is the tag that was resolved, "" when the manifest was named by digest.
func (p Pinned) Tag() string { return p.tag }

// acceptManifests is what a resolve may answer. Others are refused by
// signature.SubjectOf, whatever the registry sends.
var acceptManifests = []string{
	ocispec.MediaTypeImageManifest,
	ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
}

// Resolve gets the manifest that the repository's reference names, with one GET,
// and hashes it. A reference with a digest gets exactly that manifest or an error
// of Kind Corrupt; so does an answer whose Docker-Content-Digest header names
// other bytes. Bytes that are no usable manifest are Kind Protocol and wrap a
// *signature.ManifestError.
func (r *Repository) Resolve(ctx context.Context) (Pinned, error) {
	const op = "resolve"
	about := r.ref.String()
	name, tag := r.ref.Digest.String(), ""
	if name == "" {
		name, tag = r.ref.Tag, r.ref.Tag
	}
	if name == "" {
		return Pinned{}, &ReferenceError{Input: about, Reason: "it names neither a tag nor a digest"}
	}
	if r.sources != nil && tag == "" {
		return r.sources.resolve(ctx, r.ref.Digest)
	}
	got, err := r.getManifest(ctx, op, about, name)
	if err != nil {
		return Pinned{}, err
	}
	return r.pin(op, tag, got)
}

// pin hashes what a resolve got.
func (r *Repository) pin(op, tag string, got manifest) (Pinned, error) {
	about := r.ref.String()
	subject, err := signature.SubjectOf(got.mediaType, got.bytes)
	if r.ref.Digest != "" && digest.FromBytes(got.bytes) != r.ref.Digest {
		return Pinned{}, wrongBytes(op, about, "the registry sent the manifest %s", digest.FromBytes(got.bytes))
	}
	if err != nil {
		return Pinned{}, &Error{Op: op, Reference: about, Kind: Protocol, Err: err}
	}
	return Pinned{name: r.Name(), tag: tag, subject: subject, manifest: got.bytes}, nil
}

// ResolveTag returns the digest that a tag has now, and false when there is no
// such tag. It trusts the registry's header where there is one: good enough to
// see whether a tag has moved, never to verify by.
func (r *Repository) ResolveTag(ctx context.Context, tag string) (digest.Digest, bool, error) {
	const op = "look up tag"
	about := r.Name() + ":" + tag
	if !tagPattern.MatchString(tag) {
		return "", false, &ReferenceError{Input: clip(about, 200), Reason: "it names no tag"}
	}
	got, err := r.do(ctx, call{
		op: op, about: about, method: http.MethodHead, url: r.path("manifests", tag),
		header: http.Header{"Accept": acceptManifests}, accept: []int{http.StatusOK},
	})
	if isKind(err, NotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if d := digest.Digest(got.header.Get(digestHeader)); d.Validate() == nil {
		return d, true, nil
	}
	// Some registries (ECR among them) leave the header out for a tag.
	body, err := r.getManifest(ctx, op, about, tag)
	if isKind(err, NotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return digest.FromBytes(body.bytes), true, nil
}

// FetchManifest returns the bytes of a manifest, by digest, checked against the
// descriptor's digest and size. They are at most signature.MaxManifestSize.
func (r *Repository) FetchManifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	const op = "fetch manifest"
	about := r.Name() + "@" + desc.Digest.String()
	if err := checkDescriptor(op, about, desc); err != nil {
		return nil, err
	}
	if desc.Size > signature.MaxManifestSize {
		return nil, newError(op, about, TooLarge, "its descriptor says %d bytes, at most %d are read", desc.Size, signature.MaxManifestSize)
	}
	fetch := func(ctx context.Context, from *Repository) ([]byte, error) {
		got, err := from.getManifest(ctx, op, about, desc.Digest.String())
		if err != nil {
			return nil, err
		}
		return got.bytes, checkContent(op, about, desc, got.bytes)
	}
	return r.small(ctx, desc.Digest, fetch)
}

const digestHeader = "Docker-Content-Digest"

type manifest struct {
	bytes     []byte
	mediaType string
}

// getManifest gets a manifest by tag or digest. Only the header's agreement with
// the bytes is checked here.
func (r *Repository) getManifest(ctx context.Context, op, about, name string) (manifest, error) {
	got, err := r.do(ctx, call{
		op: op, about: about, method: http.MethodGet, url: r.path("manifests", name),
		header: http.Header{"Accept": acceptManifests}, accept: []int{http.StatusOK},
		limit: signature.MaxManifestSize,
	})
	if err != nil {
		return manifest{}, err
	}
	if err := headerAgrees(op, about, got.header, got.body); err != nil {
		return manifest{}, err
	}
	mediaType, _, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	if err != nil {
		return manifest{}, newError(op, about, Protocol, "no usable Content-Type")
	}
	return manifest{bytes: got.body, mediaType: mediaType}, nil
}

// headerAgrees refuses an answer whose Docker-Content-Digest is of other bytes: a
// broken cache, or somebody in between.
func headerAgrees(op, about string, header http.Header, body []byte) error {
	says := header.Get(digestHeader)
	if says == "" {
		return nil
	}
	d := digest.Digest(says)
	if d.Validate() != nil {
		return newError(op, about, Protocol, "its %s header is no digest", digestHeader)
	}
	if actual := d.Algorithm().FromBytes(body); actual != d {
		return wrongBytes(op, about, "the header says %s and the bytes are %s", d, actual)
	}
	return nil
}

// path is a URL of the repository's API: path("blobs", digest). A first part
// that begins with a slash is the whole path.
func (r *Repository) path(parts ...string) url.URL {
	u := r.base
	if len(parts) == 1 && parts[0][0] == '/' {
		u.Path = parts[0]
		return u
	}
	u.Path = r.root + "/" + r.ref.Repository
	for _, part := range parts {
		u.Path += "/" + part
	}
	if r.ns != "" {
		u.RawQuery = nsQuery(r.ns)
	}
	return u
}

// nsQuery tells a mirror which registry is meant.
func nsQuery(ns string) string { return url.Values{"ns": {ns}}.Encode() }

func isKind(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}
