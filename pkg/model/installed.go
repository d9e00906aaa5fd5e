// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// Installed is a directory that says it holds a model, and the evidence it
// brings. None of it is trusted: the manifest has to be verified again, and Check
// holds every file to it.
type Installed struct {
	dir        string
	manifest   []byte
	mediaType  string
	config     []byte
	signatures []StoredSignature
	signedAt   time.Time
	// complete reports that there is a receipt for this manifest.
	complete bool
}

// OpenInstalled reads the evidence at dir. It returns a *NotInstalledError when
// there is no receipt and manifest of bounded size in regular files.
func OpenInstalled(dir string) (*Installed, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &NotInstalledError{Dir: dir, Err: err}
	}
	defer root.Close()
	i, err := readInstalled(root, dir)
	if err != nil {
		return nil, &NotInstalledError{Dir: dir, Err: err}
	}
	if !i.complete {
		return nil, &NotInstalledError{Dir: dir, Err: errors.New("there is no receipt, so the model is not complete")}
	}
	return i, nil
}

// readInstalled also reads what an interrupted run left without a receipt.
func readInstalled(root *os.Root, dir string) (*Installed, error) {
	info, err := root.Lstat(evidenceDir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", evidenceDir)
	}
	i := &Installed{dir: dir, mediaType: ocispec.MediaTypeImageManifest}
	if i.manifest, err = readSmall(root, manifestName, signature.MaxManifestSize); err != nil {
		return nil, err
	}
	var r receipt
	data, err := readSmall(root, receiptName, maxReceiptSize)
	switch {
	case err == nil:
		if err := strictjson.UnmarshalKnown(data, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", receiptName, err)
		}
		if r.Version != receiptVersion {
			return nil, fmt.Errorf("%s has version %d, and this program reads %d", receiptName, r.Version, receiptVersion)
		}
		i.complete = r.Digest == i.digest()
		i.mediaType, i.signedAt = r.MediaType, r.SignedAt
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if i.config, err = readSmall(root, configName, maxConfigSize); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	i.signatures, err = readSignatures(root, r)
	return i, err
}

func (i *Installed) digest() digest.Digest { return digest.FromBytes(i.manifest) }

// Dir is the directory.
func (i *Installed) Dir() string { return i.dir }

// Manifest returns the kept manifest's bytes.
func (i *Installed) Manifest() []byte { return slices.Clone(i.manifest) }

// MediaType is the media type that the receipt gives the manifest.
func (i *Installed) MediaType() string { return i.mediaType }

// Signatures returns the kept signatures.
func (i *Installed) Signatures() []StoredSignature { return slices.Clone(i.signatures) }

// CheckOptions says how Check works.
type CheckOptions struct {
	// Concurrency is how many files are hashed at once. Zero means one per core.
	Concurrency int
	Progress    Progress
}

// Check holds every file in the directory to the manifest that v verified, whose
// bytes the kept manifest must be. It returns how many files and bytes it
// hashed. A directory that differs gives a *DirError; files out of compressed
// archives without a signed digest of their content an *UncheckableError.
func (i *Installed) Check(ctx context.Context, v verify.Verified, o CheckOptions) (files int, bytes int64, err error) {
	m, err := Decode(v, i.manifest)
	if err != nil {
		return 0, 0, err
	}
	root, err := os.OpenRoot(i.dir)
	if err != nil {
		return 0, 0, err
	}
	defer root.Close()
	return i.check(ctx, root, v, m, o)
}
