// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package digestcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var content = digest.FromString("content")

func open(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// file makes a file and returns its key.
func file(t *testing.T) (string, Key) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "model.bin")
	if err := os.WriteFile(name, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	return name, keyNow(t, name)
}

func keyNow(t *testing.T, name string) Key {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	k, ok := KeyOf(name, info)
	if !ok {
		t.Fatalf("%s has no key: is its file system none of the local ones?", name)
	}
	return k
}

// later is a time at which a file that was just written is old enough.
func later() time.Time { return time.Now().Add(minAge + time.Second) }

// begun is a reading of a file as if it were old enough.
func begun(t *testing.T, c *Cache, name string, k Key) Reading {
	t.Helper()
	at := *c
	at.now = later
	r, ok := at.Begin(name, k)
	if !ok {
		t.Fatal("the file cannot be remembered")
	}
	return r
}

func stored(t *testing.T, c *Cache, name string, k Key) {
	t.Helper()
	if ok, err := c.Store(begun(t, c, name, k), Entry{Digest: content, Repositories: []string{"h/r"}}); err != nil || !ok {
		t.Fatalf("stored %v, %v", ok, err)
	}
}

func absent(t *testing.T, c *Cache, k Key) {
	t.Helper()
	if e, ok, err := c.Lookup(k); ok || err != nil {
		t.Errorf("found %+v, %v", e, err)
	}
}

func TestLookupReturnsWhatWasStored(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	c := open(t, dir)
	name, k := file(t)
	absent(t, c, k)
	stored(t, c, name, k)
	want := Entry{Digest: content, Repositories: []string{"h/r"}}
	for _, cache := range []*Cache{c, open(t, dir)} {
		if e, ok, err := cache.Lookup(k); err != nil || !ok || !reflect.DeepEqual(e, want) {
			t.Errorf("%+v, %v, %v", e, ok, err)
		}
	}
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	entry, err := os.Stat(filepath.Join(dir, k.name()))
	if err != nil || entry.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", entry, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	absent(t, open(t, dir), k)
}

// A change that puts back the time of modification is found by the time of change.
func TestAChangeIsFoundThoughItsTimeWasPutBack(t *testing.T) {
	c := open(t, t.TempDir()+"/c")
	name, k := file(t)
	stored(t, c, name, k)
	mtime := time.Unix(0, k.Modified)
	time.Sleep(20 * time.Millisecond) // a tick of the kernel's clock
	if err := errors.Join(os.WriteFile(name, []byte("CONTENT"), 0o644), os.Chtimes(name, mtime, mtime)); err != nil {
		t.Fatal(err)
	}
	now := keyNow(t, name)
	if now.Modified != k.Modified || now.Size != k.Size || now.Inode != k.Inode {
		t.Fatalf("the test changes more than it should: %+v, %+v", k, now)
	}
	absent(t, c, now)
}

func TestEveryPartOfTheKeyCounts(t *testing.T) {
	c := open(t, t.TempDir()+"/c")
	name, k := file(t)
	stored(t, c, name, k)
	for what, change := range map[string]func(*Key){
		"device": func(k *Key) { k.Device++ }, "inode": func(k *Key) { k.Inode++ }, "size": func(k *Key) { k.Size++ },
		"mtime": func(k *Key) { k.Modified++ }, "ctime": func(k *Key) { k.Changed++ },
	} {
		other := k
		change(&other)
		if _, ok, _ := c.Lookup(other); ok {
			t.Errorf("another %s is found", what)
		}
		// The name of an entry is no proof: put it where the other would be.
		raw, err := os.ReadFile(filepath.Join(c.dir, k.name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.dir, other.name()), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok, _ := c.Lookup(other); ok {
			t.Errorf("another %s is found under its name", what)
		}
	}
}

func TestNothingYoungIsStored(t *testing.T) {
	c := open(t, t.TempDir()+"/c")
	name, k := file(t)
	for _, since := range []time.Time{time.Now(), time.Unix(0, k.Changed).Add(minAge - 1)} {
		c.now = func() time.Time { return since }
		if _, ok := c.Begin(name, k); ok {
			t.Error("a young file can be remembered")
		}
	}
	c.now = time.Now
	// An old time of modification on a young file changes nothing.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Begin(name, keyNow(t, name)); ok {
		t.Error("a young file can be remembered")
	}
	c.now = later
	if _, ok := c.Begin(name, keyNow(t, name)); !ok {
		t.Error("an old file cannot be remembered")
	}
}

func TestAFileThatChangedSinceIsNotStored(t *testing.T) {
	c := open(t, t.TempDir()+"/c")
	name, k := file(t)
	reading := begun(t, c, name, k)
	time.Sleep(20 * time.Millisecond)
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	c.now = later
	if _, ok := c.Begin(name, k); ok {
		t.Error("a file that was changed before it is read can be remembered")
	}
	if ok, err := c.Store(reading, Entry{Digest: content}); ok || err != nil {
		t.Errorf("stored %v, %v", ok, err)
	}
	if ok, _ := c.Store(begun(t, c, name, keyNow(t, name)), Entry{Digest: "sha256:short"}); ok {
		t.Error("stored what is no digest")
	}
	absent(t, c, k)
}

