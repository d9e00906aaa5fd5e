// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/formats"
)

// Source offers the referrers of a subject. It must be safe for concurrent use.
type Source interface {
	// Referrers yields descriptors in no trusted order. An error ends the
	// sequence and means that the list is incomplete.
	Referrers(ctx context.Context, subject signature.Subject) iter.Seq2[ocispec.Descriptor, error]
	// FetchManifest returns the manifest that desc names, checked against its
	// digest and size.
	FetchManifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// FetchBlob returns a blob of at most limit bytes, checked likewise.
	FetchBlob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error)
}

// maxCandidateManifest bounds the manifest of a signature. Real ones have less
// than 2 KiB; the rest is annotations and room.
const maxCandidateManifest = 256 << 10

// candidate is one referrer and what became of it. Exactly one of foreign,
// reason, unfetched and envelope is set once it has been examined.
type candidate struct {
	desc          ocispec.Descriptor
	manifest      []byte
	envelopeBytes []byte
	layer         ocispec.Descriptor
	format        formats.Format // told by the manifest, zero when it is of none
	annotations   map[string]string

	foreign   bool  // not a signature
	reason    error // calls itself one and is none
	unfetched error // could not be had
	envelope  *signature.Envelope
}

// ordered lists the referrers, the likely signatures first and of those the
// newest, at most max. more reports that there were others.
func ordered(ctx context.Context, src Source, s signature.Subject, max int) (list []ocispec.Descriptor, more bool, err error) {
	seen := make(map[digest.Digest]bool)
	for d, err := range src.Referrers(ctx, s) {
		if err != nil {
			return nil, false, err
		}
		if seen[d.Digest] || d.Digest == s.Digest() {
			continue
		}
		seen[d.Digest] = true
		list = append(list, d)
	}
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(formats.Rank(a), formats.Rank(b)),
			// RFC 3339 in UTC sorts as text.
			cmp.Compare(b.Annotations[ocispec.AnnotationCreated], a.Annotations[ocispec.AnnotationCreated]))
	})
	if len(list) > max {
		return list[:max], true, nil
	}
	return list, false, nil
}

// examine fetches every descriptor, several at a time.
func examine(ctx context.Context, src Source, s signature.Subject, descs []ocispec.Descriptor, concurrency int) []*candidate {
	out := make([][]*candidate, len(descs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, concurrency)
	for i, d := range descs {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			out[i] = fetch(ctx, src, s, d)
		}()
	}
	wg.Wait()
	return slices.Concat(out...)
}

// fetch reads one referrer, or one manifest that many share. The listing is not
// believed: the manifest itself must name the subject, and its own media types
// say what it is.
func fetch(ctx context.Context, src Source, s signature.Subject, d ocispec.Descriptor) []*candidate {
	c := &candidate{desc: d}
	limit := int64(maxCandidateManifest)
	if formats.IsShared(d.ArtifactType) {
		limit = signature.MaxManifestSize
	}
	if d.MediaType != ocispec.MediaTypeImageManifest || d.Size > limit {
		c.foreign = true
		return []*candidate{c}
	}
	raw, err := src.FetchManifest(ctx, d)
	if err != nil {
		c.unfetched = fmt.Errorf("signature %s: %w", short(d.Digest), err)
		return []*candidate{c}
	}
	c.manifest = raw
	var m ocispec.Manifest
	if err := strictjson.Unmarshal(raw, &m); err != nil {
		c.reason = &CandidateError{"its manifest is not usable: " + err.Error()}
		return []*candidate{c}
	}
	format, known := formats.Of(m)
	if !known {
		c.foreign = true
		return []*candidate{c}
	}
	c.format, c.annotations = format, m.Annotations
	if format.Shared {
		return shared(ctx, src, s, m, c)
	}
	if c.reason = checkManifest(m, s, format); c.reason != nil {
		return []*candidate{c}
	}
	c.read(ctx, src, m.Layers[0])
	return []*candidate{c}
}

// maxShared bounds the signatures that are examined in one manifest.
const maxShared = 100

// shared makes a candidate of each layer, the newest first: cosign appends.
func shared(ctx context.Context, src Source, s signature.Subject, m ocispec.Manifest, whole *candidate) []*candidate {
	if m.Subject != nil && m.Subject.Digest != s.Digest() {
		whole.reason = &SubjectError{Signed: m.Subject.Digest, Want: s.Digest()}
		return []*candidate{whole}
	}
	var all []*candidate
	for i := len(m.Layers) - 1; i >= 0; i-- {
		c := *whole
		if len(all) == maxShared {
			c.unfetched = fmt.Errorf("%w (%d in %s)", ErrTooMany, maxShared, short(c.desc.Digest))
			return append(all, &c)
		}
		all = append(all, &c)
		layer := m.Layers[i]
		c.annotations = layer.Annotations
		switch {
		case layer.MediaType != c.format.LayerType:
			c.reason = &CandidateError{fmt.Sprintf("layer %d is %q", i, layer.MediaType)}
		case layer.Size > signature.MaxEnvelopeSize || layer.Size < 0:
			c.reason = &CandidateError{fmt.Sprintf("layer %d has %d bytes, more than %d", i, layer.Size, signature.MaxEnvelopeSize)}
		default:
			c.read(ctx, src, layer)
		}
	}
	return all
}

// read fetches the envelope and parses it.
func (c *candidate) read(ctx context.Context, src Source, layer ocispec.Descriptor) {
	c.layer = layer
	var err error
	if c.envelopeBytes, err = envelopeBytes(ctx, src, layer); err != nil {
		c.unfetched = fmt.Errorf("signature %s: %w", short(c.desc.Digest), err)
		return
	}
	c.parse()
}

// checkManifest checks the referrer's manifest rather than its listing.
func checkManifest(m ocispec.Manifest, s signature.Subject, format formats.Format) error {
	want := s.Descriptor()
	switch {
	case m.Subject == nil:
		return &CandidateError{"its manifest names no subject"}
	case m.Subject.Digest != want.Digest:
		return &SubjectError{Signed: m.Subject.Digest, Want: want.Digest}
	case m.Subject.Size != want.Size || m.Subject.MediaType != want.MediaType:
		return &CandidateError{"its manifest names the subject with another size or media type"}
	case len(m.Layers) != 1:
		return &CandidateError{fmt.Sprintf("its manifest has %d layers, not one", len(m.Layers))}
	case format.IsZero():
		return &CandidateError{fmt.Sprintf("its layer is %q", m.Layers[0].MediaType)}
	case m.Layers[0].Size > signature.MaxEnvelopeSize || m.Layers[0].Size < 0:
		return &CandidateError{fmt.Sprintf("its envelope has %d bytes, more than %d", m.Layers[0].Size, signature.MaxEnvelopeSize)}
	}
	return nil
}

func envelopeBytes(ctx context.Context, src Source, layer ocispec.Descriptor) ([]byte, error) {
	if len(layer.Data) > 0 && int64(len(layer.Data)) == layer.Size && digest.FromBytes(layer.Data) == layer.Digest {
		return bytes.Clone(layer.Data), nil
	}
	return src.FetchBlob(ctx, layer, signature.MaxEnvelopeSize)
}

func (c *candidate) parse() {
	env, err := c.format.Parse(c.envelopeBytes, c.layer)
	if err != nil {
		c.reason = err
		return
	}
	if v, err := strconv.Atoi(c.annotations[signature.AnnotationKeyVersion]); err == nil && v > 0 {
		env = env.WithVersionHint(v)
	}
	c.envelope = env
}
