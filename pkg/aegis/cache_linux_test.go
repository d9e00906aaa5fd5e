// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCacheOfSeveralUsers: in a sticky directory each reads what the others fetched.
// Not as root both are the same user, and the directory is all the same.
func TestCacheOfSeveralUsers(t *testing.T) {
	t.Parallel()
	r, bin := newMirrorRig(t, 87), program(t)
	work := t.TempDir()
	for dir := work; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(filepath.Dir(filepath.Dir(bin)), 0o755)
	cache := filepath.Join(work, "cache")
	if err := os.Mkdir(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cache, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(work, "key.pub")
	if err := os.WriteFile(key, r.key.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, uid := range []uint32{10001, 10002, 10003} {
		home := filepath.Join(work, string(rune('a'+i)))
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), bin, "pull", "--quiet", "--key", key, "--cache", cache, "--link", "--cache-max-size", "1GiB", "-o", filepath.Join(home, "model"), r.ref.String())
		cmd.Env, cmd.Dir = []string{"HOME=" + home}, home
		if os.Geteuid() == 0 {
			if err := os.Chown(home, int(uid), int(uid)); err != nil {
				t.Fatal(err)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning") {
			t.Fatalf("user %d: %v\n%s", uid, err, out)
		}
		sameModel(t, r.dir, filepath.Join(home, "model"))
		info, err := os.Stat(filepath.Join(home, "model", "weights", "part-1.bin"))
		if err != nil {
			t.Fatal(err)
		}
		// Another user's file could be changed by that user after the check.
		if n := info.Sys().(*syscall.Stat_t).Nlink; os.Geteuid() == 0 && (n == 1) != (i > 0) {
			t.Errorf("user %d has a file with %d names", uid, n)
		}
	}
	for file, n := range r.fetchedFiles(t) {
		if n != 1 {
			t.Errorf("%s was fetched %d times", file, n)
		}
	}
}