func TestADirectoryThatOthersCanWriteIsRefused(t *testing.T) {
	for name, arrange := range map[string]func(dir string) error{
		"group":    func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)) },
		"everyone": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"link": func(dir string) error {
			return errors.Join(os.Mkdir(dir+"-real", 0o700), os.Symlink(dir+"-real", dir))
		},
		"file": func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "c")
			if err := arrange(dir); err != nil {
				t.Fatal(err)
			}
			var refused *RefusedError
			if _, err := Open(dir, nil); !errors.As(err, &refused) || refused.Path != dir {
				t.Errorf("error %v, want a *RefusedError", err)
			}
		})
	}
}

func TestAnEntryThatOthersCouldHaveWrittenIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(entry string) error{
		"group":    func(e string) error { return os.Chmod(e, 0o660) },
		"everyone": func(e string) error { return os.Chmod(e, 0o666) },
		"two names": func(e string) error {
			return os.Link(e, e+"2")
		},
		"a directory": func(e string) error { return errors.Join(os.Remove(e), os.Mkdir(e, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir()+"/c")
			path, k := file(t)
			stored(t, c, path, k)
			if err := spoil(filepath.Join(c.dir, k.name())); err != nil {
				t.Fatal(err)
			}
			var refused *RefusedError
			if _, ok, err := c.Lookup(k); ok || !errors.As(err, &refused) {
				t.Errorf("%v, %v, want a *RefusedError", ok, err)
			}
		})
	}
}

// Only root can make what another user owns.
func TestWhatAnotherUserOwnsIsRefused(t *testing.T) {
	c := open(t, t.TempDir()+"/c")
	path, k := file(t)
	stored(t, c, path, k)
	entry := filepath.Join(c.dir, k.name())
	info, err := os.Lstat(entry)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours(entry, info); err != nil || ownerOf(info) != os.Geteuid() {
		t.Fatalf("%v, owner %d", err, ownerOf(info))
	}
	if os.Geteuid() != 0 {
		other, err := os.Lstat("/")
		if err != nil {
			t.Fatal(err)
		}
		var refused *RefusedError
		if err := ours("/", other); !errors.As(err, &refused) {
			t.Errorf("the root directory passes for ours: %v", err)
		}
		return
	}
	var refused *RefusedError
	if err := os.Lchown(entry, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := c.Lookup(k); ok || !errors.As(err, &refused) {
		t.Errorf("%v, %v, want a *RefusedError", ok, err)
	}
	if err := os.Lchown(c.dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.dir, nil); !errors.As(err, &refused) {
		t.Errorf("error %v, want a *RefusedError", err)
	}
}

func TestTornAndForeignEntriesAreNone(t *testing.T) {
	c := open(t, t.TempDir()+"/c")
	name, k := file(t)
	stored(t, c, name, k)
	entry := filepath.Join(c.dir, k.name())
	whole, err := os.ReadFile(entry)
	if err != nil {
		t.Fatal(err)
	}
	good := string(whole)
	for n := range len(good) {
		if err := os.WriteFile(entry, []byte(good[:n]), 0o600); err != nil {
			t.Fatal(err)
		}
		absent(t, c, k)
	}
	for _, bad := range []string{
		strings.Replace(good, `"version":2`, `"version":1`, 1), strings.Replace(good, `"version":2`, `"version":2,"more":1`, 1),
		strings.Replace(good, "sha256:", "sha512:", 1), strings.Replace(good, content.Encoded(), "00", 1),
		strings.Replace(good, `["h/r"]`, `["`+strings.Repeat(`a","`, 20)+`"]`, 1), strings.Repeat(" ", maxEntry) + good,
	} {
		if err := os.WriteFile(entry, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		absent(t, c, k)
	}
}

func TestManyWritersAndReaders(t *testing.T) {
	dir := t.TempDir() + "/c"
	name, k := file(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := Open(dir, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range 50 {
				if ok, err := c.Store(c.Again(name, k), Entry{Digest: content, Repositories: []string{fmt.Sprint("h/", i)}}); !ok || err != nil {
					t.Errorf("%v, %v", ok, err)
				}
				if e, ok, err := c.Lookup(k); !ok || err != nil || e.Digest != content {
					t.Errorf("%+v, %v, %v", e, ok, err)
				}
			}
		}()
	}
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}

func TestTrimBoundsTheDirectory(t *testing.T) {
	now := time.Now()
	c, err := Open(t.TempDir()+"/c", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 30 {
		path := filepath.Join(c.dir, fmt.Sprintf("%02d", i))
		at := now.Add(time.Duration(i-100) * time.Minute)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	for temp, age := range map[string]time.Duration{"old": 2 * staleTemp, "fresh": 0} {
		path := filepath.Join(c.dir, tempPrefix+temp)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, now.Add(-age), now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.trim(20); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil || len(entries) != 19 || entries[0].Name() != tempPrefix+"fresh" || entries[1].Name() != "12" {
		t.Errorf("left are %v, %v", entries, err)
	}
	if err := c.Trim(); err != nil {
		t.Fatal(err)
	}
}

// A file system that is not local has no keys: its times are another machine's.
func TestOnlyLocalFileSystemsHaveKeys(t *testing.T) {
	for _, name := range []string{"/proc/self/status", "/nowhere/at/all"} {
		if isLocal(name) {
			t.Errorf("%s passes for local", name)
		}
	}
}
