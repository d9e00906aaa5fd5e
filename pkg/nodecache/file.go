// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// openPlain opens a regular file without following a link. The file that was looked
// at is the one that is opened.
func openPlain(root *os.Root, name string, flag int) (*os.File, fs.FileInfo, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no regular file", name)
	}
	f, err := root.OpenFile(name, flag|oNoFollow, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(before, info) {
		err = fmt.Errorf("%s was replaced while it was opened", name)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// openPartial opens what there is of a blob, and tells how much that is. A file that
// is not ours or has a second name is never written to: somebody may have put one
// there that we would destroy.
func openPartial(root *os.Root, name string) (*os.File, int64, error) {
	f, info, err := openPlain(root, name, os.O_RDWR)
	if err == nil {
		if ownedByUs(info) && linkCount(info) == 1 {
			return f, info.Size(), nil
		}
		f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		if err := root.Remove(name); err != nil {
			return nil, 0, err
		}
	}
	f, err = root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return f, 0, err
}

// cause drops the path that an os error repeats.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
