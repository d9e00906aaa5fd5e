// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const opReferrers = "list referrers"

// Referrers lists what may refer to s: every manifest of the index whose subject is
// s, and what the tag sha256-<hex> lists. What cannot be read might refer to it, and
// is listed: the caller finds out. Nothing of it is verified.
func (l *Layout) Referrers(ctx context.Context, s signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		about := l.path + "@" + s.Digest().String()
		if s.IsZero() {
			yield(ocispec.Descriptor{}, errors.New(opReferrers+": the subject names nothing"))
			return
		}
		x, err := l.index(opReferrers, about)
		if err != nil {
			yield(ocispec.Descriptor{}, err)
			return
		}
		found, err := l.surveyed(ctx, x)
		if err != nil {
			yield(ocispec.Descriptor{}, err)
			return
		}
		for _, i := range found.candidates(s.Digest()) {
			desc, err := l.candidate(ctx, found, i)
			if !yield(desc, err) || err != nil {
				return
			}
		}
		list, unread := l.fallback(ctx, x, s)
		if unread != nil && usable(*unread) && !yield(*unread, nil) {
			return
		}
		seen := make(map[listed]bool)
		for _, desc := range list {
			as := listedAs(desc)
			if !usable(desc) || desc.Digest == s.Digest() || found.listed[as] || seen[as] {
				continue
			}
			if seen[as] = true; !yield(desc, nil) {
				return
			}
		}
	}
}

// listed is an entry as it was listed. Of several for a digest one may be right where
// another is not.
type listed struct {
	digest    digest.Digest
	mediaType string
	size      int64
}

func listedAs(desc ocispec.Descriptor) listed {
	return listed{desc.Digest, desc.MediaType, desc.Size}
}

// survey is what the manifests of one index refer to, by their places in it: whoever
// asks for the referrers of each of them reads each only once for it. It keeps nothing
// of them but that, for they may be large.
type survey struct {
	of     *index
	listed map[listed]bool
	to     map[digest.Digest][]int
	unread []int // may refer to anything
}

// candidates are in the order of the index.
func (s *survey) candidates(subject digest.Digest) []int {
	all := slices.Concat(s.to[subject], s.unread)
	slices.Sort(all)
	return slices.DeleteFunc(all, func(i int) bool { return s.of.entries[i].desc.Digest == subject })
}

// surveyed reads every manifest of x, unless x is what was surveyed last.
func (l *Layout) surveyed(ctx context.Context, x *index) (*survey, error) {
	l.surveying.Lock()
	defer l.surveying.Unlock()
	if l.survey != nil && l.survey.of == x {
		return l.survey, nil
	}
	s := &survey{of: x, listed: map[listed]bool{}, to: map[digest.Digest][]int{}}
	for i, e := range x.entries {
		as := listedAs(e.desc)
		if !usable(e.desc) || s.listed[as] {
			continue
		}
		s.listed[as] = true
		m, err := l.referrer(ctx, e.desc)
		switch {
		case ctx.Err() != nil:
			// Perhaps while it was read, which that does not hear of.
			return nil, context.Cause(ctx)
		case err != nil:
			s.unread = append(s.unread, i)
		case m.Subject != nil && isSHA256(m.Subject.Digest):
			s.to[m.Subject.Digest] = append(s.to[m.Subject.Digest], i)
		}
	}
	l.survey = s
	return s, nil
}

// Suspected reports that Referrers lists an entry only because it cannot be read: it may
// as well belong to something else in the layout.
func (l *Layout) Suspected(desc ocispec.Descriptor) bool {
	l.surveying.Lock()
	defer l.surveying.Unlock()
	return l.survey != nil && slices.ContainsFunc(l.survey.unread, func(i int) bool { return listedAs(l.survey.of.entries[i].desc) == listedAs(desc) })
}

// referrer reads a manifest. One that is none refers to nothing.
func (l *Layout) referrer(ctx context.Context, desc ocispec.Descriptor) (m ocispec.Manifest, err error) {
	raw, err := l.FetchManifest(ctx, desc)
	if err != nil || json.Unmarshal(raw, &m) != nil {
		return ocispec.Manifest{}, err
	}
	return m, nil
}

// candidate is an entry as a list of referrers shows it.
func (l *Layout) candidate(ctx context.Context, s *survey, i int) (ocispec.Descriptor, error) {
	desc := s.of.entries[i].desc
	desc.Annotations = nil // the index's map, which others read
	if _, unread := slices.BinarySearch(s.unread, i); unread {
		return desc, nil
	}
	m, err := l.referrer(ctx, desc)
	if ctx.Err() != nil {
		return ocispec.Descriptor{}, context.Cause(ctx)
	}
	if err != nil {
		return desc, nil
	}
	if desc.ArtifactType = m.ArtifactType; desc.ArtifactType == "" {
		desc.ArtifactType = m.Config.MediaType
	}
	desc.Annotations = m.Annotations
	return desc, nil
}

// fallback reads the list that tools without another way leave under a tag. unread is
// the list itself where it cannot be read: it might have listed the one that counts.
func (l *Layout) fallback(ctx context.Context, x *index, s signature.Subject) (list []ocispec.Descriptor, unread *ocispec.Descriptor) {
	desc, found, err := x.tagged(opReferrers, l.path, referrer.Tag(s.Digest()))
	if err != nil || !found || desc.MediaType != ocispec.MediaTypeImageIndex {
		return nil, nil
	}
	raw, err := l.FetchManifest(ctx, desc)
	var has struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err != nil || json.Unmarshal(raw, &has) != nil {
		desc.Annotations = maps.Clone(desc.Annotations) // the index's map, which others read
		return nil, &desc
	}
	for _, raw := range has.Manifests {
		// Each alone: one that is malformed hides no other.
		var entry ocispec.Descriptor
		if json.Unmarshal(raw, &entry) == nil {
			list = append(list, entry)
		}
	}
	return list, nil
}

