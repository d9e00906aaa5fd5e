// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// readSmall reads a whole regular file of at most limit bytes.
func readSmall(root *os.Root, name string, limit int64) ([]byte, error) {
	f, _, err := rootfile.OpenPlain(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, nil
}

// writeNew writes a file that does not exist yet, with mode 0644 whatever the
// umask, and flushes it.
func writeNew(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, finish(f, false, false))
}

// finish sets a written file's mode, flushes it to the disk and closes it. drop takes it
// out of the page cache, which it leaves only when it is on the disk.
func finish(f *os.File, executable, drop bool) error {
	mode := fs.FileMode(0o644)
	if executable {
		mode = 0o755
	}
	err := errors.Join(f.Chmod(mode), f.Sync())
	if err == nil && drop {
		err = dropCache(f, 0, 0)
	}
	return errors.Join(err, f.Close())
}

// replaceFile writes name so that a reader finds the old content or the new one.
func replaceFile(root *os.Root, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := root.RemoveAll(tmp); err != nil {
		return err
	}
	err := writeNew(root, tmp, data)
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		root.Remove(tmp) //nolint:errcheck // the next one does
		return err
	}
	return rootfile.SyncDir(root, path.Dir(name))
}

// makeDirs makes dir and its parents in root, each with mode 0755 and the group
// bit that a volume hands down. made remembers those already done. A link on the
// way is refused: nothing is ever written through one.
func makeDirs(root *os.Root, dir string, made map[string]bool) error {
	if dir == "." || made[dir] {
		return nil
	}
	if err := makeDirs(root, path.Dir(dir), made); err != nil {
		return err
	}
	err := root.Mkdir(dir, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := root.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &PathError{Path: dir, Reason: "it is not a directory"}
	}
	made[dir] = true
	if want := info.Mode()&fs.ModeSetgid | 0o755; info.Mode()&(fs.ModePerm|fs.ModeSetgid) != want {
		return root.Chmod(dir, want)
	}
	return nil
}
