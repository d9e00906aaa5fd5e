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
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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
	receipt  receipt
}

// OpenInstalled reads the evidence at dir. It returns a *NotInstalledError when
// there is no receipt and manifest of bounded size in regular files, and another error
// when that cannot be told.
func OpenInstalled(dir string) (*Installed, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, notInstalled(dir, err)
	}
	defer root.Close()
	i, err := readInstalled(root, dir)
	if err != nil {
		return nil, notInstalled(dir, err)
	}
	if !i.complete {
		return nil, &NotInstalledError{Dir: dir, Err: errors.New("there is no receipt, so the model is not complete")}
	}
	return i, nil
}

// notInstalled is for an error of reading the evidence at dir. What the system does not
// let us read, or cannot, is no evidence of anything.
func notInstalled(dir string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && !errors.Is(err, fs.ErrNotExist) && !isNotDir(err) && !errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("look for a model in %s: %w", dir, err)
	}
	return &NotInstalledError{Dir: dir, Err: err}
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
	r, err := readReceipt(root)
	switch {
	case err == nil:
		i.complete, i.receipt = r.Digest == i.digest(), r
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
	// Select picks the layers that must be there. More of the same model may be.
	Select Selection
	// AsRecorded asks for no more layers than the directory itself says it holds.
	// Whoever can write the directory can then take layers away.
	AsRecorded bool
}

// Checked is what Check has hashed. Partial means that layers of the model are
// not there.
type Checked struct {
	Files   int
	Size    int64
	Partial bool
}

// Check holds every file in the directory to the manifest that v verified, whose
// bytes the kept manifest must be. A directory that differs gives a *DirError,
// one that holds only a part of what o selects a *PartialError; files out of
// compressed archives without a signed digest of their content an
// *UncheckableError.
func (i *Installed) Check(ctx context.Context, v verify.Verified, o CheckOptions) (Checked, error) {
	m, err := Decode(v, i.manifest)
	if err != nil {
		return Checked{}, err
	}
	root, err := os.OpenRoot(i.dir)
	if err != nil {
		return Checked{}, err
	}
	defer root.Close()
	have, err := i.expected(root, m, o)
	if err != nil {
		return Checked{}, err
	}
	files, size, err := i.check(ctx, root, v, m.only(have), o)
	return Checked{Files: files, Size: size, Partial: have.count() < m.allLayers().count()}, err
}

// expected is what has to be there: what the directory says, which nobody trusts,
// if that is at least what o asks for.
func (i *Installed) expected(root *os.Root, m Manifest, o CheckOptions) (layerSet, error) {
	have, err := i.layers(root, m)
	if err != nil {
		return nil, err
	}
	if o.AsRecorded && have.count() > 0 {
		return have, nil
	}
	wanted, err := o.Select.choose(m)
	if err != nil {
		return nil, err
	}
	if missing := m.only(wanted.without(have)).layers; len(missing) > 0 {
		return nil, &PartialError{Dir: i.dir, Layers: have.count(), Of: m.allLayers().count(),
			Missing: missing[0].name(), MissingLayers: len(missing)}
	}
	return have, nil
}

// layers are the layers that the receipt says are installed; without a receipt
// those of which there is something.
func (i *Installed) layers(root *os.Root, m Manifest) (layerSet, error) {
	if i.complete && i.receipt.Layers == "" {
		return m.allLayers(), nil
	}
	if i.complete {
		set, err := parseLayerSet(i.receipt.Layers, m)
		if err != nil {
			return nil, &NotInstalledError{Dir: i.dir, Err: fmt.Errorf("%s: %w", receiptName, err)}
		}
		return set, nil
	}
	set := make(layerSet, m.layerCount)
	for _, l := range m.layers {
		name := l.Path
		if l.Archive {
			name = skeletonName(l)
		}
		_, err := root.Lstat(name)
		set[l.index] = err == nil
	}
	return set, nil
}
