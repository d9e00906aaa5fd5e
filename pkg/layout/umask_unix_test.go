// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package layout_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
)

// TestALayoutHonoursTheUmask, in a directory and in a tar. It is not parallel: the umask
// is the process's.
func TestALayoutHonoursTheUmask(t *testing.T) {
	for umask, want := range map[int]fs.FileMode{0o077: 0o600, 0o022: 0o644, 0o027: 0o640} {
		dir := t.TempDir()
		before := syscall.Umask(umask)
		defer syscall.Umask(before)
		for name, file := range map[string]string{"dir": "dir/index.json", "m.tar": "m.tar"} {
			l, err := layout.Create(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			desc, raw := manifest("application/vnd.model")
			if _, err := l.PushManifest(t.Context(), desc.MediaType, raw); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.Commit(), l.Close()); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != want {
				t.Errorf("umask %o: %s has mode %o, want %o", umask, file, info.Mode().Perm(), want)
			}
		}
		syscall.Umask(before)
	}
}
