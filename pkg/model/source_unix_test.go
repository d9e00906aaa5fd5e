// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package model

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPackRefusesWhatIsNoFile(t *testing.T) {
	t.Run("named pipe", func(t *testing.T) {
		dir := packTree(t, map[string]string{"model.bin": "w"})
		if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantSourceError(t, "pipe", "named pipe", dir, PackOptions{})
		packLink(t, "pipe", filepath.Join(dir, "a"))
		wantSourceError(t, "a", "named pipe", dir, PackOptions{})
	})
	t.Run("socket", func(t *testing.T) {
		t.Chdir(packTree(t, map[string]string{"model.bin": "w"})) // a socket's path is short
		l, err := net.Listen("unix", "sock")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		wantSourceError(t, "sock", "socket", ".", PackOptions{})
	})
	t.Run("device", func(t *testing.T) {
		dir := packTree(t, map[string]string{"model.bin": "w"})
		packLink(t, "/dev/null", filepath.Join(dir, "null"))
		wantSourceError(t, "null", "outside", dir, PackOptions{})
		wantSourceError(t, "null", "device", dir, PackOptions{FollowOutside: true})
	})
	t.Run("given by name", func(t *testing.T) {
		var se *SourceError
		if _, err := Pack(t.Context(), []string{"/dev/null"}, PackOptions{}); !errors.As(err, &se) {
			t.Errorf("%v, want a *SourceError", err)
		}
	})
}

// A pipe that took the file's place after it was found must not block the open.
func TestBlobDoesNotWaitForAPipe(t *testing.T) {
	dir := packTree(t, map[string]string{"a.bin": "x"})
	p := mustPack(t, PackOptions{}, dir)
	if err := os.Remove(filepath.Join(dir, "a.bin")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "a.bin"), 0o600); err != nil {
		t.Fatal(err)
	}
	var ce *ChangedError
	if _, err := p.Blobs()[1].Open(); !errors.As(err, &ce) {
		t.Errorf("%v, want a *ChangedError", err)
	}
}
