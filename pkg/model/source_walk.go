// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// walkStep is a place in the tree as it is walked. path is the name in the model
// and differs from rel below a link to a directory.
type walkStep struct {
	place
	rel   string
	path  string
	state ruleState
	above []string // the real directories that are being walked, to see a loop
}

func (s walkStep) real() string { return filepath.Join(s.base, s.rel) }

// walk adds the files under the directory s in the order of their names, which
// makes the first refusal the same on every run.
func (f *finder) walk(s walkStep) error {
	if err := f.ctx.Err(); err != nil {
		return err
	}
	dir, err := s.root.Open(s.rel)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", s.real(), rootCause(err))
	}
	entries, err := dir.ReadDir(-1)
	dir.Close()
	if err != nil {
		return fmt.Errorf("read directory %q: %w", s.real(), rootCause(err))
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	above := append(slices.Clip(s.above), s.real())
	for _, e := range entries {
		child := walkStep{place: s.place, rel: filepath.Join(s.rel, e.Name()), path: path.Join(s.path, e.Name()), above: above}
		ignored, state, err := f.rules.match(child.path, s.state)
		if err != nil {
			return err
		}
		child.state = state
		if ignored {
			f.ignored++
			if !e.IsDir() || !f.rules.mayReinclude() {
				continue
			}
			if err := f.walk(child); err != nil {
				return err
			}
			continue
		}
		if err := f.entry(child); err != nil {
			return err
		}
	}
	return nil
}

// entry adds what s names: a file, the files of a directory, or where a link leads.
func (f *finder) entry(s walkStep) error {
	if err := checkSourcePath(s.path); err != nil {
		return err
	}
	info, err := s.root.Lstat(s.rel)
	if err != nil {
		return fmt.Errorf("stat %q: %w", s.real(), rootCause(err))
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return f.target(s, info)
	}
	to, err := f.follow(s)
	if err != nil {
		return err
	}
	if to.root == nil {
		info, err = os.Lstat(to.real())
	} else {
		info, err = to.root.Lstat(to.rel)
	}
	if err != nil {
		return fmt.Errorf("stat %q: %w", to.real(), rootCause(err))
	}
	if info.IsDir() {
		if slices.Contains(to.above, to.real()) {
			return &SourceError{Path: s.path, Reason: "a link to a directory that holds it (a loop)"}
		}
		if f.dirLinks++; f.dirLinks > maxDirLinks {
			return &SourceError{Path: s.path, Reason: fmt.Sprintf("one of more than %d links to directories", maxDirLinks)}
		}
	}
	return f.target(to, info)
}

// target adds what is at s itself, which is no link.
func (f *finder) target(s walkStep, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsDir():
		if err := f.paths.addDir(s.path); err != nil {
			return err
		}
		return f.walk(s)
	case mode.IsRegular():
		if err := f.paths.addFile(s.path); err != nil {
			return err
		}
		if len(f.files) == maxSourceFiles {
			return &TooManyFilesError{Files: len(f.files), MaxBytes: maxSourceFiles * minLayerBytes}
		}
		f.files = append(f.files, source{path: s.path, name: s.real(), info: info})
		return nil
	default:
		return &SourceError{Path: s.path, Reason: specialReason(mode)}
	}
}

func specialReason(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeDevice != 0:
		return "a device"
	case mode&fs.ModeSymlink != 0:
		return "a link that changed while it was followed"
	}
	return "not a regular file"
}

// follow resolves the link s to a step without links, in one of the allowed
// places or, when asked, outside them.
func (f *finder) follow(s walkStep) (walkStep, error) {
	real, err := filepath.EvalSymlinks(s.real())
	if errors.Is(err, fs.ErrNotExist) {
		return s, &SourceError{Path: s.path, Reason: "a dangling link", Err: err}
	}
	if err != nil {
		return s, &SourceError{Path: s.path, Reason: "a link that cannot be followed (" + rootCause(err).Error() + ")", Err: err}
	}
	for _, p := range slices.Concat(f.places, f.outside) {
		if rel, ok := p.within(real); ok {
			s.place, s.rel = p, rel
			return s, nil
		}
	}
	if !f.followOutside {
		return s, &SourceError{Path: s.path, Reason: fmt.Sprintf("a link to %q, outside the model's directory", real)}
	}
	return f.followOut(s, real)
}

// followOut is the step to real, outside. A directory is walked through a root of
// its own. A file has none, which would hold a descriptor open for each: where
// any target is allowed there is nothing to keep it from.
func (f *finder) followOut(s walkStep, real string) (walkStep, error) {
	out := walkStep{path: s.path, state: s.state, above: s.above}
	info, err := os.Lstat(real)
	if err != nil {
		return s, fmt.Errorf("stat %q: %w", real, rootCause(err))
	}
	if !info.IsDir() {
		out.place.base, out.rel = filepath.Split(real)
		return out, nil
	}
	p, err := openPlace(real)
	if err != nil {
		return s, fmt.Errorf("open %q: %w", real, rootCause(err))
	}
	f.outside = append(f.outside, p)
	out.place, out.rel = p, "."
	return out, nil
}

// checkSourcePath is checkPath with a reason that helps where a model that was
// installed here is packed again.
func checkSourcePath(p string) error {
	if p == reservedName {
		return &PathError{Path: p, Reason: "the receipt of an installed model; exclude it to pack the files beside it"}
	}
	return checkPath(p)
}
