// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// minLayerBytes is less than any layer takes in a manifest, so that a tree
	// of far too many files is refused while it is walked.
	minLayerBytes  = 400
	maxSourceFiles = signature.MaxManifestSize / minLayerBytes
	// maxDirLinks bounds the walk of a tree in which links to directories
	// multiply: d1/{a,b} -> d2, d2/{a,b} -> d3, ...
	maxDirLinks = 1000
)

// source is one file to pack.
type source struct {
	path string      // in the model
	name string      // on disk: absolute, without links
	info fs.FileInfo // as it was found; identifies the file when it is opened
}

// open opens the file that was found, or returns a *ChangedError when the name
// leads to another file by now, or to the same with other content. Because the
// inode is compared, a link that was slipped in since leads nowhere.
func (s *source) open() (*os.File, error) {
	f, err := os.OpenFile(s.name, os.O_RDONLY|openNonblock, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &ChangedError{Path: s.path}
	}
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", s.path, err)
	}
	if err := s.unchanged(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unchanged returns a *ChangedError unless f is still the file that was found. Its ctime
// counts where there is one: with cp -p, rsync -t or touch -r other content has the same
// size and time of modification, and what was read of both is in no file.
func (s *source) unchanged(f *os.File) error {
	now, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat %q: %w", s.path, err)
	}
	was, _ := rootfile.Changed(s.info)
	if changed, _ := rootfile.Changed(now); changed != was || !now.Mode().IsRegular() || !os.SameFile(s.info, now) ||
		now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return &ChangedError{Path: s.path}
	}
	return nil
}

// executable is the owner's bit: the others depend on the umask of whoever
// fetched the file.
func (s *source) executable() bool { return s.info.Mode()&0o100 != 0 }

// place is a directory that files may come from. Reads of what it holds go
// through root, which no link leaves.
type place struct {
	root *os.Root
	base string // absolute, without links
}

func openPlace(dir string) (place, error) {
	base, err := filepath.Abs(dir)
	if err != nil {
		return place{}, err
	}
	if base, err = filepath.EvalSymlinks(base); err != nil {
		return place{}, err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return place{}, err
	}
	return place{root: root, base: base}, nil
}

// within returns the path of the absolute name relative to p, when it is inside.
func (p place) within(name string) (string, bool) {
	rel, err := filepath.Rel(p.base, name)
	return rel, err == nil && filepath.IsLocal(rel)
}

// finder collects the sources of one model.
type finder struct {
	ctx           context.Context
	places        []place // where links may lead: the model's root, a cache's blobs
	outside       []place // opened because of followOutside
	followOutside bool
	rules         *ignoreRules
	paths         pathSet
	files         []source
	ignored       int
	dirLinks      int
}

// findSources lists the files of paths: the contents of one directory, or single
// files by their base names. It reads no file but the ignore file.
func findSources(ctx context.Context, paths []string, o *PackOptions) ([]source, error) {
	if len(paths) == 0 {
		return nil, &EmptyError{}
	}
	f := &finder{ctx: ctx, followOutside: o.FollowOutside}
	defer f.close()
	for _, arg := range paths {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, argumentError(arg, err)
		}
		if !info.IsDir() {
			continue
		}
		if len(paths) > 1 {
			return nil, &SourceError{Path: arg, Reason: "a directory beside other paths; give one directory, or files", Argument: true}
		}
		return f.directory(arg, o.Exclude)
	}
	return f.arguments(paths, o.Exclude)
}

func argumentError(arg string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(arg); lerr == nil {
			return &SourceError{Path: arg, Reason: "a dangling link", Err: err, Argument: true}
		}
		return &SourceError{Path: arg, Reason: "there is no such file or directory", Err: err, Argument: true}
	}
	return &SourceError{Path: arg, Reason: rootCause(err).Error(), Err: err, Argument: true}
}

// rootCause drops the operation and path that os puts before the cause: the
// errors here name the path themselves.
func rootCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (f *finder) close() {
	for _, p := range append(f.places, f.outside...) {
		p.root.Close()
	}
}

func (f *finder) directory(dir string, exclude []string) ([]source, error) {
	if err := f.allow(dir); err != nil {
		return nil, err
	}
	rules, err := directoryRules(f.places[0].root, exclude)
	if err != nil {
		return nil, err
	}
	f.rules = rules
	if err := f.walk(walkStep{place: f.places[0], rel: "."}); err != nil {
		return nil, err
	}
	if len(f.files) == 0 {
		return nil, &EmptyError{Path: dir, Ignored: f.ignored}
	}
	return f.files, nil
}

// allow sets the places where links may lead for a model rooted at dir.
func (f *finder) allow(dir string) error {
	p, err := openPlace(dir)
	if err != nil {
		return argumentError(dir, err)
	}
	f.places = append(f.places, p)
	if blobs, ok := cacheBlobs(p.base); ok {
		if p, err = openPlace(blobs); err != nil {
			return argumentError(blobs, err)
		}
		f.places = append(f.places, p)
	}
	return nil
}

// cacheBlobs finds the folder that holds the files of a Hugging Face cache's
// snapshot: .../models--ORG--NAME/snapshots/REVISION/... links to
// .../models--ORG--NAME/blobs/HASH.
func cacheBlobs(base string) (string, bool) {
	for dir := base; ; {
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		if filepath.Base(parent) == "snapshots" {
			blobs := filepath.Join(filepath.Dir(parent), "blobs")
			// A link in place of the folder would allow any target.
			info, err := os.Lstat(blobs)
			return blobs, err == nil && info.IsDir()
		}
		dir = parent
	}
}

// arguments lists files given one by one. Each argument's own directory is the
// root for links.
func (f *finder) arguments(args, exclude []string) ([]source, error) {
	rules, err := argumentRules(exclude)
	if err != nil {
		return nil, err
	}
	f.rules = rules
	given := make(map[string]string) // by folded base name
	for _, arg := range args {
		if err := f.argument(arg, given); err != nil {
			return nil, err
		}
	}
	if len(f.files) == 0 {
		return nil, &EmptyError{Path: args[0], Ignored: f.ignored}
	}
	return f.files, nil
}

func (f *finder) argument(arg string, given map[string]string) error {
	abs, err := filepath.Abs(arg)
	if err != nil {
		return argumentError(arg, err)
	}
	name := filepath.Base(abs)
	ignored, _, err := f.rules.match(name, ruleState{})
	if err != nil {
		return err
	}
	if ignored {
		f.ignored++
		return nil
	}
	if first, ok := given[foldName(name)]; ok {
		return &CollisionError{Name: name, First: first, Second: arg}
	}
	given[foldName(name)] = arg
	one := &finder{ctx: f.ctx, followOutside: f.followOutside, rules: f.rules}
	defer one.close()
	if err := one.allow(filepath.Dir(abs)); err != nil {
		return err
	}
	if err := one.entry(walkStep{place: one.places[0], rel: name, path: name}); err != nil {
		return err
	}
	f.files = append(f.files, one.files...)
	return nil
}
