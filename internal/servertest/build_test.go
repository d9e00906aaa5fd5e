// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBuildMakesAMissingOrOutdatedProgram(t *testing.T) {
	module, out := t.TempDir(), filepath.Join(t.TempDir(), "bin", "hello")
	write(t, filepath.Join(module, "go.mod"), "module example.test/hello\n\ngo 1.26.0\n")
	write(t, filepath.Join(module, "main.go"), "package main\n\nfunc main() { print(\"one\") }\n")

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := build(module, out, recipe{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := runProgram(t, out); got != "one" {
		t.Fatalf("the program says %q", got)
	}
	first := modTime(t, out)
	if err := build(module, out, recipe{}); err != nil {
		t.Fatal(err)
	}
	if !modTime(t, out).Equal(first) {
		t.Error("a current program was built again")
	}

	write(t, filepath.Join(module, "main.go"), "package main\n\nfunc main() { print(\"two\") }\n")
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(filepath.Join(module, "main.go"), later, later); err != nil {
		t.Fatal(err)
	}
	if err := build(module, out, recipe{}); err != nil {
		t.Fatal(err)
	}
	if got := runProgram(t, out); got != "two" {
		t.Errorf("the program says %q after its source changed", got)
	}
}

func TestBuildReportsTheCompilersError(t *testing.T) {
	module, out := t.TempDir(), filepath.Join(t.TempDir(), "broken")
	write(t, filepath.Join(module, "go.mod"), "module example.test/broken\n\ngo 1.26.0\n")
	write(t, filepath.Join(module, "main.go"), "package main\n\nfunc main() { undefinedName() }\n")
	err := build(module, out, recipe{})
	if err == nil || !strings.Contains(err.Error(), "undefinedName") {
		t.Fatalf("got %v, want the compiler's error", err)
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("a program was left behind: %v", err)
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func runProgram(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command(file).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func modTime(t *testing.T, file string) time.Time {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}
