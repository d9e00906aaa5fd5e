// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package rootfile opens files in directories that others may write to.
package rootfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// OpenPlain opens a regular file in root without following a link in its last
// component. The file that was looked at is the one that is opened.
func OpenPlain(root *os.Root, name string, flag int) (*os.File, fs.FileInfo, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := root.OpenFile(name, flag|NoFollow|NoWait, 0)
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

// OpenOwned opens a file to go on writing to it, and reports how much it holds; one
// that is not there is made, with mode 0600. A file that is not ours, not regular
// or has a second name, through which somebody else could write to it after the
// check, or we to somebody else's file, is removed with remove and made anew.
func OpenOwned(root *os.Root, name string, remove func(string) error) (*os.File, int64, error) {
	f, info, err := OpenPlain(root, name, os.O_RDWR)
	if err == nil {
		if OwnedByUs(info) && LinkCount(info) == 1 {
			return f, info.Size(), nil
		}
		f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		if err := remove(name); err != nil {
			return nil, 0, err
		}
	}
	f, err = root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return f, 0, err
}
