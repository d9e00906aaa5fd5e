// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package rootfile

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAPipeInAFilesPlaceBlocksNobody swaps a file for a named pipe while it is opened,
// which happens between the look at it and the open sooner or later.
func TestAPipeInAFilesPlaceBlocksNobody(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.WriteFile(dir+"/name", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	stop, swapped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				swapped <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, dir+"/name", unix.AT_FDCWD, dir+"/pipe", unix.RENAME_EXCHANGE); err != nil {
				swapped <- err
				return
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20_000 {
			f, info, err := OpenPlain(root, "name", os.O_RDONLY)
			if err != nil {
				continue
			}
			if !info.Mode().IsRegular() {
				t.Error("a pipe passes for a file")
			}
			f.Close()
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("an open waits for somebody to write to a pipe")
	}
	close(stop)
	if err := <-swapped; err != nil {
		t.Fatal(err)
	}
}
