// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package referrer knows what is stored beside a manifest, in a registry as in an
// image layout: the entries of lists of referrers, and cosign's classic manifests.
package referrer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Tag is the tag that lists the referrers of d where nothing else does
// (distribution spec 1.1, "Referrers Tag Schema").
func Tag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// ClassicTag is where cosign before version 3 keeps the signatures of d.
func ClassicTag(d digest.Digest) string { return Tag(d) + ".sig" }

// Entry is the descriptor of a referrer as lists show it: artifactType and
// annotations come from the manifest (distribution spec 1.1, "Pushing Manifests
// with Subject"), which need not repeat its media type.
func Entry(subject signature.Subject, mediaType string, manifest []byte) (ocispec.Descriptor, error) {
	if subject.IsZero() {
		return ocispec.Descriptor{}, errors.New("the subject names nothing")
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("the referrer's manifest: %w", err)
	}
	s, err := signature.SubjectOf(mediaType, manifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("the referrer's manifest: %w", err)
	}
	if m.Subject == nil || m.Subject.Digest != subject.Digest() {
		return ocispec.Descriptor{}, errors.New("the referrer's manifest has another subject")
	}
	entry := s.Descriptor()
	entry.Annotations = m.Annotations
	if entry.ArtifactType = m.ArtifactType; entry.ArtifactType == "" {
		entry.ArtifactType = m.Config.MediaType
	}
	return entry, nil
}

// LayerKey tells signatures apart: one payload may be signed by several keys, so
// that the annotations belong to it.
func LayerKey(raw json.RawMessage) (string, error) {
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

// ImageConfig is the config that cosign writes for such a manifest.
func ImageConfig(layers []json.RawMessage) ([]byte, error) {
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
