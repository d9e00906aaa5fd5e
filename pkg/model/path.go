// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	// maxPathBytes and maxNameBytes are Linux's PATH_MAX and NAME_MAX: a longer
	// name would fail only after its content was fetched.
	maxPathBytes = 4096
	maxNameBytes = 255

	// maxNames bounds the files and directories of one model, parents included.
	maxNames = 5 * maxLayers / 2

	// reservedName holds the receipt of an installed model; reservedPrefix begins
	// the names of staging places and locks.
	reservedName   = ".aegis"
	reservedPrefix = ".aegis-"
)

// checkPath returns a *PathError unless p may name a file of a model: a relative
// path with slashes, already clean, that means the same on every system that may
// unpack it. The rule does not depend on the system it runs on, because a model
// signed on one is extracted on another.
func checkPath(p string) error {
	switch {
	case p == "":
		return &PathError{Path: p, Reason: "the name is empty"}
	case len(p) > maxPathBytes:
		return &PathError{Path: p[:64] + "...", Reason: fmt.Sprintf("%d bytes, more than the %d a path may have", len(p), maxPathBytes)}
	case !utf8.ValidString(p):
		return &PathError{Path: p, Reason: "not valid UTF-8"}
	case p[0] == '/':
		return &PathError{Path: p, Reason: "an absolute path"}
	}
	for _, r := range p {
		if reason := badRune(r); reason != "" {
			return &PathError{Path: p, Reason: reason}
		}
	}
	for name := range strings.SplitSeq(p, "/") {
		if reason := badName(name); reason != "" {
			return &PathError{Path: p, Reason: reason}
		}
	}
	return nil
}

func badRune(r rune) string {
	switch {
	case r == 0:
		return "a NUL character"
	case unicode.IsControl(r):
		return fmt.Sprintf("a control character (%U)", r)
	case r == '\\':
		return "a backslash, which separates directories on Windows"
	case r == ':':
		return "a colon, which names a drive or a hidden stream on Windows"
	}
	return ""
}

func badName(name string) string {
	switch {
	case name == "":
		return "an empty path component"
	case name == "." || name == "..":
		return fmt.Sprintf("a %q path component", name)
	case len(name) > maxNameBytes:
		return fmt.Sprintf("a name of %d bytes, more than the %d that file systems take", len(name), maxNameBytes)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return "a name that ends in a dot or a space, which Windows drops"
	case isDeviceName(name):
		return "the name of a device on Windows"
	case isReserved(name):
		return fmt.Sprintf("%s and names beginning %s are reserved for the receipts of installed models", reservedName, reservedPrefix)
	}
	return ""
}

// isReserved compares as the most forgiving file systems do: without case, and
// without the code points that HFS+ ignores in names; and it knows the short
// name that NTFS gives to .aegis (compare CVE-2014-9390 of Git).
func isReserved(name string) bool {
	name = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, foldName(name))
	if name == reservedName || strings.HasPrefix(name, reservedPrefix) {
		return true
	}
	number, short := strings.CutPrefix(name, "aegis~")
	return short && number != "" && strings.Trim(number, "0123456789") == ""
}

// isDeviceName knows the names that open a device in any directory, with any
// extension (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
func isDeviceName(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	for _, port := range []string{"COM", "LPT"} {
		if n, ok := strings.CutPrefix(base, port); ok && utf8.RuneCountInString(n) == 1 && strings.ContainsAny(n, "0123456789¹²³") {
			return true
		}
	}
	return false
}

// foldName maps names that some file system takes for the same to one string:
// Unicode's canonical caseless matching (Unicode 15, section 3.13, D145).
func foldName(name string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(name)))
}

// pathSet holds the paths of one model and refuses a path that cannot stand
// beside those already there. The zero pathSet is empty. It is not safe for
// concurrent use.
type pathSet struct {
	// A path of 4096 bytes can name 2048 directories, so their number is bounded
	// too, against manifests that fill the memory or a volume's inodes.
	seen map[string]pathEntry // by foldName
}

type pathEntry struct {
	path string
	file bool
}

// addFile checks p with checkPath and adds it. It returns a *PathError when p, or
// a name equal to it but for case or Unicode normalisation, is there already, or
// when p needs a directory where there is a file or the reverse.
func (s *pathSet) addFile(p string) error { return s.addEntry(p, true) }

// addDir is addFile for a directory, which may be named more than once.
func (s *pathSet) addDir(p string) error { return s.addEntry(p, false) }

func (s *pathSet) addEntry(p string, file bool) error {
	if err := checkPath(p); err != nil {
		return err
	}
	// A pull leaves those alone, so they would outlast the model. Archives of a whole volume
	// name the directory itself.
	if top, _, below := strings.Cut(foldName(p), "/"); isVolumeName(top) && (below || file) {
		return &PathError{Path: p, Reason: fmt.Sprintf("%s is a file system's own in the root of a volume", top)}
	}
	if s.seen == nil {
		s.seen = make(map[string]pathEntry)
	}
	// "/" neither composes nor folds, so the prefixes of the folded path are the
	// folded prefixes: one pass, however deep the path.
	folded, at, foldedAt := foldName(p), 0, 0
	for {
		next := strings.IndexByte(p[at:], '/')
		if next < 0 {
			return s.addOne(p, folded, pathEntry{path: p, file: file})
		}
		at += next
		foldedAt += strings.IndexByte(folded[foldedAt:], '/')
		if err := s.addOne(p, folded[:foldedAt], pathEntry{path: p[:at]}); err != nil {
			return err
		}
		at, foldedAt = at+1, foldedAt+1
	}
}

// addOne adds one entry, under its folded name, on the way to whole.
func (s *pathSet) addOne(whole, key string, e pathEntry) error {
	there, ok := s.seen[key]
	switch {
	case !ok && len(s.seen) >= maxNames:
		return &PathError{Path: whole, Reason: fmt.Sprintf("more than %d files and directories", maxNames)}
	case !ok:
		s.seen[key] = e
		return nil
	case there.path != e.path:
		return &PathError{Path: whole, Reason: fmt.Sprintf("%q and %q differ only in case or Unicode normalisation", e.path, there.path)}
	case e.file && there.file:
		return &PathError{Path: whole, Reason: "named twice"}
	case e.file:
		return &PathError{Path: whole, Reason: "a file where another path needs a directory"}
	case there.file:
		return &PathError{Path: whole, Reason: fmt.Sprintf("it needs a directory where %q is a file", there.path)}
	}
	return nil
}
