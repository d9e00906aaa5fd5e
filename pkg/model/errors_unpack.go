// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ContentError means that bytes are not what a digest or a size says they must
// be: somebody changed them. It is a rejection.
type ContentError struct {
	// Path is the file or layer the bytes were for.
	Path string
	// Want and Got are digests; Got is empty when the size alone was wrong.
	Want, Got digest.Digest
	Reason    string
}

func (e *ContentError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("%s: the content is not %s: %s", e.Path, e.Want, e.Reason)
	}
	return fmt.Sprintf("%s: the content is %s and must be %s: %s", e.Path, e.Got, e.Want, e.Reason)
}

// ShortError means that a layer ended, without an error, before the size in its
// descriptor: that is all there is of it. It is a rejection.
type ShortError struct {
	Path      string
	Digest    digest.Digest
	Want, Got int64
}

func (e *ShortError) Error() string {
	return fmt.Sprintf("%s: %s ended after %d of %d bytes", e.Path, e.Digest, e.Got, e.Want)
}

// LayerError lists layers that nobody here knows how to unpack, by media type,
// each once.
type LayerError struct{ MediaTypes []string }

func (e *LayerError) Error() string {
	return "layers of an unknown type: " + strings.Join(e.MediaTypes, ", ")
}

// IndexError means that the subject is an index of manifests and not a model.
type IndexError struct{ Digest digest.Digest }

func (e *IndexError) Error() string {
	return fmt.Sprintf("%s is an index of manifests: name one manifest of it by its digest", e.Digest)
}

// TarError means that a directory layer is not an archive that may be unpacked.
// It is a rejection.
type TarError struct {
	Layer  digest.Digest
	Reason string
}

func (e *TarError) Error() string { return fmt.Sprintf("directory layer %s: %s", e.Layer, e.Reason) }

// SpaceError means that a model does not fit on the destination's volume. Sizes
// are in bytes; Need is what was still to be written. Both are zero when the
// volume filled up while writing.
type SpaceError struct {
	Dir        string
	Need, Free int64
	Err        error
}

func (e *SpaceError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the volume of %s is full: %v", e.Dir, e.Err)
	}
	return fmt.Sprintf("the volume of %s has %d bytes free and %d are needed", e.Dir, e.Free, e.Need)
}

func (e *SpaceError) Unwrap() error { return e.Err }

// NotEmptyError means that the destination holds something that is not a model
// unpacked here. Names are a few of the entries met.
type NotEmptyError struct {
	Dir   string
	Names []string
}

func (e *NotEmptyError) Error() string {
	return fmt.Sprintf("%s is not empty: it holds %s", e.Dir, strings.Join(e.Names, ", "))
}

// InstalledError means that another model is installed at the destination.
type InstalledError struct {
	Dir               string
	Installed, Wanted digest.Digest
}

func (e *InstalledError) Error() string {
	return fmt.Sprintf("%s holds the model %s and not %s", e.Dir, e.Installed, e.Wanted)
}

// RollbackError means that the signature of the wanted model is older than that
// of the one it would replace. Times are RFC 3339, "unknown" where not claimed.
type RollbackError struct {
	Dir               string
	Installed, Wanted digest.Digest
	InstalledAt       string
	WantedAt          string
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("%s holds %s, signed at %s: refusing the older %s, signed at %s",
		e.Dir, e.Installed, e.InstalledAt, e.Wanted, e.WantedAt)
}

// NotInstalledError means that a directory has no readable receipt.
type NotInstalledError struct {
	Dir string
	Err error
}

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("%s: no model was installed here: %v", e.Dir, e.Err)
}

func (e *NotInstalledError) Unwrap() error { return e.Err }

// DirError lists how a directory differs from its manifest. Each list is cut
// after a hundred names; More counts the names left out.
type DirError struct {
	Dir                            string
	Changed, Missing, Extra, Links []string
	More                           int
}

const maxDirNames = 100

func (e *DirError) Error() string {
	var parts []string
	for _, l := range []struct {
		what  string
		names []string
	}{{"changed", e.Changed}, {"missing", e.Missing}, {"not in the manifest", e.Extra}, {"links", e.Links}} {
		if len(l.names) > 0 {
			parts = append(parts, l.what+": "+strings.Join(l.names, ", "))
		}
	}
	if e.More > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", e.More))
	}
	return e.Dir + " differs from its manifest: " + strings.Join(parts, "; ")
}

func (e *DirError) empty() bool {
	return len(e.Changed)+len(e.Missing)+len(e.Extra)+len(e.Links)+e.More == 0
}

func (e *DirError) add(list *[]string, name string) {
	if len(*list) >= maxDirNames {
		e.More++
		return
	}
	*list = append(*list, name)
}

// UncheckableError means that files came out of a compressed layer for which the
// manifest authenticates no digest of the uncompressed content, so that files on
// disk cannot be judged without fetching it again.
type UncheckableError struct {
	Dir    string
	Layers []digest.Digest
}

func (e *UncheckableError) Error() string {
	return fmt.Sprintf("%s: cannot be judged without the registry: no digest of the uncompressed content of %v is signed", e.Dir, e.Layers)
}

// LockedError means that the place for staging at a destination cannot be used.
type LockedError struct {
	Dir    string
	Reason string
}

func (e *LockedError) Error() string { return fmt.Sprintf("%s: %s", e.Dir, e.Reason) }

// judged reports whether err is about what the destination holds, which must not be
// touched.
func judged(err error) bool {
	var (
		full      *NotEmptyError
		installed *InstalledError
		rollback  *RollbackError
		damaged   *DirError
	)
	return errors.As(err, &full) || errors.As(err, &installed) || errors.As(err, &rollback) || errors.As(err, &damaged)
}

// rejected reports whether err is a judgement about the content, after which
// nothing of it may stay on disk.
func rejected(err error) bool {
	var (
		content *ContentError
		path    *PathError
		layer   *LayerError
		tar     *TarError
		index   *IndexError
		short   *ShortError
	)
	return errors.As(err, &content) || errors.As(err, &short) || errors.As(err, &path) || errors.As(err, &layer) ||
		errors.As(err, &tar) || errors.As(err, &index)
}
