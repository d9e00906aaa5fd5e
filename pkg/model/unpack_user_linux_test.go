// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

// An old file that cannot be removed must not cost the model that is there.
func TestUnpackKeepsTheOldModelThatCannotBeRemoved(t *testing.T) {
	if asUser(t) {
		return
	}
	for _, locked := range []string{"b", "b/c", ".aegis/signatures"} {
		a := newArtifact().file("a/x", random(10)).file("b/c/y", random(20))
		dst := filepath.Join(t.TempDir(), "m")
		install(t, a, dst)
		before := snapshot(t, dst)
		lock(t, filepath.Join(dst, locked), 0o555)
		next := newArtifact().file("w", random(30))
		v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
		for range 2 {
			f := next.fetcher()
			_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: true})
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "cannot be replaced") || !strings.Contains(err.Error(), locked) {
				t.Errorf("%s: error %v", locked, err)
			}
			if len(f.calls) > 0 || !maps.Equal(before, snapshot(t, dst)) {
				t.Errorf("%s: %d fetched, %q are there", locked, len(f.calls), keys(snapshot(t, dst)))
			}
		}
		lock(t, filepath.Join(dst, locked), 0o755)
		if _, err := Unpack(t.Context(), next.fetcher(), v, m, dst, UnpackOptions{Replace: true}); err != nil {
			t.Fatal(err)
		}
		checkInstalled(t, dst, v, 1)
	}
}

// A file of the model that may not be read is damage, for --replace.
func TestReplaceMendsWhatMayNotBeRead(t *testing.T) {
	if asUser(t) {
		return
	}
	for _, locked := range []string{"model.onnx", manifestName, receiptName, signatureName(signaturesDir, 0, "envelope")} {
		a, dst := sample(), filepath.Join(t.TempDir(), "m")
		install(t, a, dst)
		must(t, os.Chmod(filepath.Join(dst, locked), 0))
		v, m := a.decode(t)
		if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err == nil {
			t.Errorf("%s: it passes for whole", locked)
		}
		if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Replace: true}); err != nil {
			t.Errorf("%s: %v", locked, err)
			continue
		}
		checkInstalled(t, dst, v, 5)
	}
	// A directory that may not be looked into cannot be removed.
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	before := snapshot(t, dst)
	before["extra/"] = "dir"
	mkdir(t, filepath.Join(dst, "extra"))
	lock(t, filepath.Join(dst, "extra"), 0)
	v, m := a.decode(t)
	_, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Replace: true})
	if lock(t, filepath.Join(dst, "extra"), 0o755); !errors.Is(err, fs.ErrPermission) || !maps.Equal(before, snapshot(t, dst)) {
		t.Errorf("error %v, %q are there", err, keys(snapshot(t, dst)))
	}
}

// That nobody may look is no judgement about what is there.
func TestOpenInstalledTellsWhatItMayNotRead(t *testing.T) {
	if asUser(t) {
		return
	}
	for _, locked := range []string{".", evidenceDir, manifestName, receiptName, signaturesDir, signatureName(signaturesDir, 0, "envelope")} {
		dst := filepath.Join(t.TempDir(), "m")
		install(t, sample(), dst)
		lock(t, filepath.Join(dst, locked), 0)
		_, err := OpenInstalled(dst)
		var not *NotInstalledError
		if !errors.Is(err, fs.ErrPermission) || errors.As(err, &not) {
			t.Errorf("%s: error %v", locked, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	for _, dir := range []string{file, file + "x", file + "/x"} {
		var not *NotInstalledError
		if _, err := OpenInstalled(dir); !errors.As(err, &not) {
			t.Errorf("%s: error %v, want a NotInstalledError", dir, err)
		}
	}
}

// What is locked while the new one is fetched is found before the old one goes.
func TestUnpackLooksAgainBeforeItRemovesTheOldModel(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	dst := filepath.Join(mountTmpfs(t, "1m"), "m")
	install(t, newArtifact().file("a", random(10)).file("b/y", random(20)), dst)
	before := snapshot(t, dst)
	next := newArtifact().file("w", random(30))
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	u := newUnpacking(next.fetcher(), v, m, dst, UnpackOptions{Replace: true})
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	_, err = u.survey(t.Context(), s)
	must(t, err, s.begin(m.subject.Digest()), u.fetchAll(t.Context(), s, u.blobs(), nil))
	tr, err := u.assemble(t.Context(), s)
	must(t, err)
	bindReadOnly(t, filepath.Join(dst, "b"))
	if err := u.place(s, tr, true); !errors.Is(err, syscall.EROFS) {
		t.Errorf("error %v", err)
	}
	if j := s.readJournal(); j.State != stateFetching {
		t.Errorf("the journal says %q", j.State)
	}
	s.leave(true)
	if !maps.Equal(before, snapshot(t, dst)) {
		t.Errorf("%q are there", keys(snapshot(t, dst)))
	}
}

// A part of the cache that somebody else closed is gone past.
func TestUnpackGoesPastACacheThatIsClosed(t *testing.T) {
	if asUser(t) {
		return
	}
	a := newArtifact().file("a", random(10))
	v, m := a.decode(t)
	for _, part := range []string{"blobs", "blobs/sha256", "partial", "locks"} {
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o777|fs.ModeSticky), openCache(t, dir).Close())
		lock(t, filepath.Join(dir, part), 0)
		cache, err := nodecache.Open(dir, nodecache.Options{})
		var unusable *nodecache.UnusableError
		if part == "blobs" {
			if !errors.As(err, &unusable) {
				t.Errorf("%s: error %v", part, err)
			}
			continue
		}
		must(t, err)
		var warnings []string
		dst := filepath.Join(t.TempDir(), "m")
		_, err = Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Cache: cache, Warn: func(s string) { warnings = append(warnings, s) }})
		must(t, err, cache.Close())
		checkInstalled(t, dst, v, 1)
		if len(warnings) != 1 || !strings.Contains(warnings[0], "fetching a past the cache") {
			t.Errorf("%s: warnings %q", part, warnings)
		}
	}
}

// A named pipe that somebody swaps for a lock blocks nobody who may only read that.
func TestAPipeInACachesLockBlocksNobody(t *testing.T) {
	if asUser(t) {
		return
	}
	content, dir := random(10), t.TempDir()
	d := digest.FromBytes(content)
	cache := openCache(t, dir)
	e, err := cache.Blob(t.Context(), d, 10, func(f *os.File, _ int64, _ func()) error {
		_, err := f.Write(content)
		return err
	})
	must(t, err, e.Close())
	name, pipe := filepath.Join(dir, "locks", d.Encoded()), filepath.Join(dir, "pipe")
	must(t, os.Chmod(name, 0o444), syscall.Mkfifo(pipe, 0o600))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20_000 {
			if e, err := cache.Blob(t.Context(), d, 10, nil); err == nil {
				_ = e.Close()
			}
		}
	}()
	for end := time.After(time.Minute); ; {
		select {
		case <-done:
			return
		case <-end:
			t.Fatal("a lock waits for somebody to write to a pipe")
		default:
			must(t, unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, pipe, unix.RENAME_EXCHANGE))
		}
	}
}

// lock sets a mode that the test's end gives back, so that the directory can be removed.
func lock(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	must(t, os.Chmod(path, mode))
	t.Cleanup(func() { os.Chmod(path, 0o755) }) //nolint:errcheck // it may be gone
}

// bindReadOnly makes a directory read-only for everybody.
func bindReadOnly(t *testing.T, dir string) {
	t.Helper()
	must(t, syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	must(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""))
}
