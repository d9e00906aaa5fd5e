// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Classic returns the manifest under cosign's classic tag of s, sha256-<hex>.sig,
// which holds one signature in each layer. found is false where there is none, and
// where something else stands under the tag. Nothing of it is verified.
func (r *Repository) Classic(ctx context.Context, s signature.Subject) (desc ocispec.Descriptor, found bool, err error) {
	if s.IsZero() {
		return ocispec.Descriptor{}, false, errors.New("read classic signatures: the subject names nothing")
	}
	now, err := (&classicList{repo: r, subject: s}).readManifest(ctx, opReferrers, aboutSubject(r, s))
	var foreign *FallbackError
	if errors.As(err, &foreign) {
		// Whatever stands under the tag, it holds no signature, and whoever put it
		// there must not be able to keep the referrers from being judged.
		return ocispec.Descriptor{}, false, nil
	}
	if err != nil || now.dgst == "" {
		return ocispec.Descriptor{}, false, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: now.dgst, Size: now.size}, true, nil
}

// AppendClassic adds layers, whose blobs are there already, to the manifest under
// cosign's classic tag of s, in one write, and leaves every signature in it that is
// there. It keeps to the same rules as Enlist on a registry without the referrers API,
// with the same narrow race. It returns the digest of the manifest.
func (r *Repository) AppendClassic(ctx context.Context, s signature.Subject, layers ...ocispec.Descriptor) (digest.Digest, error) {
	if s.IsZero() {
		return "", errors.New("attach a classic signature: the subject names nothing")
	}
	var own []listEntry
	for _, layer := range layers {
		raw, err := json.Marshal(layer)
		if err != nil {
			return "", err
		}
		key, err := referrer.LayerKey(raw)
		if err != nil {
			return "", err
		}
		own = append(own, listEntry{key, raw, layer.Digest})
	}
	a := &attachment{repo: r, subject: s, list: &classicList{repo: r, subject: s},
		about: r.Name() + ":" + referrer.ClassicTag(s.Digest()), budget: r.client.options.Retry.Budget}
	if len(own) == 0 {
		return "", errors.New("attach classic signatures: there are none")
	}
	return a.join(ctx, own...)
}

// classicList is the manifest of classic signatures, as a list to join.
type classicList struct {
	repo    *Repository
	subject signature.Subject
}

// classicManifest is one reading of it. Fields and layers are kept as they were
// read. The zero value is a manifest that does not exist yet.
type classicManifest struct {
	dgst   digest.Digest
	size   int64
	fields map[string]json.RawMessage
	layers []json.RawMessage
}

func (l *classicList) tag() string { return referrer.ClassicTag(l.subject.Digest()) }

func (l *classicList) read(ctx context.Context, op, about string) (snapshot, error) {
	now, err := l.readManifest(ctx, op, about)
	if err != nil {
		return nil, err
	}
	return now, nil
}

// readManifest refuses what is no manifest of signatures: adding layers to it
// would destroy something else.
func (l *classicList) readManifest(ctx context.Context, op, about string) (*classicManifest, error) {
	got, err := l.repo.getManifest(ctx, op, about, l.tag())
	if isKind(err, NotFound) {
		return &classicManifest{}, nil
	}
	if err != nil {
		return nil, err
	}
	refuse := func(reason string) (*classicManifest, error) {
		return nil, &Error{Op: op, Reference: about, Kind: Protocol, Err: &FallbackError{Tag: l.tag(), Reason: reason}}
	}
	now := &classicManifest{dgst: digest.FromBytes(got.bytes), size: int64(len(got.bytes))}
	switch {
	case now.dgst == l.subject.Digest():
		return refuse("it resolves to the subject itself")
	case got.mediaType != ocispec.MediaTypeImageManifest:
		return refuse("its media type is " + clip(printable(got.mediaType), 100))
	case json.Unmarshal(got.bytes, &now.fields) != nil:
		return refuse("it is not a JSON object")
	}
	if raw, ok := now.fields["layers"]; ok && json.Unmarshal(raw, &now.layers) != nil {
		return refuse("its layers are not a list")
	}
	return now, nil
}

func (m *classicManifest) version() digest.Digest { return m.dgst }

func (m *classicManifest) count() int { return len(m.layers) }

func (m *classicManifest) keyed() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage, len(m.layers))
	for i, raw := range m.layers {
		key, err := referrer.LayerKey(raw)
		if err != nil {
			key = fmt.Sprintf("unreadable layer %d", i)
		}
		all[key] = raw
	}
	return all
}

// with returns the manifest with layers added. cosign's readers want an image:
// the config names every layer in its rootfs.
func (l *classicList) with(ctx context.Context, now snapshot, added []json.RawMessage) (string, []byte, error) {
	m, ok := now.(*classicManifest)
	if !ok {
		return "", nil, errForeignList
	}
	layers := slices.Concat(m.layers, added)
	config, err := referrer.ImageConfig(layers)
	if err != nil {
		return "", nil, err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	if _, err := l.repo.PushBlob(ctx, desc, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(config)), nil
	}); err != nil {
		return "", nil, err
	}
	fields := maps.Clone(m.fields)
	if fields == nil {
		fields = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageManifest + `"`),
		}
	}
	if fields["config"], err = json.Marshal(desc); err != nil {
		return "", nil, err
	}
	if fields["layers"], err = json.Marshal(layers); err != nil {
		return "", nil, err
	}
	manifest, err := json.Marshal(fields)
	return ocispec.MediaTypeImageManifest, manifest, err
}
