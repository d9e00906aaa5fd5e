// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// TreeOptions changes what HashTree does.
type TreeOptions struct {
	// Ignore holds paths of files and directories that are passed over, relative
	// to the root, with slashes.
	Ignore []string
	// Concurrency is the number of files hashed at once. Zero means GOMAXPROCS.
	Concurrency int
	// Progress hears of the hashing. Nil means nobody.
	Progress Progress
}

// Tree is what a directory holds.
type Tree struct {
	// Files are the regular files, by path.
	Files []signature.File
	// Links are symbolic links; Others are devices, sockets and pipes.
	Links, Others []string
	// Size is the sum of the files' sizes, in bytes.
	Size int64
}

// HashTree hashes every regular file below dir, or dir itself when it is one,
// under the path ".". Links are not followed. Errors: *ChangedError when a file
// changes meanwhile, *TooManyFilesError, and those of the file system.
func HashTree(ctx context.Context, dir string, o TreeOptions) (Tree, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return Tree{}, err
	}
	var t Tree
	var sources []source
	switch {
	case info.Mode().IsRegular():
		sources = []source{{path: ".", name: dir, info: info}}
	case info.IsDir():
		if sources, err = t.find(ctx, dir, o.Ignore); err != nil {
			return Tree{}, err
		}
	default:
		return Tree{}, &SourceError{Path: dir, Reason: "neither a directory nor a regular file"}
	}
	return t, t.hash(ctx, sources, o)
}

func (t *Tree) find(ctx context.Context, dir string, ignore []string) ([]source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	base, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var sources []source
	err = walkRoot(root, func(name string, d fs.DirEntry) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case slices.Contains(ignore, name):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
		case d.Type()&fs.ModeSymlink != 0:
			t.Links = append(t.Links, name)
		case !d.Type().IsRegular():
			t.Others = append(t.Others, name)
		case len(sources) == maxLayers:
			return &TooManyFilesError{Files: len(sources)}
		default:
			info, err := root.Lstat(filepath.FromSlash(name))
			if err != nil {
				return rootCause(err)
			}
			sources = append(sources, source{path: name, name: filepath.Join(base, filepath.FromSlash(name)), info: info})
		}
		return nil
	})
	return sources, err
}

func (t *Tree) hash(ctx context.Context, sources []source, o TreeOptions) error {
	workers := o.Concurrency
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	progress := orNoProgress(o.Progress)
	buffers := buffer.NewPool(hashBuffer)
	t.Files = make([]signature.File, len(sources))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	// Largest first, so that no core is left with a large one at the end.
	slices.SortStableFunc(sources, func(a, b source) int { return cmp.Compare(b.info.Size(), a.info.Size()) })
	for i := range sources {
		t.Size += sources[i].info.Size()
		g.Go(func() error {
			buf := buffers.Get()
			defer buffers.Put(buf)
			dgst, err := sources[i].hash(ctx, *buf, progress)
			t.Files[i] = signature.File{Path: sources[i].path, Digest: dgst}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.SortFunc(t.Files, func(a, b signature.File) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// Differs compares the tree with the files that were signed. Links and special
// files are differences. The error is a *DirError.
func (t Tree) Differs(dir string, signed []signature.File) error {
	diff := &DirError{Dir: dir}
	want := make(map[string]digest.Digest, len(signed))
	for _, f := range signed {
		want[f.Path] = f.Digest
	}
	for _, f := range t.Files {
		dgst, ok := want[f.Path]
		switch {
		case !ok:
			diff.add(&diff.Extra, f.Path)
		case dgst != f.Digest:
			diff.add(&diff.Changed, f.Path)
		}
		delete(want, f.Path)
	}
	for _, f := range signed {
		if _, left := want[f.Path]; left {
			diff.add(&diff.Missing, f.Path)
			delete(want, f.Path)
		}
	}
	for _, name := range t.Links {
		diff.add(&diff.Links, name)
	}
	for _, name := range t.Others {
		diff.add(&diff.Extra, name)
	}
	if diff.empty() {
		return nil
	}
	return diff
}
