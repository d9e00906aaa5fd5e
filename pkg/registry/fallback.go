// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// fallbackIndex is the list of referrers that a tag holds on a registry without
// the API. Entries and fields are kept as they were read: other tools' additions
// survive ours. The zero value is a list that does not exist yet.
type fallbackIndex struct {
	dgst      digest.Digest
	fields    map[string]json.RawMessage
	manifests []json.RawMessage
}

// readFallback gets the list of s. A missing tag is an empty list. Anything but
// an OCI index, and the subject itself, is a *FallbackError in an *Error of Kind
// Protocol: GitLab resolves the tag sha256-<hex> to the manifest of that digest,
// whose layers or children would pass for referrers, and which a writer would
// replace (oras-go#1396). To a reader that one means no list.
func (r *Repository) readFallback(ctx context.Context, op, about string, s signature.Subject) (*fallbackIndex, error) {
	tag := referrer.Tag(s.Digest())
	got, err := r.getManifest(ctx, op, about, tag)
	if isKind(err, NotFound) {
		return &fallbackIndex{}, nil
	}
	if err != nil {
		return nil, err
	}
	index := &fallbackIndex{dgst: digest.FromBytes(got.bytes)}
	itself := index.dgst == s.Digest()
	refuse := func(reason string) (*fallbackIndex, error) {
		return nil, &Error{Op: op, Reference: about, Kind: Protocol, Err: &FallbackError{Tag: tag, Reason: reason, Itself: itself}}
	}
	if itself {
		return refuse("it resolves to the subject itself")
	}
	if got.mediaType != ocispec.MediaTypeImageIndex {
		return refuse("its media type is " + clip(printable(got.mediaType), 100))
	}
	if err := json.Unmarshal(got.bytes, &index.fields); err != nil {
		return refuse("it is not a JSON object")
	}
	if raw, ok := index.fields["manifests"]; ok {
		if err := json.Unmarshal(raw, &index.manifests); err != nil {
			return refuse("its manifests are not a list")
		}
	}
	return index, nil
}

// referrerList is the list of a subject's referrers, as a list to join.
type referrerList struct {
	repo    *Repository
	subject signature.Subject
}

func (l *referrerList) tag() string { return referrer.Tag(l.subject.Digest()) }

func (l *referrerList) read(ctx context.Context, op, about string) (snapshot, error) {
	index, err := l.repo.readFallback(ctx, op, about, l.subject)
	if err != nil {
		return nil, err
	}
	return index, nil
}

func (l *referrerList) with(_ context.Context, now snapshot, added []json.RawMessage) (string, []byte, error) {
	index, ok := now.(*fallbackIndex)
	if !ok {
		return "", nil, errForeignList
	}
	list, err := index.with(added)
	return ocispec.MediaTypeImageIndex, list, err
}

var errForeignList = errors.New("a reading of another list")

func (f *fallbackIndex) entries() []json.RawMessage { return f.manifests }

func (f *fallbackIndex) version() digest.Digest { return f.dgst }

func (f *fallbackIndex) count() int { return len(f.manifests) }

// keyed maps the digests of the list's entries to the entries.
func (f *fallbackIndex) keyed() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage, len(f.manifests))
	for _, raw := range f.manifests {
		var entry struct {
			Digest digest.Digest `json:"digest"`
		}
		if json.Unmarshal(raw, &entry) == nil && entry.Digest != "" {
			all[entry.Digest.String()] = raw
		}
	}
	return all
}

// with returns the list's bytes with entries added at its end.
func (f *fallbackIndex) with(added []json.RawMessage) ([]byte, error) {
	fields := maps.Clone(f.fields)
	if fields == nil {
		fields = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
		}
	}
	manifests, err := json.Marshal(slices.Concat(f.manifests, added))
	if err != nil {
		return nil, err
	}
	fields["manifests"] = manifests
	return json.Marshal(fields)
}
