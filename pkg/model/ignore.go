// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

const (
	ignoreFile = ".aegisignore"
	// maxIgnoreFile bounds what is read of it, in bytes.
	maxIgnoreFile = 1 << 20
)

// leftOut are the rules that come before those of the user, who can take any
// back with "!pattern": what tools leave beside a model and nobody means to ship.
func leftOut() []string {
	return []string{
		// version control
		"**/.git", "**/.hg", "**/.svn",
		// caches and installed dependencies
		"**/.cache", "**/__pycache__", "**/.ipynb_checkpoints", "**/.pytest_cache",
		"**/.mypy_cache", "**/.ruff_cache", "**/.venv", "**/node_modules",
		// editors and desktops
		"**/*~", "**/.*.sw?", "**/*.swp", "**/.#*", "**/#*#", "**/.idea", "**/.vscode",
		"**/.DS_Store", "**/._*", "**/Thumbs.db", "**/desktop.ini",
		// the root of a volume
		"lost+found", ".snapshot",
	}
}

// ignoreRules decides what is left out, by the rules of .dockerignore: the last
// pattern that matches a path or one of its parents wins.
type ignoreRules struct {
	matcher *patternmatcher.PatternMatcher
	always  string
}

// ruleState carries what matched a directory on to its entries.
type ruleState = patternmatcher.MatchInfo

// directoryRules are the rules for a directory: what is always left out, then
// its ignore file, then exclude.
func directoryRules(root *os.Root, exclude []string) (*ignoreRules, error) {
	own, err := readIgnoreFile(root)
	if err != nil {
		return nil, err
	}
	given, err := givenPatterns("exclude", exclude)
	if err != nil {
		return nil, err
	}
	m, err := patternmatcher.New(append(append(leftOut(), own...), given...))
	if err != nil {
		return nil, &OptionError{Option: "exclude", Reason: err.Error()}
	}
	return &ignoreRules{matcher: m, always: ignoreFile}, nil
}

// argumentRules are the rules for files that were given by name: only exclude.
func argumentRules(exclude []string) (*ignoreRules, error) {
	given, err := givenPatterns("exclude", exclude)
	if err != nil {
		return nil, err
	}
	m, err := patternmatcher.New(given)
	if err != nil {
		return nil, &OptionError{Option: "exclude", Reason: err.Error()}
	}
	return &ignoreRules{matcher: m}, nil
}

func readIgnoreFile(root *os.Root) ([]string, error) {
	f, err := root.OpenFile(ignoreFile, os.O_RDONLY|openNonblock, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", ignoreFile, rootCause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", ignoreFile, rootCause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, &SourceError{Path: ignoreFile, Reason: "not a regular file"}
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxIgnoreFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ignoreFile, rootCause(err))
	}
	if len(raw) > maxIgnoreFile {
		return nil, &OptionError{Option: ignoreFile, Reason: fmt.Sprintf("more than %d bytes", maxIgnoreFile)}
	}
	return parsePatterns(ignoreFile, raw)
}

// givenPatterns reads patterns that are no file's: none is a comment, for whoever leaves
// out "#secret" means that it is not published. A line that begins with a space is no
// comment, and the space no part of the pattern.
func givenPatterns(option string, patterns []string) ([]string, error) {
	return parsePatterns(option, []byte(" "+strings.ReplaceAll(strings.Join(patterns, "\n"), "\n", "\n ")))
}

// parsePatterns reads patterns, one a line, and tries each: the matcher itself
// finds some malformed ones only when it first compares.
func parsePatterns(option string, raw []byte) ([]string, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(raw))
	if err != nil {
		return nil, &OptionError{Option: option, Reason: err.Error()}
	}
	for _, p := range patterns {
		if _, err := patternmatcher.MatchesOrParentMatches("a", []string{strings.TrimPrefix(p, "!")}); err != nil {
			return nil, &OptionError{Option: option, Reason: fmt.Sprintf("pattern %q: %v", p, err)}
		}
	}
	return patterns, nil
}

// match reports whether path is left out, given the state of its directory.
func (r *ignoreRules) match(path string, parent ruleState) (bool, ruleState, error) {
	if r.always != "" && path == r.always {
		return true, parent, nil
	}
	ignored, state, err := r.matcher.MatchesUsingParentResults(path, parent)
	if err != nil {
		return false, state, &OptionError{Option: "exclude", Reason: err.Error()}
	}
	return ignored, state, nil
}

// mayReinclude reports whether an entry of an ignored directory could be taken
// back by a pattern with "!".
func (r *ignoreRules) mayReinclude() bool { return r.matcher.Exclusions() }
