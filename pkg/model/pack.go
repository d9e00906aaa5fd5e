// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// PackOptions changes what Pack does. The zero PackOptions is useful.
type PackOptions struct {
	// Name and Version go into the config's descriptor and into the manifest's
	// org.opencontainers.image.title and .version. Without a Name the descriptor
	// has the one that the model's own files give, if any.
	Name, Version string
	// Annotations are set on the manifest; they win over those that Pack sets.
	Annotations map[string]string
	// Exclude holds patterns as in .dockerignore, judged after those of the
	// directory's .aegisignore.
	Exclude []string
	// FollowOutside also packs what links outside the model's root lead to.
	FollowOutside bool
	// MaxFileSize is the largest layer that the registry takes, in bytes. A larger
	// file is a *FileSizeError, before anything is hashed. Zero is no limit.
	MaxFileSize int64
	// RefuseEmpty is for a registry that takes no layer of zero bytes: an empty file is
	// a *FileSizeError then, at the same time.
	RefuseEmpty bool
	// Details overrides what Pack reads out of the model's files.
	Details Details
	// CreatedAt is recorded when it is not zero. It makes the digest depend on
	// it, so leave it out to get the same digest for the same files.
	CreatedAt time.Time
	// Concurrency is the number of files hashed at once. Zero means GOMAXPROCS.
	Concurrency int
	// Progress hears of the hashing, each file by its path. Nil means nobody.
	Progress Progress
}

// Details describes a model as the ModelPack config does (model-spec v0.0.7,
// docs/config.md). Empty fields are left to what the files tell.
type Details struct {
	Authors                            []string
	Vendor, Family, Title, Description string
	DocURL, SourceURL, Revision        string
	// Licenses are SPDX expressions.
	Licenses []string
	// ParamSize is a count and a scale: "7B", "6.7B", "350M".
	Architecture, Format, ParamSize, Precision, Quantization string
}

// File is one file of a packed model.
type File struct {
	Path       string // in the model, with slashes
	MediaType  string
	Kind       Kind
	Size       int64 // bytes
	Digest     digest.Digest
	Executable bool

	guessed bool // the kind, by size alone
}

// Blob is one blob to send: the config or the content of a file.
type Blob struct {
	Descriptor ocispec.Descriptor
	// Path is the file's path in the model, empty for the config.
	Path string
	// Open opens the content, any number of times. It returns a *ChangedError,
	// or the reader does at its end, when the file is no longer what was hashed.
	Open func() (io.ReadCloser, error)
}

// Packed is a model that was hashed: its manifest, and where its blobs are read.
type Packed struct {
	manifest []byte
	config   []byte
	subject  signature.Subject
	files    []File
	blobs    []Blob
	total    int64
}

// Manifest is the exact bytes of the manifest.
func (p *Packed) Manifest() []byte { return slices.Clone(p.manifest) }

// MediaType is the manifest's media type, that of an OCI image manifest.
func (p *Packed) MediaType() string { return p.subject.MediaType() }

// Subject names the manifest by its digest.
func (p *Packed) Subject() signature.Subject { return p.subject }

// Config is the exact bytes of the ModelPack config.
func (p *Packed) Config() []byte { return slices.Clone(p.config) }

// Files lists the files in the order of their layers: by path.
func (p *Packed) Files() []File { return slices.Clone(p.files) }

// Blobs lists what the manifest names, the config first, each digest once.
func (p *Packed) Blobs() []Blob { return slices.Clone(p.blobs) }

// TotalSize is the size of the model's files, in bytes.
func (p *Packed) TotalSize() int64 { return p.total }

// Pack hashes the files of a model and makes its ModelPack manifest, with one raw
// layer for each file, sorted by path. paths is one directory, whose contents
// become the root of the model, or files, which are packed by their base names.
// Empty directories are not kept: a manifest has no place for them.
//
// The manifest depends on names, contents and the owner's executable bit alone.
// Nothing is packed that matches the ignore rules: version control, caches and
// editor files, the patterns of a .aegisignore in the directory, and Exclude.
//
// Links are followed to what is inside the model's root or, for a snapshot in a
// Hugging Face cache, inside the cache's blobs folder.
//
// Errors: *OptionError, *SourceError, *PathError (a name that no model may have),
// *CollisionError, *EmptyError, *TooManyFilesError, *FileSizeError, *ChangedError,
// and those of the file system.
func Pack(ctx context.Context, paths []string, o PackOptions) (*Packed, error) {
	d, err := Prepare(ctx, paths, o)
	if err != nil {
		return nil, err
	}
	digests, err := d.hashAll(ctx)
	if err != nil {
		return nil, err
	}
	return d.Pack(digests)
}

func (o *PackOptions) sizesAllowed(files []File) error {
	for _, f := range files {
		if o.MaxFileSize > 0 && f.Size > o.MaxFileSize {
			return &FileSizeError{Path: f.Path, Size: f.Size, Max: o.MaxFileSize}
		}
		if o.RefuseEmpty && f.Size == 0 {
			return &FileSizeError{Path: f.Path}
		}
	}
	return nil
}

func (o *PackOptions) concurrency() int {
	if o.Concurrency > 0 {
		return o.Concurrency
	}
	return runtime.GOMAXPROCS(0)
}

// examine tells the kind of each source and what the model's files say of it.
func examine(ctx context.Context, sources []source) ([]File, Details, error) {
	files := make([]File, len(sources))
	d := newDetector()
	for i := range sources {
		if err := ctx.Err(); err != nil {
			return nil, Details{}, err
		}
		file, err := d.examine(&sources[i])
		if err != nil {
			return nil, Details{}, err
		}
		files[i] = file
	}
	return files, d.details(), nil
}

// addBlobs lists the config and each distinct content once.
func (p *Packed) addBlobs(sources []source) {
	config := p.config
	desc := configDescriptor(config)
	p.blobs = []Blob{{Descriptor: desc, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(config)), nil
	}}}
	seen := map[digest.Digest]bool{desc.Digest: true}
	for i, f := range p.files {
		if seen[f.Digest] {
			continue
		}
		seen[f.Digest] = true
		src := sources[i]
		p.blobs = append(p.blobs, Blob{
			Descriptor: ocispec.Descriptor{MediaType: f.MediaType, Digest: f.Digest, Size: f.Size},
			Path:       f.Path,
			Open:       src.reader,
		})
	}
}
