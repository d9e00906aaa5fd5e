// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAWriteThroughAMappingIsSeen changes files through a shared mapping, as numpy.memmap
// does: with pages that are written already, or read before, such a write leaves no trace
// by itself.
func TestAWriteThroughAMappingIsSeen(t *testing.T) {
	dir := t.TempDir()
	for _, closed := range []bool{false, true} {
		c := open(t, filepath.Join(t.TempDir(), "c"))
		c.now = later
		name := filepath.Join(dir, "model.bin")
		if err := os.WriteFile(name, make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		f, m := mapped(t, name)
		m[0] = 1
		if closed { // the mapping stays
			f.Close()
		}
		k := keyNow(t, name)
		reading, can := c.Begin(name, k)
		time.Sleep(20 * time.Millisecond)
		m[0] = 2
		if can { // an overlay, which was flushed
			if ok, err := c.Store(reading, Entry{Digest: content}); ok || err != nil {
				t.Errorf("closed %v: what a mapping changed is remembered: %v, %v", closed, ok, err)
			}
		}
		if err := unix.Munmap(m); err != nil {
			t.Fatal(err)
		}
		f.Close()

		// Nobody has it mapped: it is remembered, until somebody maps it again.
		stored(t, c, name, keyNow(t, name))
		before := keyNow(t, name)
		time.Sleep(20 * time.Millisecond)
		f, m = mapped(t, name)
		if m[0] != 2 {
			t.Fatal("the mapping has other bytes")
		}
		m[0] = 3
		if after := keyNow(t, name); after == before {
			t.Error("a write through a new mapping leaves no trace")
		}
		if err := unix.Munmap(m); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// TestNothingInMemoryIsRemembered: on a tmpfs there is no trace at all.
func TestNothingInMemoryIsRemembered(t *testing.T) {
	name := filepath.Join(tmpfs(t), "model.bin")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := KeyOf(name, info); ok {
		t.Errorf("a file on a tmpfs can be remembered: %+v", k)
	}
}

func TestOverlaysThatFlushNothingAreFound(t *testing.T) {
	const plain = "31 1 8:1 / /data rw - ext4 /dev/sda1 rw,volatile\n"
	overlay := func(options string) string {
		return plain + "22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/l," + options + "\n"
	}
	for mounts, want := range map[string]bool{
		"":    true,
		plain: true,
		overlay("upperdir=" + t.TempDir() + ",workdir=/w"):          true,
		overlay("upperdir=" + t.TempDir() + ",workdir=/w,volatile"): false,
	} {
		if got := overlaysFlush(mounts); got != want {
			t.Errorf("%v, want %v: %s", got, want, mounts)
		}
	}
}

// TestAnOverlayInMemoryIsFound though its upper directory is named where nothing is, as that
// of a container.
func TestAnOverlayInMemoryIsFound(t *testing.T) {
	if os.Geteuid() != 0 {
		return // mounts nothing
	}
	for _, memory := range []bool{false, true} {
		below, merged := t.TempDir(), t.TempDir()
		if memory {
			below = tmpfs(t)
		}
		for _, dir := range []string{"low", "up", "work"} {
			if err := os.Mkdir(filepath.Join(below, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+below+"/low,upperdir="+below+"/up,workdir="+below+"/work"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(merged, 0) }) //nolint:errcheck // the directory's removal fails
		if err := os.Rename(filepath.Join(below, "up"), filepath.Join(below, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(merged, "model.bin")
		if err := os.WriteFile(name, make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		c := open(t, filepath.Join(t.TempDir(), "c"))
		c.now = later
		if _, can := c.Begin(name, keyNow(t, name)); can == memory {
			t.Errorf("in memory %v: it can be remembered: %v", memory, can)
		}
	}
}

func mapped(t *testing.T, name string) (*os.File, []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return f, m
}

// tmpfs is a directory in memory.
func tmpfs(t *testing.T) string {
	t.Helper()
	const dir = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Type) != unix.TMPFS_MAGIC {
		t.Fatalf("%s is no tmpfs: %v", dir, err)
	}
	sub, err := os.MkdirTemp(dir, "aegis-digestcache-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sub) })
	return sub
}
