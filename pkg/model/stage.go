// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/gofrs/flock"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

const (
	stagingName = ".aegis-staging"
	lockName    = "lock"
	blobsDir    = "blobs"
	treeDir     = "tree"
)

// site is a destination and the staging directory on its volume, both reached
// only through base, so that no link leads out. Where the destination exists
// (often a mount, which cannot be renamed over) base is the destination and
// staging is inside; else base is its parent and staging beside it.
type site struct {
	dst    string
	inside bool
	base   *os.Root
	// target is the destination's name in base, "." when inside.
	target string
	// staging is the staging directory's name in base and root its handle.
	staging string
	root    *os.Root
	lock    *flock.Flock
	// parents were made for the destination, outermost first.
	parents []string
}

// errMoved means that another process finished or gave up between two looks at
// the destination, so that the look has to be repeated.
var errMoved = errors.New("the destination changed while waiting for its lock")

// openSite opens dst's site and takes its lock, waiting for whoever holds it
// until ctx ends.
func openSite(ctx context.Context, dst string, warn func(string)) (*site, error) {
	for {
		s, err := findSite(dst)
		if err != nil {
			return nil, err
		}
		err = s.enter(ctx, warn)
		if err == nil {
			if s.inside {
				s.adoptBeside(ctx)
			}
			return s, nil
		}
		if isDiskFull(err) {
			s.base.Remove(s.staging) //nolint:errcheck // not empty, if it was there before
		}
		s.leave(false)
		s.dropParents()
		if !errors.Is(err, errMoved) {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func findSite(dst string) (*site, error) {
	clean := filepath.Clean(dst)
	if dst == "" {
		return nil, &PathError{Path: dst, Reason: "the destination has no name"}
	}
	exists, err := isDirectory(clean)
	if err != nil {
		return nil, err
	}
	if exists {
		base, err := os.OpenRoot(clean)
		if err != nil {
			return nil, err
		}
		return &site{dst: clean, inside: true, base: base, target: ".", staging: stagingName}, nil
	}
	parent := filepath.Dir(clean)
	made, err := makeParents(parent)
	s := &site{dst: clean, target: filepath.Base(clean), parents: made}
	if err != nil {
		s.dropParents()
		return nil, err
	}
	if s.base, err = os.OpenRoot(parent); err != nil {
		s.dropParents()
		return nil, err
	}
	s.staging = stagingBeside(s.target)
	return s, nil
}

// stagingBeside names the staging directory for a destination that does not
// exist: unique per destination, and a name that no file of a model may have.
func stagingBeside(name string) string {
	if len(stagingName)+1+len(name) <= maxNameBytes {
		return stagingName + "-" + name
	}
	sum := sha256.Sum256([]byte(name))
	return stagingName + "-" + hex.EncodeToString(sum[:16])
}

// isDirectory reports whether dst is there; anything but a directory is refused.
func isDirectory(dst string) (bool, error) {
	info, err := os.Stat(dst)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(dst); err == nil {
			return false, &NotEmptyError{Dir: dst, Names: []string{"a dangling link"}}
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, &NotEmptyError{Dir: dst, Names: []string{"a file, and no directory"}}
	}
	return true, nil
}

// makeParents makes dir and what is missing above it, and returns what it made.
func makeParents(dir string) ([]string, error) {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || !errors.Is(err, fs.ErrNotExist) || filepath.Dir(d) == d {
			break
		}
		missing = append(missing, d)
	}
	slices.Reverse(missing)
	var made []string
	for _, d := range missing {
		err := os.Mkdir(d, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return made, err
		}
		if err == nil {
			made = append(made, d)
		}
	}
	return made, nil
}

// dropParents removes the directories that were made for nothing.
func (s *site) dropParents() {
	for _, d := range slices.Backward(s.parents) {
		if os.Remove(d) != nil {
			return
		}
	}
}

// enter makes or opens the staging directory and locks it.
func (s *site) enter(ctx context.Context, warn func(string)) error {
	if err := s.base.Mkdir(s.staging, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a staging directory: %w", err)
	}
	if err := s.openStaging(); err != nil {
		return err
	}
	if err := s.takeLock(ctx, warn); err != nil {
		return err
	}
	exists, err := isDirectory(s.dst)
	if err != nil {
		return err
	}
	if exists != s.inside {
		s.remove()
		return errMoved
	}
	return nil
}

// openStaging opens the staging directory, which must be a directory of ours and
// no link: what is in it would otherwise be somebody else's choice.
func (s *site) openStaging() error {
	info, err := s.base.Lstat(s.staging)
	if errors.Is(err, fs.ErrNotExist) {
		return errMoved
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &LockedError{Dir: s.dst, Reason: fmt.Sprintf("%s is no directory", s.staging)}
	}
	if !rootfile.OwnedByUs(info) {
		return &LockedError{Dir: s.dst, Reason: fmt.Sprintf("%s belongs to another user", s.staging)}
	}
	if s.root, err = s.base.OpenRoot(s.staging); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errMoved
		}
		return err
	}
	opened, err := s.root.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(info, opened) {
		return errMoved
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		return s.base.Chmod(s.staging, info.Mode()&fs.ModeSetgid|0o700)
	}
	return nil
}

