// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// noDigest stands for a digest that is not known yet; it has the same length.
var noDigest = digest.Digest("sha256:" + strings.Repeat("0", 64))

// check refuses options that would make a manifest others cannot read.
func (o *PackOptions) check() error {
	for key, value := range o.Annotations {
		switch {
		case key == "":
			return &OptionError{Option: "annotation", Reason: fmt.Sprintf("the name of %q is empty", value)}
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return &OptionError{Option: "annotation", Reason: fmt.Sprintf("%q is not valid UTF-8", key)}
		}
	}
	for option, value := range map[string]string{"model name": o.Name, "model version": o.Version} {
		if !utf8.ValidString(value) {
			return &OptionError{Option: option, Reason: fmt.Sprintf("%q is not valid UTF-8", value)}
		}
	}
	if s := o.Details.ParamSize; s != "" && !isParamSize(s) {
		return &OptionError{Option: "parameter size", Reason: fmt.Sprintf("%q is not a number with at most one decimal and one of K, M, B, T, Q", s)}
	}
	return nil
}

// over returns d where it says something, and found elsewhere.
func (d Details) over(found Details) Details {
	str := func(given, found string) string {
		if given != "" {
			return given
		}
		return found
	}
	list := func(given, found []string) []string {
		if len(given) > 0 {
			return given
		}
		return found
	}
	return Details{
		Authors: list(d.Authors, found.Authors), Vendor: str(d.Vendor, found.Vendor), Family: str(d.Family, found.Family),
		Title: str(d.Title, found.Title), Description: str(d.Description, found.Description),
		DocURL: str(d.DocURL, found.DocURL), SourceURL: str(d.SourceURL, found.SourceURL), Revision: str(d.Revision, found.Revision),
		Licenses: list(d.Licenses, found.Licenses), Architecture: str(d.Architecture, found.Architecture),
		Format: str(d.Format, found.Format), ParamSize: str(d.ParamSize, found.ParamSize),
		Precision: str(d.Precision, found.Precision), Quantization: str(d.Quantization, found.Quantization),
	}
}

// newPacked makes the config and the manifest of files, which are in the order of
// their layers.
func newPacked(files []File, d Details, o *PackOptions) (*Packed, error) {
	config, err := marshal(modelConfig(files, d, o))
	if err != nil {
		return nil, err
	}
	layers := make([]ocispec.Descriptor, len(files))
	p := &Packed{config: config, files: files}
	for i, f := range files {
		if layers[i], err = layerDescriptor(f); err != nil {
			return nil, err
		}
		p.total += f.Size
	}
	p.manifest, err = marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: modelspec.ArtifactTypeModelManifest,
		Config:       configDescriptor(config),
		Layers:       layers,
		Annotations:  manifestAnnotations(d, o),
	})
	if err != nil {
		return nil, err
	}
	if len(p.manifest) > signature.MaxManifestSize {
		return nil, &TooManyFilesError{Files: len(files), Size: len(p.manifest), MaxBytes: signature.MaxManifestSize}
	}
	if p.subject, err = signature.SubjectOf(ocispec.MediaTypeImageManifest, p.manifest); err != nil {
		return nil, fmt.Errorf("check the manifest: %w", err)
	}
	return p, nil
}

// marshal writes v without the escapes that HTML needs: they only make names
// hard to read.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func modelConfig(files []File, d Details, o *PackOptions) modelspec.Model {
	diffIDs := make([]digest.Digest, len(files))
	for i, f := range files {
		diffIDs[i] = f.digestOrPlace()
	}
	name := o.Name
	if name == "" {
		name = d.Title
	}
	m := modelspec.Model{
		Descriptor: modelspec.ModelDescriptor{
			Authors: d.Authors, Vendor: d.Vendor, Family: d.Family, Name: name, Version: o.Version,
			Title: d.Title, Description: d.Description, DocURL: d.DocURL, SourceURL: d.SourceURL,
			Revision: d.Revision, Licenses: d.Licenses,
		},
		Config: modelspec.ModelConfig{
			Architecture: d.Architecture, Format: d.Format, ParamSize: d.ParamSize,
			Precision: d.Precision, Quantization: d.Quantization,
		},
		ModelFS: modelspec.ModelFS{Type: "layers", DiffIDs: diffIDs},
	}
	if !o.CreatedAt.IsZero() {
		at := o.CreatedAt.UTC()
		m.Descriptor.CreatedAt = &at
	}
	return m
}

func configDescriptor(config []byte) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: modelspec.MediaTypeModelConfig,
		Digest:    digest.FromBytes(config),
		Size:      int64(len(config)),
	}
}

func (f *File) digestOrPlace() digest.Digest {
	if f.Digest == "" {
		return noDigest
	}
	return f.Digest
}

// layerDescriptor names the file twice, for the readers of ModelPack and for
// those who only know the title (oras, podman, CRI-O), and gives the metadata
// that modctl restores: a mode, and one constant time because the real one would
// change the digest.
func layerDescriptor(f File) (ocispec.Descriptor, error) {
	mode := uint32(0o644)
	if f.Executable {
		mode = 0o755
	}
	metadata, err := marshal(modelspec.FileMetadata{
		Name:    path.Base(f.Path),
		Mode:    mode,
		Size:    f.Size,
		ModTime: time.Unix(0, 0).UTC(),
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{
		MediaType: f.MediaType,
		Digest:    f.digestOrPlace(),
		Size:      f.Size,
		Annotations: map[string]string{
			modelspec.AnnotationFilepath:          f.Path,
			modelspec.AnnotationFileMetadata:      string(metadata),
			modelspec.AnnotationMediaTypeUntested: strconv.FormatBool(f.guessed),
			ocispec.AnnotationTitle:               f.Path,
		},
	}, nil
}

// manifestAnnotations says in OCI's own words what was asked for, so that a
// registry shows it; what the caller annotates wins.
func manifestAnnotations(d Details, o *PackOptions) map[string]string {
	a := make(map[string]string)
	set := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	set(ocispec.AnnotationTitle, o.Name)
	set(ocispec.AnnotationVersion, o.Version)
	set(ocispec.AnnotationVendor, d.Vendor)
	set(ocispec.AnnotationDescription, d.Description)
	set(ocispec.AnnotationDocumentation, d.DocURL)
	set(ocispec.AnnotationSource, d.SourceURL)
	set(ocispec.AnnotationRevision, d.Revision)
	set(ocispec.AnnotationAuthors, strings.Join(d.Authors, ", "))
	set(ocispec.AnnotationLicenses, strings.Join(d.Licenses, " AND "))
	if !o.CreatedAt.IsZero() {
		set(ocispec.AnnotationCreated, o.CreatedAt.UTC().Format(time.RFC3339))
	}
	maps.Copy(a, o.Annotations)
	return a
}
