// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// Nothing that a directory says of itself is believed: whoever may write the
// volume may write all of it, the evidence too.
func TestVerifyDirRefuses(t *testing.T) {
	t.Parallel()
	host := servertest.SharedStack(t).Registry
	c, key := newClient(t), ecdsaKey(t)
	ref, otherRef := refTo(t, host, "v1"), refTo(t, host, "other")
	pushed, err := c.Push(t.Context(), aegis.PushOptions{Ref: ref, Paths: []string{modelDir(t, 1)}, Signing: &aegis.Signing{Signer: key, Expiry: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	other := mustPush(t, c, otherRef, modelDir(t, 2), key)
	at := func(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	write := func(t *testing.T, file, content string) {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	isDir := func(t *testing.T, err error) { wantErr[*model.DirError](t, err) }

	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string)
		opts   aegis.VerifyDirOptions
		key    signature.Key
		check  func(t *testing.T, err error)
	}{
		{name: "changed file", check: isDir, change: func(t *testing.T, dir string) {
			b, err := os.ReadFile(at(dir, "weights/part-1.bin"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, at(dir, "weights/part-1.bin"), string(flipped(b)))
		}},
		{name: "missing file", check: isDir, change: func(t *testing.T, dir string) {
			if err := os.Remove(at(dir, "README.md")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "extra file", check: isDir, change: func(t *testing.T, dir string) { write(t, at(dir, "weights/sitecustomize.py"), "x") }},
		{name: "a link in a file's place", check: isDir, change: func(t *testing.T, dir string) {
			moved := at(t.TempDir(), "moved")
			if err := os.Rename(at(dir, "README.md"), moved); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(moved, at(dir, "README.md")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "no evidence", check: func(t *testing.T, err error) { wantErr[*model.NotInstalledError](t, err) },
			change: func(t *testing.T, dir string) {
				if err := os.RemoveAll(at(dir, ".aegis")); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "no signature kept", check: func(t *testing.T, err error) { wantErr[*verify.NoSignatureError](t, err) },
			change: func(t *testing.T, dir string) {
				if err := os.RemoveAll(at(dir, ".aegis/signatures")); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "the evidence of another model", check: isDir, change: func(t *testing.T, dir string) {
			second := at(t.TempDir(), "m")
			if _, err := c.Pull(t.Context(), aegis.PullOptions{Ref: otherRef, Dir: second}, requirement(key.Public(t))); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(at(dir, ".aegis")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(at(second, ".aegis"), at(dir, ".aegis")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "another key", key: ecdsaKey(t).Public(t), check: func(t *testing.T, err error) { wantErr[*verify.RejectedError](t, err) }},
		{name: "another digest", opts: aegis.VerifyDirOptions{Digest: other.Digest}, check: func(t *testing.T, err error) {
			if e := wantErr[*aegis.DigestError](t, err); digest.Digest(e.Got) != pushed.Digest {
				t.Errorf("error %+v", e)
			}
		}},
		{name: "expired since", opts: aegis.VerifyDirOptions{Now: func() time.Time { return time.Now().Add(2 * time.Hour) }},
			check: func(t *testing.T, err error) { wantErr[*verify.ExpiredError](t, err) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			trusted := requirement(key.Public(t))
			dir := filepath.Join(t.TempDir(), "model")
			if _, err := c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: dir}, trusted); err != nil {
				t.Fatal(err)
			}
			if _, err := aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dir}, trusted); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			if tc.change != nil {
				tc.change(t, dir)
			}
			if tc.key != nil {
				trusted = requirement(tc.key)
			}
			o := tc.opts
			o.Dir = dir
			got, err := aegis.VerifyDir(t.Context(), o, trusted)
			if err == nil || got.Verified {
				t.Fatalf("verified: %+v", got)
			}
			tc.check(t, err)
		})
	}
}
