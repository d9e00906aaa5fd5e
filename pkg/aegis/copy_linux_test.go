// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
)

// TestCopyFromALayoutWithSomethingUnreadable: it might be attached to the model, as
// everything might that cannot be read, and keeps it from being copied no more than from
// being verified.
func TestCopyFromALayoutWithSomethingUnreadable(t *testing.T) {
	t.Parallel()
	key, from := ecdsaKey(t), refTo(t, servertest.SharedStack(t).Registry, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 66), key)
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: site})
	other := indexOf(t, nil)
	if err := os.WriteFile(filepath.Join(site.Path, "blobs", "sha256", other.Digest.Encoded()), other.raw, 0); err != nil {
		t.Fatal(err)
	}
	inLayout(t, site, func(x *ocispec.Index) { x.Manifests = append(x.Manifests, other.Descriptor) })
	to := layout.Reference{Path: filepath.Join(t.TempDir(), "copy"), Tag: "v1"}
	var r aegis.CopyResult
	err := heedingModes(func() (err error) {
		if _, err = newClient(t).Verify(t.Context(), site, requirement(key.Public(t))); err == nil {
			r, err = newClient(t).Copy(t.Context(), aegis.CopyOptions{From: site, To: to})
		}
		return err
	})
	if err != nil || r.Referrers != 1 || !slices.Equal(r.Skipped, []string{other.Digest.String()}) {
		t.Errorf("%+v %v", r, err)
	}
}

// heedingModes runs f on a thread that may read no more than a file's mode says, which
// root's others may.
func heedingModes(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &make([]unix.CapUserData, 2)[0])
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