// adoptBeside takes over what a killed run has staged beside a destination that was made
// since: nobody would look for it again.
func (s *site) adoptBeside(ctx context.Context) {
	if names, err := s.contents(); err != nil || len(names) > 0 {
		return // it may have to be refused, and what is beside it is wanted then
	}
	name := filepath.Base(s.dst)
	base, err := os.OpenRoot(filepath.Dir(s.dst))
	if err != nil {
		return
	}
	b := &site{dst: s.dst, base: base, target: name, staging: stagingBeside(name)}
	briefly, cancel := context.WithTimeout(ctx, lockNotice)
	defer cancel()
	if b.openStaging() != nil || b.takeLock(briefly, func(string) {}) != nil {
		b.leave(false) // there is none, or it is another's
		return
	}
	defer b.leave(true)
	// Its state is none of this destination: what a journal says is in motion is cleared.
	j := journal{Digest: b.readJournal().Digest, State: stateFetching}
	if s.readJournal().Digest != "" || j.Digest == "" || s.writeJournal(j) != nil {
		return
	}
	for _, dir := range []string{blobsDir, treeDir} {
		base.Rename(b.staging+"/"+dir, name+"/"+s.staging+"/"+dir) //nolint:errcheck // on another volume it is fetched again
	}
}

// leave lets go of the site. With discard the staging directory is removed.
func (s *site) leave(discard bool) {
	if discard && s.root != nil {
		s.remove()
	}
	s.unlock()
	if s.root != nil {
		s.root.Close()
	}
	if discard && runtime.GOOS == "windows" {
		// An open file cannot be removed there, nor one that the next holder has
		// opened meanwhile.
		s.base.Remove(s.staging + "/" + lockName) //nolint:errcheck
		s.base.Remove(s.staging)                  //nolint:errcheck
	}
	s.base.Close()
}

// stagingPath is the staging directory for calls that take no handle.
func (s *site) stagingPath() string {
	if s.inside {
		return filepath.Join(s.dst, s.staging)
	}
	return filepath.Join(filepath.Dir(s.dst), s.staging)
}

// remove empties the staging directory and removes it while the lock is held:
// whoever waits for the lock sees that its file is gone and looks again.
func (s *site) remove() {
	s.wipe() //nolint:errcheck // what cannot be removed is cleared by the next run
	if runtime.GOOS != "windows" {
		s.root.Remove(lockName)  //nolint:errcheck
		s.base.Remove(s.staging) //nolint:errcheck
	}
}

// wipe removes everything staged but the lock.
func (s *site) wipe() error {
	names, err := listDir(s.root, ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == lockName {
			continue
		}
		if err := s.root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// listDir returns the names in a directory.
func listDir(root *os.Root, name string) ([]string, error) {
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
