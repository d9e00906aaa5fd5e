// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// tarKind is what an archive's entry is.
type tarKind int

const (
	tarFile tarKind = iota + 1
	tarDir
	tarSymlink
	tarHardlink
)

// tarEntry is one entry that may be unpacked.
type tarEntry struct {
	path       string
	kind       tarKind
	size       int64
	executable bool
	// target is a symbolic link's text as it is in the archive, or the path of the
	// file that a hard link names.
	target string
}

// modelNames holds all names of a model while its archives are walked. It is safe for
// concurrent use.
type modelNames struct {
	mu      sync.Mutex
	paths   pathSet
	entries int
}

// newModelNames begins with the files that are raw layers.
func (m Manifest) newModelNames() (*modelNames, error) {
	n := &modelNames{}
	for _, l := range m.layers {
		if l.Archive {
			continue
		}
		if err := n.paths.addFile(l.Path); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// add takes the name of an entry, which refuses it to every other one.
func (n *modelNames) add(e tarEntry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paths.addEntry(e.path, e.kind != tarDir)
}

// count counts an entry of layer dgst, of whatever type.
func (n *modelNames) count(dgst digest.Digest) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.entries++; n.entries > maxLayers {
		return &TarError{Layer: dgst, Reason: fmt.Sprintf("more than %d entries", maxLayers)}
	}
	return nil
}

// tarNames are the names of the archives that one goroutine walks.
type tarNames struct {
	model *modelNames
	files map[string]bool // regular files, which hard links may name
	// others reports whether a hard link may name a file of an archive that is walked
	// elsewhere. Nil means none.
	others func(name string) (bool, error)
}

func newTarNames(model *modelNames, others func(string) (bool, error)) *tarNames {
	return &tarNames{model: model, files: make(map[string]bool), others: others}
}

// linkable reports whether a hard link may name this file.
func (n *tarNames) linkable(name string) (bool, error) {
	if n.files[name] || n.others == nil {
		return n.files[name], nil
	}
	return n.others(name)
}

// walkTar calls visit for every entry of the archive r of layer dgst, in order,
// with a reader of the content of a file. It reads r to its end. Names, kinds and
// links that may not be unpacked are refused before visit sees them.
func walkTar(r io.Reader, dgst digest.Digest, names *tarNames, visit func(tarEntry, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return tarReadError(dgst, err)
		}
		e, ok, err := names.entry(dgst, hdr)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := visit(e, tr); err != nil {
			return err
		}
	}
	// What follows the end mark is read so that the stream's digest is complete.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return tarReadError(dgst, err)
	}
	return nil
}

// tarReadError makes a malformed archive a *TarError and keeps our own errors.
func tarReadError(dgst digest.Digest, err error) error {
	var (
		own     *TarError
		space   *SpaceError
		content *contentReadError
	)
	if errors.As(err, &own) || errors.As(err, &space) || errors.As(err, &content) {
		return err
	}
	return &TarError{Layer: dgst, Reason: err.Error()}
}

// entry checks one header. It reports false for one that stands for no file.
func (n *tarNames) entry(dgst digest.Digest, hdr *tar.Header) (tarEntry, bool, error) {
	if err := n.model.count(dgst); err != nil {
		return tarEntry{}, false, err
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return tarEntry{}, false, nil
	}
	e := tarEntry{path: trimTarName(hdr), size: hdr.Size, executable: hdr.Mode&0o111 != 0}
	if e.path == "" && hdr.Typeflag == tar.TypeDir {
		return e, false, nil // "./", the root itself
	}
	if err := n.classify(hdr, &e); err != nil {
		return e, false, err
	}
	if err := n.model.add(e); err != nil {
		return e, false, err
	}
	if e.kind == tarFile {
		n.files[e.path] = true
	}
	return e, true, nil
}

// trimTarName undoes the spellings that tar writers use for a plain name. All
// else, ".." and absolute names included, is left for the path rule to refuse.
func trimTarName(hdr *tar.Header) string {
	name := hdr.Name
	for strings.HasPrefix(name, "./") {
		name = name[2:]
	}
	if hdr.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
		if name == "." {
			return ""
		}
	}
	return name
}

// classify refuses whatever is not a plain file, a directory or a link inside.
func (n *tarNames) classify(hdr *tar.Header, e *tarEntry) error {
	switch hdr.Typeflag {
	case tar.TypeReg:
		e.kind = tarFile
		for key := range hdr.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return &PathError{Path: e.path, Reason: "a sparse file in an archive"}
			}
		}
		return nil
	case tar.TypeDir:
		e.kind = tarDir
	case tar.TypeSymlink:
		e.kind, e.target = tarSymlink, hdr.Linkname
		if reason := badTarget(e.path, e.target); reason != "" {
			return &PathError{Path: e.path, Reason: fmt.Sprintf("a link to %q: %s", e.target, reason)}
		}
	case tar.TypeLink:
		e.kind, e.target = tarHardlink, strings.TrimPrefix(hdr.Linkname, "./")
		ok, err := n.linkable(e.target)
		if err != nil {
			return err
		}
		if !ok {
			return &PathError{Path: e.path, Reason: fmt.Sprintf("a hard link to %q, which is not a file earlier in the model's archives", hdr.Linkname)}
		}
	default:
		return &PathError{Path: e.path, Reason: fmt.Sprintf("an entry of type %q in an archive: only files, directories and links are unpacked", hdr.Typeflag)}
	}
	if e.size != 0 {
		return &PathError{Path: e.path, Reason: "an entry with content that is not a file"}
	}
	return nil
}

// badTarget says why a symbolic link at name must not point to target. Going up
// is allowed only first and only as far as the model's root: above the link are
// real directories, since nothing is unpacked through a link, so each ".." means
// what it says; after another name it could climb out of a link's target.
func badTarget(name, target string) string {
	depth := strings.Count(name, "/")
	rest := target
	for {
		after, ok := strings.CutPrefix(rest, "../")
		if !ok {
			break
		}
		if depth--; depth < 0 {
			return "it leads out of the model"
		}
		rest = after
	}
	if rest == ".." || rest == "." || rest == "" {
		return "it names a directory above it or nothing"
	}
	if err := checkPath(strings.TrimSuffix(rest, "/")); err != nil {
		var bad *PathError
		if errors.As(err, &bad) {
			return bad.Reason
		}
	}
	if strings.HasPrefix(name, path.Join(path.Dir(name), target)+"/") {
		return "it leads to itself"
	}
	return ""
}
