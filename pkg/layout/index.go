// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whoever made the layout wrote its index: it is read up to these limits.
const (
	maxIndex   = 16 << 20
	maxEntries = 10000
)

// index is the list of what a layout holds. Entries and fields are kept as they
// were read: other tools' additions survive ours. The zero value is an empty one.
type index struct {
	fields  map[string]json.RawMessage
	entries []entry
}

type entry struct {
	raw  json.RawMessage
	desc ocispec.Descriptor
}

func (e entry) tag() string { return e.desc.Annotations[ocispec.AnnotationRefName] }

func parseIndex(op, about string, raw []byte) (*index, error) {
	x := &index{}
	if err := json.Unmarshal(raw, &x.fields); err != nil {
		return nil, newError(op, about, Malformed, "index.json is not a JSON object")
	}
	var list []json.RawMessage
	if m, ok := x.fields["manifests"]; ok && json.Unmarshal(m, &list) != nil {
		return nil, newError(op, about, Malformed, "the manifests of index.json are not a list")
	}
	if len(list) > maxEntries {
		return nil, newError(op, about, TooLarge, "index.json has %d entries, at most %d are read", len(list), maxEntries)
	}
	for i, r := range list {
		e := entry{raw: r}
		if err := json.Unmarshal(r, &e.desc); err != nil {
			return nil, newError(op, about, Malformed, "entry %d of index.json is no descriptor", i+1)
		}
		x.entries = append(x.entries, e)
	}
	return x, nil
}

// usable reports whether an entry's content can be looked for.
func usable(d ocispec.Descriptor) bool {
	return isSHA256(d.Digest) && d.Size >= 0
}

func isSHA256(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

// tagged returns the entry of a tag. Two entries of one tag mean two things to two
// readers.
func (x *index) tagged(op, about, tag string) (ocispec.Descriptor, bool, error) {
	var found ocispec.Descriptor
	for _, e := range x.entries {
		if e.tag() != tag || !usable(e.desc) {
			continue
		}
		if found.Digest != "" && found.Digest != e.desc.Digest {
			return found, false, newError(op, about, Malformed, "the tag %s stands for two manifests", tag)
		}
		found = e.desc
	}
	return found, found.Digest != "", nil
}

func (x *index) byDigest(d digest.Digest) (ocispec.Descriptor, bool) {
	if i := x.at(d); i >= 0 {
		return x.entries[i].desc, true
	}
	return ocispec.Descriptor{}, false
}

// at is where a manifest is listed first, or negative.
func (x *index) at(d digest.Digest) int {
	return slices.IndexFunc(x.entries, func(e entry) bool { return e.desc.Digest == d && usable(e.desc) })
}

// add lists a manifest without a tag, unless it is listed. An entry that does not say of
// what type it is says so then.
func (x *index) add(desc ocispec.Descriptor) error {
	i := x.at(desc.Digest)
	if i < 0 {
		return x.append(desc)
	}
	if e := &x.entries[i]; desc.ArtifactType != "" && e.desc.ArtifactType == "" {
		var fields map[string]json.RawMessage
		err := json.Unmarshal(e.raw, &fields)
		if err == nil {
			fields["artifactType"], err = json.Marshal(desc.ArtifactType)
		}
		if err == nil {
			e.raw, err = json.Marshal(fields)
		}
		if err != nil {
			return err
		}
		e.desc.ArtifactType = desc.ArtifactType
	}
	return nil
}

// fits refuses an index, whose bytes are raw, that nobody would read again.
func (x *index) fits(path string, raw []byte) error {
	if len(raw) > maxIndex || len(x.entries) > maxEntries {
		return newError(opIndex, path, TooLarge, "the index would have %d entries in %d bytes", len(x.entries), len(raw))
	}
	return nil
}

// setTag moves a tag. The manifest that had it stays listed.
func (x *index) setTag(desc ocispec.Descriptor, tag string) error {
	var kept []entry
	for _, e := range x.entries {
		bare := e.tag() == ""
		if e.tag() == tag {
			if e.desc.Digest == desc.Digest {
				return nil
			}
			// Of the entry that loses its tag only the tag goes.
			e.desc.Annotations = maps.Clone(e.desc.Annotations)
			delete(e.desc.Annotations, ocispec.AnnotationRefName)
			raw, err := json.Marshal(e.desc)
			if err != nil {
				return err
			}
			e.raw = raw
		}
		if !(bare && e.desc.Digest == desc.Digest) {
			kept = append(kept, e)
		}
	}
	x.entries = kept
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[ocispec.AnnotationRefName] = tag
	return x.append(desc)
}

func (x *index) append(desc ocispec.Descriptor) error {
	raw, err := json.Marshal(desc)
	if err != nil {
		return err
	}
	x.entries = append(x.entries, entry{raw: raw, desc: desc})
	return nil
}

func (x *index) bytes() ([]byte, error) {
	fields := maps.Clone(x.fields)
	if fields == nil {
		fields = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
		}
	}
	list := make([]json.RawMessage, len(x.entries))
	for i, e := range x.entries {
		list[i] = e.raw
	}
	manifests, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	fields["manifests"] = manifests
	return json.Marshal(fields)
}
