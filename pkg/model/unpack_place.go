// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// tree is the model as it stands in staging, whole and checked.
type tree struct {
	root *os.Root
	dirs map[string]bool
	// names are the files and links, in the order they were made.
	names []string
	files int
	size  int64
	drop  bool // files from the page cache
	// take makes an archive's file of a piece that is staged, and reports whether there
	// is one. Nil is no.
	take func(e tarEntry, rec *tarRecorder, content io.Reader) (bool, error)
}

// assemble builds the model under its final names inside staging.
func (u *unpacking) assemble(ctx context.Context, s *site) (*tree, error) {
	if err := makeDirs(s.root, treeDir, map[string]bool{}); err != nil {
		return nil, err
	}
	root, err := s.root.OpenRoot(treeDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t := &tree{root: root, dirs: make(map[string]bool), drop: u.o.DropPageCache}
	moved := make(map[string]string) // blob to the first file made of it
	for _, l := range u.m.layers {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if l.Archive {
			continue
		}
		if err := u.assembleFile(s, t, l, moved); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", l.Path, err)
		}
	}
	if err := u.assembleArchives(ctx, s, t, moved); err != nil {
		return nil, err
	}
	if !u.verified.IsZero() && u.part == nil {
		if err := u.writeEvidence(t); err != nil {
			return nil, fmt.Errorf("write the evidence: %w", err)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(t.dirs)) {
		if err := rootfile.SyncDir(root, dir); err != nil {
			return nil, err
		}
	}
	u.res.Files += t.files
	u.res.Size += t.size
	return t, rootfile.SyncDir(root, ".")
}

// assembleFile gives a checked blob its path in the tree: the first time by a
// rename, then by a copy, since two names of one file would change together.
func (u *unpacking) assembleFile(s *site, t *tree, l Layer, moved map[string]string) error {
	if err := makeDirs(t.root, path.Dir(l.Path), t.dirs); err != nil {
		return err
	}
	from := blobFile(l.Descriptor.Digest)
	if first, ok := moved[from]; ok {
		if err := t.copyFile(first, l.Path, l.Executable); err != nil {
			return err
		}
	} else {
		if err := s.root.Rename(from, treeDir+"/"+l.Path); err != nil {
			return err
		}
		moved[from] = l.Path
		f, _, err := rootfile.OpenPlain(t.root, l.Path, os.O_RDWR)
		if err != nil {
			return err
		}
		if err := finish(f, l.Executable, false); err != nil {
			return err
		}
	}
	t.names = append(t.names, l.Path)
	t.files++
	t.size += l.Descriptor.Size
	return nil
}

func (t *tree) copyFile(from, to string, executable bool) error {
	src, _, err := rootfile.OpenPlain(t.root, from, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := t.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err == nil && t.drop {
		err = dropCache(src, 0, 0)
	}
	return errors.Join(err, finish(dst, executable, t.drop))
}

// place gives the model its final name. From here on ctx is not asked: what is
// left are renames.
func (u *unpacking) place(s *site, t *tree, replace bool) error {
	if !s.inside {
		return u.placeWhole(s)
	}
	names := slices.Clone(t.names)
	if !u.verified.IsZero() {
		names = append(names, receiptName)
	}
	j := journal{Digest: u.m.subject.Digest(), State: statePlacing, New: names}
	if replace {
		old, err := s.listRemovable()
		if err != nil {
			return err
		}
		j.Old = old
	} else if err := s.mustBeEmpty(); err != nil {
		// Before the journal owns the names: what it owns is cleared.
		return err
	}
	if err := s.writeJournal(j); err != nil {
		return err
	}
	if replace {
		if err := s.clear(j.Old); err != nil {
			return fmt.Errorf("remove the model that is replaced: %w", err)
		}
	}
	if err := u.placeEach(s, t, j); err != nil {
		return err
	}
	// From here on it is a model like any other, which nobody clears.
	return s.writeJournal(journal{Digest: j.Digest, State: stateFetching})
}

// mustBeFree finds what came to the destination in the meantime.
func (s *site) mustBeFree(names []string) error {
	for _, name := range names {
		if _, err := s.base.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return &NotEmptyError{Dir: s.dst, Names: []string{name}}
		}
	}
	return nil
}

// placeWhole makes the destination appear by one rename.
func (u *unpacking) placeWhole(s *site) error {
	if err := s.root.RemoveAll(blobsDir); err != nil {
		return err
	}
	if err := s.base.Rename(s.staging+"/"+treeDir, s.target); err != nil {
		return fmt.Errorf("rename the finished model to %s: %w", s.dst, err)
	}
	return rootfile.SyncDir(s.base, ".")
}

// placeEach moves the files of j one by one, the receipt last and only when all the
// others are on the disk.
func (u *unpacking) placeEach(s *site, t *tree, j journal) error {
	made := make(map[string]bool)
	for _, dir := range slices.Sorted(maps.Keys(t.dirs)) {
		if err := makeDirs(s.base, dir, made); err != nil {
			return err
		}
	}
	for i, name := range j.New {
		if name == receiptName {
			if err := s.syncPlaced(made); err != nil {
				return err
			}
		}
		if err := s.mustBeFree(j.New[i : i+1]); err != nil {
			// What was replaced is gone: who uses its names now is somebody else.
			j.New, j.Old = j.New[:i], nil
			if s.writeJournal(j) != nil {
				s.root.Remove(journalName) //nolint:errcheck // then the next run clears too much
			}
			return err
		}
		if err := s.base.Rename(s.staging+"/"+treeDir+"/"+name, name); err != nil {
			return err
		}
	}
	return s.syncPlaced(made)
}

func (s *site) syncPlaced(dirs map[string]bool) error {
	for dir := range dirs {
		if err := rootfile.SyncDir(s.base, dir); err != nil {
			return err
		}
	}
	return rootfile.SyncDir(s.base, ".")
}

// clearPlaced removes the names that an interrupted run had in motion, and no
// others. What was there before new files came beside it stays, its receipt too.
func (s *site) clearPlaced(j journal) error {
	if s.finished(j) {
		// A replaced model's files are gone, unless the power was first.
		placed := make(map[string]bool, len(j.New))
		for _, name := range j.New {
			placed[name] = true
		}
		return s.removeNames(slices.DeleteFunc(j.Old, func(name string) bool { return placed[name] }))
	}
	if j.State == stateExtending {
		return s.removeNames(j.New)
	}
	if err := s.clear(j.New); err != nil {
		return err
	}
	return s.clear(j.Old)
}

// clear removes files, links and (names that end in a slash) directories, the
// receipt first: what is left can never pass for a complete model. Directories
// that something else is in stay.
func (s *site) clear(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := removeName(s.base, receiptName); err != nil {
		return err
	}
	if err := rootfile.SyncDir(s.base, evidenceDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.removeNames(names)
}

// removeNames is clear without the receipt.
func (s *site) removeNames(names []string) error {
	dirs := make(map[string]bool)
	for _, name := range names {
		file, isDir := strings.CutSuffix(name, "/")
		if top, _, _ := strings.Cut(file, "/"); isFurniture(top) {
			continue
		}
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
		if !isDir {
			if err := removeName(s.base, file); err != nil {
				return err
			}
		}
	}
	sorted := slices.Sorted(maps.Keys(dirs))
	for _, d := range slices.Backward(sorted) {
		s.base.Remove(d) //nolint:errcheck // not empty: somebody else's file is in it
	}
	return nil
}

// removeName removes one name, if it is there and no directory.
func removeName(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return nil
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// listTree lists everything at the destination, directories with a slash at the
// end. Links are listed and not followed.
func (s *site) listTree() ([]string, error) {
	var names []string
	err := walkRoot(s.base, func(name string, d fs.DirEntry) error {
		if top, _, _ := strings.Cut(name, "/"); isFurniture(top) {
			return nil
		}
		if len(names) > maxListed {
			return fmt.Errorf("%s holds more than %d files", s.dst, maxListed)
		}
		if d.IsDir() {
			name += "/"
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

// listRemovable is listTree where all of it can be removed. One file that cannot would
// cost the model that is there and leave no room for another.
func (s *site) listRemovable() ([]string, error) {
	names, err := s.listTree()
	if err != nil {
		return nil, fmt.Errorf("replace what %s holds: %w", s.dst, err)
	}
	looked := make(map[string]bool)
	for _, name := range names {
		dir := path.Dir(strings.TrimSuffix(name, "/"))
		if looked[dir] {
			continue
		}
		looked[dir] = true
		if err := rootfile.MayChange(s.base, dir); err != nil {
			return nil, fmt.Errorf("%s cannot be replaced, what is in %q cannot be removed: %w", s.dst, dir, err)
		}
	}
	return names, nil
}

// maxListed bounds the names in a journal.
const maxListed = 1_000_000

// walkRoot calls fn for everything under root but the furniture of a volume, parents
// first, following no link.
func walkRoot(root *os.Root, fn func(name string, d fs.DirEntry) error) error {
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if name == "." {
			return err
		}
		if top, _, _ := strings.Cut(name, "/"); isFurniture(top) {
			return furnished(root, name, d, err, fn)
		}
		if errors.Is(err, fs.ErrNotExist) && evidenceNames().MatchString(name) {
			return fs.SkipDir // a pull renews the signatures
		}
		if err != nil {
			return err
		}
		return fn(name, d)
	})
}