// Classic returns the manifest of cosign's classic signatures of s, and false where
// there is none.
func (l *Layout) Classic(_ context.Context, s signature.Subject) (ocispec.Descriptor, bool, error) {
	if s.IsZero() {
		return ocispec.Descriptor{}, false, errors.New("read classic signatures: the subject names nothing")
	}
	x, err := l.index(opReferrers, l.path)
	if err != nil {
		return ocispec.Descriptor{}, false, err
	}
	return x.classic(opReferrers, l.path, s.Digest())
}

// cosign save gives no tags, but says what each entry is.
const (
	cosignKind  = "kind"
	cosignImage = "dev.cosignproject.cosign/image"
	cosignIndex = "dev.cosignproject.cosign/imageIndex"
	cosignSigs  = "dev.cosignproject.cosign/sigs"
)

func (e *entry) isSaved() bool {
	kind := e.desc.Annotations[cosignKind]
	return kind == cosignImage || kind == cosignIndex
}

// saved reports that d, and nothing else, was saved here: the signatures say not of what
// they are.
func (x *index) saved(d digest.Digest) bool {
	there := false
	for _, e := range x.entries {
		if e.isSaved() && e.desc.Digest != d {
			return false
		}
		there = there || e.isSaved()
	}
	return there
}

func (e *entry) isSavedSigs() bool {
	return e.tag() == "" && e.desc.Annotations[cosignKind] == cosignSigs
}

// classic looks for the classic tag, and then for what cosign has saved beside d.
func (x *index) classic(op, about string, d digest.Digest) (ocispec.Descriptor, bool, error) {
	desc, found, err := x.tagged(op, about, referrer.ClassicTag(d))
	if err == nil && !found && x.saved(d) {
		desc, found, err = x.only(op, about, cosignSigs, (*entry).isSavedSigs)
	}
	if err != nil || !found || desc.Digest == d || desc.MediaType != ocispec.MediaTypeImageManifest {
		return ocispec.Descriptor{}, false, err
	}
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, true, nil
}

// Attach stores a manifest of the media type that refers to subject, whose blobs are
// there already, and lists it.
func (l *Layout) Attach(ctx context.Context, subject signature.Subject, mediaType string, manifest []byte) (ocispec.Descriptor, error) {
	entry, err := referrer.Entry(subject, mediaType, manifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach to %s@%s: %w", l.path, subject.Digest(), err)
	}
	plain := ocispec.Descriptor{MediaType: entry.MediaType, Digest: entry.Digest, Size: entry.Size}
	if err := l.pushBytes(ctx, plain, manifest); err != nil {
		return ocispec.Descriptor{}, err
	}
	return entry, l.Enlist(ctx, subject, entry)
}

// Enlist lists manifests that refer to subject, and are there already, in the index, in
// one replacement of it.
func (l *Layout) Enlist(ctx context.Context, subject signature.Subject, entries ...ocispec.Descriptor) error {
	if len(entries) == 0 {
		return nil
	}
	if subject.IsZero() || slices.ContainsFunc(entries, func(e ocispec.Descriptor) bool { return !usable(e) }) {
		return errors.New("attach: the subject or an entry names nothing")
	}
	return l.store.update(ctx, func(x *index) error {
		for _, e := range entries {
			plain := ocispec.Descriptor{MediaType: e.MediaType, ArtifactType: e.ArtifactType, Digest: e.Digest, Size: e.Size}
			if err := x.add(plain); err != nil {
				return err
			}
		}
		return nil
	})
}

// AppendClassic adds layers, whose blobs are there already, to the manifest under
// cosign's classic tag of s. It returns the digest of the manifest.
func (l *Layout) AppendClassic(ctx context.Context, s signature.Subject, layers ...ocispec.Descriptor) (digest.Digest, error) {
	var made digest.Digest
	tag := referrer.ClassicTag(s.Digest())
	for {
		before, found, err := l.Classic(ctx, s)
		if err != nil {
			return "", err
		}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
		m.SchemaVersion = 2
		if found {
			raw, err := l.FetchManifest(ctx, before)
			if err != nil {
				return "", err
			}
			if err := json.Unmarshal(raw, &m); err != nil {
				return "", newError("attach", l.path+":"+tag, Malformed, "it is no manifest")
			}
		}
		desc, err := l.withClassic(ctx, &m, layers)
		if err != nil {
			return "", err
		}
		made = desc.Digest
		changed := false
		err = l.store.update(ctx, func(x *index) error {
			now, _, err := x.classic("attach", l.path, s.Digest())
			if err != nil {
				return err
			}
			// Somebody else was there between our reading and the lock.
			if changed = now.Digest != before.Digest && now.Digest != desc.Digest; changed {
				return nil
			}
			return x.setTag(desc, tag)
		})
		if err != nil || !changed {
			return made, err
		}
	}
}

// withClassic adds layers unless they are there, and stores what comes of it.
func (l *Layout) withClassic(ctx context.Context, m *ocispec.Manifest, added []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var layers []json.RawMessage
	all, there := m.Layers, make(map[string]bool)
	m.Layers = nil
	for i, x := range append(all[:len(all):len(all)], added...) {
		raw, err := json.Marshal(x)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		key, err := referrer.LayerKey(raw)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if i < len(all) || !there[key] {
			layers, m.Layers = append(layers, raw), append(m.Layers, x)
		}
		there[key] = true
	}
	config, err := referrer.ImageConfig(layers)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	raw, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := l.pushBytes(ctx, m.Config, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, l.pushBytes(ctx, desc, raw)
}
