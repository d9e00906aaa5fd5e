// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
)

// lateError is about a file beside the result that could not be written when all was
// done: the result is on stdout, for it says what was.
type lateError struct{ error }

func (e *lateError) Unwrap() error { return e.error }

// printWritten prints the result whether or not what belongs beside it was written.
func (a *app) printWritten(result any, text textFunc, written error) error {
	if err := a.print(result, text); err != nil || written == nil {
		return err
	}
	return &lateError{written}
}

func writeDigest(path string, d digest.Digest) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, []byte(d.String()+"\n"), 0o644)
}

// checkDigestFile finds what writeDigest would find when the tags have moved.
func checkDigestFile(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = checkDir(filepath.Dir(path))
	case err == nil && info.IsDir():
		err = syscall.EISDIR
	case err == nil && info.Mode().IsRegular(): // who reads a pipe would take a look for its end
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			err = f.Close()
		}
	}
	return outputError("digest-file", path, err)
}

// checkReplaced finds what writeFile would find.
func checkReplaced(flag, path string) error {
	if path == "" {
		return nil
	}
	err := checkDir(filepath.Dir(path))
	if info, statErr := os.Stat(path); err == nil && statErr == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	return outputError(flag, path, err)
}

// checkMade finds what os.MkdirAll would find, and who writes into what it makes.
func checkMade(flag, path string) error {
	if path == "" {
		return nil
	}
	at := filepath.Clean(path)
	for {
		if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return outputError(flag, path, checkDir(at))
		}
		at = filepath.Dir(at)
	}
}

// checkDir makes a file in a directory and removes it.
func checkDir(dir string) error {
	f, err := os.CreateTemp(dir, ".aegis-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// outputError names the file that was asked for, and not the one that was tried.
func outputError(flag, path string, err error) error {
	if err == nil {
		return nil
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("--%s %s: %w", flag, path, err)
}
