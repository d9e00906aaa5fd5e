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
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// classicTag is where cosign before version 3 keeps the signatures of d.
func classicTag(d digest.Digest) string { return fallbackTag(d) + ".sig" }

// Classic returns the manifest under cosign's classic tag of s, sha256-<hex>.sig,
// which holds one signature in each layer. found is false where there is none, and
// where something else stands under the tag. Nothing of it is verified.
func (r *Repository) Classic(ctx context.Context, s signature.Subject) (desc ocispec.Descriptor, found bool, err error) {
	if s.IsZero() {
		return ocispec.Descriptor{}, false, errors.New("read classic signatures: the subject names nothing")
	}
	now, err := (&classicList{repo: r, subject: s}).readManifest(ctx, opReferrers, r.Name()+"@"+s.Digest().String())
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

// AppendClassic adds layer, whose blob is there already, to the manifest under
// cosign's classic tag of s, and leaves every signature in it that is there. It
// keeps to the same rules as Attach on a registry without the referrers API, with
// the same narrow race. It returns the digest of the manifest.
func (r *Repository) AppendClassic(ctx context.Context, s signature.Subject, layer ocispec.Descriptor) (digest.Digest, error) {
	if s.IsZero() {
		return "", errors.New("attach a classic signature: the subject names nothing")
	}
	own, err := json.Marshal(layer)
	if err != nil {
		return "", err
	}
	key, err := layerKey(own)
	if err != nil {
		return "", err
	}
	a := &attachment{repo: r, subject: s, entry: layer, list: &classicList{repo: r, subject: s},
		about: r.Name() + ":" + classicTag(s.Digest()), budget: r.client.options.Retry.Budget}
	return a.join(ctx, key, own)
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

func (l *classicList) tag() string { return classicTag(l.subject.Digest()) }

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

func (m *classicManifest) keyed() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage, len(m.layers))
	for i, raw := range m.layers {
		key, err := layerKey(raw)
		if err != nil {
			key = fmt.Sprintf("unreadable layer %d", i)
		}
		all[key] = raw
	}
	return all
}

// layerKey tells signatures apart: one payload may be signed by several keys, so
// that the annotations belong to it.
func layerKey(raw json.RawMessage) (string, error) {
	var layer struct {
		Digest      digest.Digest     `json:"digest"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(raw, &layer); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(layer.Digest.String())
	for _, k := range slices.Sorted(maps.Keys(layer.Annotations)) {
		fmt.Fprintf(&b, " %q=%q", k, layer.Annotations[k])
	}
	return b.String(), nil
}

// with returns the manifest with layers added. cosign's readers want an image:
// the config names every layer in its rootfs.
func (l *classicList) with(ctx context.Context, now snapshot, added []json.RawMessage) (string, []byte, error) {
	m, ok := now.(*classicManifest)
	if !ok {
		return "", nil, errForeignList
	}
	layers := slices.Concat(m.layers, added)
	config, err := imageConfig(layers)
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

// imageConfig is the config that cosign writes for such a manifest.
func imageConfig(layers []json.RawMessage) ([]byte, error) {
	type event struct {
		Created string `json:"created"`
	}
	const never = "0001-01-01T00:00:00Z"
	config := struct {
		Architecture string  `json:"architecture"`
		Created      string  `json:"created"`
		History      []event `json:"history"`
		OS           string  `json:"os"`
		RootFS       struct {
			Type    string          `json:"type"`
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct{} `json:"config"`
	}{Created: never, History: []event{}}
	config.RootFS.Type = "layers"
	config.RootFS.DiffIDs = []digest.Digest{}
	for _, raw := range layers {
		var layer struct {
			Digest digest.Digest `json:"digest"`
		}
		if err := json.Unmarshal(raw, &layer); err != nil {
			return nil, fmt.Errorf("a layer of the classic signatures: %w", err)
		}
		config.History = append(config.History, event{never})
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
	}
	return json.Marshal(config)
}
