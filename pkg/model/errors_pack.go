// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "fmt"

// SourceError is something on disk that cannot be packed: a dangling link, a link
// that leads outside, a socket, a device.
type SourceError struct {
	Path   string // as given or found
	Reason string
	Err    error // the cause when the system gave one
	// Argument means that Path was given, and not found below what was.
	Argument bool
}

func (e *SourceError) Error() string { return fmt.Sprintf("cannot pack %q: %s", e.Path, e.Reason) }

func (e *SourceError) Unwrap() error { return e.Err }

// CollisionError means that two arguments would have one name in the model.
type CollisionError struct {
	Name          string // in the model
	First, Second string // as given
}

func (e *CollisionError) Error() string {
	return fmt.Sprintf("%q and %q would both be %q in the model", e.First, e.Second, e.Name)
}

// ChangedError means that a file is no longer what was hashed, so that the
// manifest does not describe it.
type ChangedError struct{ Path string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%q changed while it was being packed", e.Path)
}

// EmptyError means that there is no file to pack. Ignored is the number of files
// and directories that the ignore rules left out.
type EmptyError struct {
	Path    string
	Ignored int
}

func (e *EmptyError) Error() string {
	if e.Ignored == 0 {
		return fmt.Sprintf("no file to pack in %q", e.Path)
	}
	return fmt.Sprintf("no file to pack in %q: the ignore rules leave out all there is", e.Path)
}

// TooManyFilesError means that the manifest would be larger than registries take.
type TooManyFilesError struct {
	Files    int
	Size     int // of the manifest, in bytes; zero when counting stopped earlier
	MaxBytes int
}

func (e *TooManyFilesError) Error() string {
	if e.Size == 0 {
		return fmt.Sprintf("more than %d files: their manifest would be larger than the %d bytes that registries take", e.Files, e.MaxBytes)
	}
	return fmt.Sprintf("the manifest of %d files would be %d bytes, more than the %d that registries take", e.Files, e.Size, e.MaxBytes)
}

// FileSizeError means that a file is larger than PackOptions.MaxFileSize, or empty where
// PackOptions.RefuseEmpty forbids that.
type FileSizeError struct {
	Path      string // in the model
	Size, Max int64  // bytes; zero both for an empty file
}

func (e *FileSizeError) Error() string {
	if e.Size == 0 {
		return fmt.Sprintf("%q is empty", e.Path)
	}
	return fmt.Sprintf("%q has %d bytes, more than the %d of one layer", e.Path, e.Size, e.Max)
}

// OptionError is a value of PackOptions that cannot be used.
type OptionError struct{ Option, Reason string }

func (e *OptionError) Error() string { return fmt.Sprintf("%s: %s", e.Option, e.Reason) }
