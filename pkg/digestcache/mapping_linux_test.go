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

// TestAWriteThroughAMappingIsSeen changes files through a shared mapping whose pages are
// written already, which leaves no trace by itself: numpy.memmap does so.
func TestAWriteThroughAMappingIsSeen(t *testing.T) {
	memory := tmpfs(t)
	for _, dir := range []string{t.TempDir(), memory} {
		for _, closed := range []bool{false, true} {
			c := open(t, filepath.Join(t.TempDir(), "c"))
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
			c.now = later
			reading, can := c.Begin(name, k)
			time.Sleep(20 * time.Millisecond)
			m[0] = 2
			if can {
				if ok, err := c.Store(reading, Entry{Digest: content}); ok || err != nil {
					t.Errorf("%s, closed %v: what a mapping changed is remembered: %v, %v", dir, closed, ok, err)
				}
			} else if dir != memory {
				t.Errorf("%s: not remembered", dir)
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
			m[0] = 3
			if after := keyNow(t, name); after == before {
				t.Errorf("%s: a write through a new mapping leaves no trace", dir)
			}
			if err := unix.Munmap(m); err != nil {
				t.Fatal(err)
			}
			f.Close()
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
