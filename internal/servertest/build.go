// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

const modulePath = "github.com/aegis-oci/aegis-oci"

// binary returns the path of a server's program under bin/, building it from its
// nested module when it is missing or older than its source. A failure fails the
// test: a test that needs a server is never skipped.
func binary(t testing.TB, name, module string) string {
	t.Helper()
	return binaryWith(t, name, module, recipe{})
}

// recipe is what a build needs besides the module; the Makefile has the same, so
// that one build of a heavy program serves both.
type recipe struct{ env, flags []string }

func binaryWith(t testing.TB, name, module string, how recipe) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	out := filepath.Join(root, "bin", name)
	if runtime.GOOS == "windows" {
		out += ".exe"
	}
	if err := build(filepath.Join(root, module), out, how); err != nil {
		t.Fatalf("servertest: building %s: %v", name, err)
	}
	return out
}

// moduleRoot walks up from the working directory to the root module.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module root: %w", err)
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), "module "+modulePath+"\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("finding the module root: no go.mod of " + modulePath + " above the working directory")
		}
		dir = parent
	}
}

// build makes out current. Test binaries of several packages run at once, so it is
// done under a file lock: the first one builds, the others wait and find it done.
func build(moduleDir, out string, how recipe) error {
	if fresh, err := isFresh(moduleDir, out); fresh || err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+".lock"))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	defer func() { _ = lock.Unlock() }()
	if fresh, err := isFresh(moduleDir, out); fresh || err != nil {
		return err
	}
	// Renamed into place, since another process may be running the old program.
	tmp := out + ".new"
	// No flags and no variables that change the build cache's keys: the Makefile's
	// build of the same program must serve this one, and OpenBao takes minutes.
	cmd := exec.Command("go", append(append([]string{"build"}, how.flags...), "-o", tmp, ".")...)
	cmd.Dir = moduleDir
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), how.env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	// The linker leaves a program alone that is current, with its old time.
	now := time.Now()
	if err := os.Chtimes(tmp, now, now); err != nil {
		return err
	}
	return os.Rename(tmp, out)
}

// isFresh reports whether out is there and no older than the module's own files.
func isFresh(moduleDir, out string) (bool, error) {
	built, err := os.Stat(out)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sources, err := os.ReadDir(moduleDir)
	if err != nil {
		return false, err
	}
	for _, entry := range sources {
		info, err := entry.Info()
		if err != nil {
			return false, err
		}
		if info.Mode().IsRegular() && info.ModTime().After(built.ModTime()) {
			return false, nil
		}
	}
	return true, nil
}
