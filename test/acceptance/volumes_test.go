// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance && linux

package acceptance

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// volumeOf mounts a new file system of size bytes, made by mkfs, a program of a Debian
// package.
func volumeOf(t *testing.T, size int64, mkfs, debianPackage string) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	makeVolume(t, image, size, mkfs, debianPackage)
	t.Cleanup(mount(t, dir, "-o", "loop", image))
	return dir
}

// makeVolume makes a file system in a file.
func makeVolume(t *testing.T, image string, size int64, mkfs, debianPackage string) {
	t.Helper()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(debian(t, mkfs, debianPackage), "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
}

// mount mounts a file system, by the arguments of mount(8), until unmount is called.
func mount(t *testing.T, dir string, args ...string) (unmount func()) {
	t.Helper()
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("mount needs root, loop devices and the file system: %v\n%s", err, out)
	}
	return func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	}
}

func freeOn(t *testing.T, dir string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	syscall.Sync()
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// TestReplaceOnAVolumeThatClones: what the new model shares with the old one takes no
// space where files can share blocks, so that a volume with room for one model is
// enough. What has to be fetched is refused where it does not fit, before the first
// byte, and the old model stays.
func TestReplaceOnAVolumeThatClones(t *testing.T) {
	const size = 200 << 20
	v := newCIVault(t)
	const key = "hashivault://aegis-model-sign"
	env, repo := v.job(t, "cloned"), v.host+"/models/cloned"
	model := writeModel(t)
	weights := make([]byte, size)
	push := func(tag, file string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(model, file), content, 0o644); err != nil {
			t.Fatal(err)
		}
		aegis(t, env, 0, "push", "-q", "--sign", "--key", key, repo+":"+tag, model)
	}
	_, _ = rand.Read(weights)
	push("v1", "model.bin", weights)
	push("v2", "tokenizer.json", []byte("{}"))
	_, _ = rand.Read(weights)
	push("v3", "model.bin", weights)

	volume := volumeOf(t, 400<<20, "mkfs.btrfs", "btrfs-progs")
	dst := filepath.Join(volume, "model")
	pull := func(code int, tag string, flags ...string) (stdout, stderr string) {
		t.Helper()
		return aegis(t, env, code, append([]string{"pull", "--key", key, "--format", "json", "-o", dst, repo + ":" + tag}, flags...)...)
	}
	pull(0, "v1")
	before := freeOn(t, volume)
	if before > size {
		t.Fatalf("%d bytes are free: there would be room for two models", before)
	}
	var got struct{ BytesReused, BytesFetched int64 }
	out, _ := pull(0, "v2", "--replace")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.BytesReused < size || got.BytesFetched > 1<<20 {
		t.Errorf("%d bytes were reused, %d fetched", got.BytesReused, got.BytesFetched)
	}
	if took := before - freeOn(t, volume); took > 16<<20 {
		t.Errorf("it took %d bytes of the volume", took)
	}
	if out, _ := pull(1, "v3", "--replace"); !strings.Contains(out, "disk_full") {
		t.Errorf("refused with %s", out)
	}
	if content, err := os.ReadFile(filepath.Join(dst, "tokenizer.json")); err != nil || string(content) != "{}" {
		t.Errorf("the old model: %q, %v", content, err)
	}
	entries, err := os.ReadDir(volume)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestResumeOnAVolumeWithRoomForOne: what a killed pull has reserved on the disk is not
// asked for once more, and what it has fetched is kept.
func TestResumeOnAVolumeWithRoomForOne(t *testing.T) {
	const size = 80 << 20
	v := newCIVault(t)
	const key = "hashivault://aegis-model-sign"
	env, repo := v.job(t, "reserved"), v.host+"/models/reserved"
	model := writeModel(t)
	weights := make([]byte, size)
	_, _ = rand.Read(weights)
	if err := os.WriteFile(filepath.Join(model, "model.bin"), weights, 0o644); err != nil {
		t.Fatal(err)
	}
	aegis(t, env, 0, "push", "-q", "--sign", "--key", key, repo+":v1", model)

	volume := volumeOf(t, 128<<20, "mkfs.ext4", "e2fsprogs")
	dst := filepath.Join(volume, "model")
	cmd := command(t, env, "pull", "-q", "--key", key, "--limit-rate", "20M", "-o", dst, repo+":v1")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var kept int64
	for end := time.Now().Add(time.Minute); kept < 20<<20 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		staged, _ := filepath.Glob(filepath.Join(volume, ".aegis-*", "blobs", "*"))
		for _, name := range staged {
			if info, err := os.Stat(name); err == nil {
				kept = max(kept, info.Size())
			}
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if kept < 20<<20 || kept > size-(10<<20) {
		t.Fatalf("it was killed after %d bytes: the test tests nothing\n%s", kept, log.String())
	}
	if free := freeOn(t, volume); free > size-kept {
		t.Fatalf("%d bytes are free: nothing was reserved", free)
	}
	var got struct{ BytesReused, BytesFetched int64 }
	out, _ := aegis(t, env, 0, "pull", "--key", key, "--format", "json", "-o", dst, repo+":v1")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.BytesReused < kept || got.BytesFetched > size-kept+(1<<20) {
		t.Errorf("%d bytes were kept, %d reused, %d fetched", kept, got.BytesReused, got.BytesFetched)
	}
	aegis(t, env, 0, "verify", "--key", key, "--dir", dst)
}

// TestPullToATmpfsWithoutALimit, which counts no blocks.
func TestPullToATmpfsWithoutALimit(t *testing.T) {
	v := newCIVault(t)
	const key = "hashivault://aegis-model-sign"
	env, repo := v.job(t, "memory"), v.host+"/models/memory"
	aegis(t, env, 0, "push", "-q", "--sign", "--key", key, repo+":v1", writeModel(t))
	dir := t.TempDir()
	t.Cleanup(mount(t, dir, "-t", "tmpfs", "-o", "size=0", "none"))
	aegis(t, env, 0, "pull", "-q", "--key", key, "--cache", filepath.Join(dir, "cache"), "-o", filepath.Join(dir, "model"), repo+":v1")
	aegis(t, env, 0, "verify", "-q", "--key", key, "--dir", filepath.Join(dir, "model"))
}
