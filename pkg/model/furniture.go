// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
)

// isFurniture knows the top-level names that are no content of a destination.
func isFurniture(name string) bool { return name == stagingName || isVolumeName(name) }

// isVolumeName knows what file systems put into the root of a volume: ext4's place for
// files that lost their names, and the snapshots of NFS servers.
func isVolumeName(name string) bool { return name == "lost+found" || name == ".snapshot" }

// stagedNames are those that a pull makes in the staging directory. The model's own are
// in its tree.
var stagedNames = lazyregexp.New(`^\.aegis-staging/(lock|journal\.json(\.tmp)?|link|cached|clone|tree|blobs(/(link|[0-9a-f]{64}(\.link|\.pieces(/[0-9]+)?)?))?)$`)

// furnished is what walkRoot does about furniture and what is in it. Where nobody finds
// anything, or what the file system itself puts there, or a pull, is let be: any other file
// could be loaded as if it belonged to the model.
func furnished(root *os.Root, name string, d fs.DirEntry, err error, fn func(string, fs.DirEntry) error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return fs.SkipDir // closed to us, or a pull has ended
	case err != nil:
		return err
	case name == stagingName && d.IsDir():
		return nil
	case strings.HasPrefix(name, stagingName+"/"+treeDir+"/") && (d.IsDir() || isPrivate(root)):
		return nil // of a pull that runs, was killed, or lost its power, beside a whole model
	case stagedNames().MatchString(name) && (d.IsDir() || d.Type().IsRegular()):
		return nil
	case !d.IsDir():
		return fn(name, d)
	}
	// Snapshots are file systems of their own, which whoever can write here cannot mount.
	other, err := isMount(root, name)
	switch {
	case err != nil:
		return err
	case other:
		return fs.SkipDir
	case isVolumeName(name):
		return nil
	}
	return fn(name, d)
}

// isPrivate reports that the staging directory inside root is as a pull makes it: nobody
// else can put anything there, or load it.
func isPrivate(root *os.Root) bool {
	info, err := root.Lstat(stagingName)
	return err == nil && (runtime.GOOS == "windows" || info.Mode().Perm() == 0o700)
}
