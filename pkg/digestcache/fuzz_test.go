// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package digestcache

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// FuzzLookup reads any bytes as the entry of a file: what comes out is a digest for
// exactly this file and change, and never an error for what a crash has torn.
func FuzzLookup(f *testing.F) {
	k := Key{Device: 1, Inode: 2, Size: 7, Modified: 3, Changed: 4}
	const good = `{"version":2,"key":{"device":1,"inode":2,"size":7,"mtime":3,"ctime":4},"digest":"sha256:`
	f.Add([]byte(good + content.Encoded() + `","repositories":["r.example.com/m"]}`))
	f.Add([]byte(good + `00","repositories":null}`))
	f.Add([]byte(good))
	f.Add([]byte(`{"version":2,"key":{"device":1,"inode":3}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(nil))
	dir := filepath.Join(f.TempDir(), "cache")
	c, err := Open(dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	other := k
	other.Changed++
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(filepath.Join(dir, k.name()), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		e, found, err := c.Lookup(k)
		if err != nil || !found && (e.Digest != "" || e.Repositories != nil) {
			t.Fatalf("%+v, %v, %v", e, found, err)
		}
		if found && (e.Digest.Validate() != nil || e.Digest.Algorithm() != digest.SHA256 || len(e.Repositories) > maxRepositories) {
			t.Fatalf("%q is %+v", raw, e)
		}
		if _, twice, err := c.Lookup(other); err != nil || twice && found {
			t.Fatalf("one entry for two states of a file: %q, %v", raw, err)
		}
	})
}
