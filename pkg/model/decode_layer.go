// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/json"
	"fmt"
	"regexp"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
)

const (
	// The names that modctl and model-csi-driver wrote before ModelPack was
	// adopted by CNCF.
	legacyFilepath     = "org.cnai.model.filepath"
	legacyFileMetadata = "org.cnai.model.file.metadata+json"

	// orasUnpack and orasContentDigest are oras-go's (content/file): a directory
	// that was archived for the push, and the digest of the archive before gzip.
	orasUnpack        = "io.deis.oras.content.unpack"
	orasContentDigest = "io.deis.oras.content.digest"
)

// Compression of a directory layer.
const (
	compressionNone = ""
	compressionGzip = "gzip"
	compressionZstd = "zstd"
)

var (
	modelLayer  = regexp.MustCompile(`^application/vnd\.(?:cncf|cnai)\.model\.([a-z0-9.-]+)\.v1\.(raw|tar)(\+[a-z0-9]+)?$`)
	kitopsLayer = regexp.MustCompile(`^application/vnd\.kitops\.modelkit\.([a-z0-9.-]+)\.v1\.(raw|tar)(\+[a-z0-9]+)?$`)
	tarSuffix   = regexp.MustCompile(`[./](tar)(\+[a-z0-9]+)?$`)
)

// Layer is one layer that can be unpacked: a file, or an archive of a directory.
type Layer struct {
	Descriptor ocispec.Descriptor
	// Path is where the file goes, with slashes, relative to the model's root. For
	// an archive it is what the publisher calls it, possibly empty: the paths are
	// inside.
	Path string
	// Kind is what the media type says: weight, weight.config, code, doc, dataset
	// (KitOps: model, modelpart, dataset, code, docs); empty for other media types.
	Kind string
	// Executable is the executable bit of the file's metadata.
	Executable bool
	// Archive reports a tar; Compression is "", "gzip" or "zstd".
	Archive     bool
	Compression string
	// ContentDigest is the digest of the uncompressed archive as an annotation of
	// the manifest has it, if any.
	ContentDigest digest.Digest

	index int // in the manifest's layers
}

// name is how messages and progress call the layer.
func (l Layer) name() string {
	if l.Path != "" {
		return l.Path
	}
	return l.Descriptor.Digest.String()
}

// decodeLayer reads one descriptor. It reports false for a layer that it does
// not know how to unpack.
func decodeLayer(desc ocispec.Descriptor) (Layer, bool, error) {
	l := Layer{Descriptor: desc}
	var err error
	if l.Path, err = layerPath(desc); err != nil {
		return l, false, err
	}
	known, err := l.format()
	if err != nil || !known {
		return l, false, err
	}
	if err := l.metadata(); err != nil {
		return l, false, err
	}
	if cd := digest.Digest(desc.Annotations[orasContentDigest]); l.Archive && cd != "" {
		if cd.Validate() != nil || cd.Algorithm() != digest.SHA256 {
			return l, false, &PathError{Path: l.name(), Reason: fmt.Sprintf("its annotation %s is not a SHA-256 digest", orasContentDigest)}
		}
		l.ContentDigest = cd
	}
	return l, true, nil
}

// layerPath reads the name that up to three annotations give to a layer. They
// must agree: readers that know just one of them must see the same model.
func layerPath(desc ocispec.Descriptor) (string, error) {
	path, from := "", ""
	for _, key := range []string{modelspec.AnnotationFilepath, ocispec.AnnotationTitle, legacyFilepath} {
		value, ok := desc.Annotations[key]
		if !ok {
			continue
		}
		if err := checkPath(value); err != nil {
			return "", err
		}
		if from != "" && value != path {
			return "", &PathError{Path: value, Reason: fmt.Sprintf("%s calls the same layer %q", from, path)}
		}
		path, from = value, key
	}
	return path, nil
}

// format tells how the layer is packed, and whether that is known. A media type
// of a family that we know decides, whatever the annotations say: bytes in a
// compression we cannot undo must not pass for the file they hold.
func (l *Layer) format() (known bool, err error) {
	mediaType := l.Descriptor.MediaType
	for _, family := range []*regexp.Regexp{modelLayer, kitopsLayer} {
		if match := family.FindStringSubmatch(mediaType); match != nil {
			l.Kind = match[1]
			return l.packed(match[2], match[3]), nil
		}
	}
	if l.Descriptor.Annotations[orasUnpack] == "true" {
		match := tarSuffix.FindStringSubmatch(mediaType)
		if match == nil {
			// oras archives a directory with gzip whatever the media type.
			return l.packed("tar", "+gzip"), nil
		}
		return l.packed(match[1], match[2]), nil
	}
	return l.Path != "", nil
}

func (l *Layer) packed(format, suffix string) bool {
	if format == "raw" {
		return suffix == "" && l.Path != ""
	}
	l.Archive = true
	switch suffix {
	case "":
		l.Compression = compressionNone
	case "+gzip":
		l.Compression = compressionGzip
	case "+zstd":
		l.Compression = compressionZstd
	default:
		return false
	}
	return true
}

// metadata reads the executable bit, and refuses metadata that contradicts the
// layer. Owner, group and time are never restored.
func (l *Layer) metadata() error {
	text, ok := l.Descriptor.Annotations[modelspec.AnnotationFileMetadata]
	if !ok {
		text, ok = l.Descriptor.Annotations[legacyFileMetadata]
	}
	if !ok || l.Archive {
		return nil
	}
	var meta struct {
		Mode     uint32          `json:"mode"`
		Size     *int64          `json:"size"`
		Typeflag json.RawMessage `json:"typeflag"`
	}
	if err := strictjson.Unmarshal([]byte(text), &meta); err != nil {
		return &PathError{Path: l.name(), Reason: "its file metadata is malformed: " + err.Error()}
	}
	if meta.Size != nil && *meta.Size != l.Descriptor.Size {
		return &PathError{Path: l.name(), Reason: fmt.Sprintf("its file metadata says %d bytes and its descriptor %d", *meta.Size, l.Descriptor.Size)}
	}
	// 0 is what modctl writes for a regular file, 48 is tar's own '0'.
	switch string(meta.Typeflag) {
	case "", "0", "48", "null":
	default:
		return &PathError{Path: l.name(), Reason: fmt.Sprintf("its file metadata says type %s, and only regular files can be raw layers", meta.Typeflag)}
	}
	l.Executable = meta.Mode&0o111 != 0
	return nil
}
