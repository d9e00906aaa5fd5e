// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

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

func (e *entry) tag() string { return e.desc.Annotations[ocispec.AnnotationRefName] }

// setTag gives an entry a tag, or takes its tag away.
func (e *entry) setTag(tag string) error {
	annotations := maps.Clone(e.desc.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	if annotations[ocispec.AnnotationRefName] = tag; tag == "" {
		delete(annotations, ocispec.AnnotationRefName)
	}
	return e.set(map[string]any{"annotations": annotations})
}

// set changes fields of an entry, and takes away those of nil. What another tool added
// stays.
func (e *entry) set(values map[string]any) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(e.raw, &fields); err != nil {
		return err
	}
	for name, value := range values {
		// Readers, this one too, may take "Size" for "size".
		maps.DeleteFunc(fields, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, name) })
		if value == nil {
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		fields[name] = raw
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	e.raw, e.desc = raw, ocispec.Descriptor{}
	return json.Unmarshal(raw, &e.desc)
}

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
	return x.only(op, about, "the tag "+tag, func(e *entry) bool { return e.tag() == tag })
}

func (x *index) only(op, about, what string, is func(*entry) bool) (ocispec.Descriptor, bool, error) {
	var found ocispec.Descriptor
	for _, e := range x.entries {
		if !is(&e) || !usable(e.desc) {
			continue
		}
		if found.Digest != "" && found.Digest != e.desc.Digest {
			return found, false, newError(op, about, Malformed, "%s stands for two manifests", what)
		}
		found = e.desc
	}
	return found, found.Digest != "", nil
}

// maxNames bounds how many of another's names an error repeats.
const maxNames = 10

// names says by what a manifest could have been named. Some programs write a whole
// reference, which no tag can be.
func (x *index) names() string {
	var names []string
	for _, e := range x.entries {
		name := e.tag()
		if base, _, _ := strings.Cut(name, "."); name == "" || !usable(e.desc) || referrersTag.MatchString(base) {
			continue
		}
		if !tagPattern.MatchString(name) {
			name = fmt.Sprintf("@%s (%s)", e.desc.Digest, printable(name))
		}
		if slices.Contains(names, name) {
			continue
		}
		if len(names) == maxNames {
			names = append(names, "...")
			break
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "it has no tags: name a digest"
	}
	return "it has " + strings.Join(names, ", ")
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
	if err := x.mend(desc); err != nil {
		return err
	}
	i := x.at(desc.Digest)
	if i < 0 {
		return x.append(desc)
	}
	if e := &x.entries[i]; desc.ArtifactType != "" && e.desc.ArtifactType == "" {
		return e.set(map[string]any{"artifactType": desc.ArtifactType})
	}
	return nil
}

// mend corrects entries of a manifest that was hashed: with another size or type nobody
// can read it by them.
func (x *index) mend(desc ocispec.Descriptor) error {
	for i := range x.entries {
		e := &x.entries[i]
		if e.desc.Digest != desc.Digest || e.desc.Size == desc.Size && e.desc.MediaType == desc.MediaType {
			continue
		}
		if err := e.set(map[string]any{"mediaType": desc.MediaType, "size": desc.Size, "data": nil}); err != nil {
			return err
		}
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

// setTag moves a tag. The manifests that had it stay listed.
func (x *index) setTag(desc ocispec.Descriptor, tag string) error {
	if err := x.mend(desc); err != nil {
		return err
	}
	with := func(tag string) int {
		return slices.IndexFunc(x.entries, func(e entry) bool { return e.desc.Digest == desc.Digest && e.tag() == tag })
	}
	at := with(tag)
	if at < 0 {
		at = with("")
	}
	for i := range x.entries {
		if e := &x.entries[i]; i != at && e.tag() == tag {
			if err := e.setTag(""); err != nil {
				return err
			}
		}
	}
	if at < 0 {
		at = len(x.entries)
		if err := x.append(desc); err != nil {
			return err
		}
	}
	return x.entries[at].setTag(tag)
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
