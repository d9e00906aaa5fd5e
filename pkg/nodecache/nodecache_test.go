// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package nodecache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

func open(t testing.TB, dir string, o nodecache.Options) *nodecache.Cache {
	t.Helper()
	c, err := nodecache.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func content(n int) []byte { return []byte(strings.Repeat(strconv.Itoa(n%10), 1000)) }

func digestOf(n int) digest.Digest { return digest.FromBytes(content(n)) }

// filling writes what is missing, and counts.
func filling(n int, times *atomic.Int64) nodecache.Fill {
	return func(f *os.File, kept int64, _ func()) error {
		times.Add(1)
		if _, err := f.WriteAt(content(n)[kept:], kept); err != nil {
			return err
		}
		return f.Sync()
	}
}

func mustBlob(t testing.TB, c *nodecache.Cache, n int, times *atomic.Int64) *nodecache.Entry {
	t.Helper()
	e, err := c.Blob(t.Context(), digestOf(n), 1000, filling(n, times))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	got, err := io.ReadAll(e.File())
	if err != nil || !bytes.Equal(got, content(n)) {
		t.Fatalf("blob %d: %d bytes, %v", n, len(got), err)
	}
	return e
}

// names lists the files below the cache's part.
func names(t testing.TB, dir, part string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, part))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestOneOfManyFetches(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "cache")
	var times atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() {
			c, err := nodecache.Open(dir, nodecache.Options{})
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			e, err := c.Blob(context.Background(), digestOf(1), 1000, func(f *os.File, kept int64, _ func()) error {
				time.Sleep(100 * time.Millisecond)
				return filling(1, &times)(f, kept, nil)
			})
			if err != nil {
				errs[i] = err
				return
			}
			defer e.Close()
			got, err := io.ReadAll(e.File())
			if errs[i] = err; !bytes.Equal(got, content(1)) {
				errs[i] = fmt.Errorf("%d bytes, %w", len(got), err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil || times.Load() != 1 {
		t.Errorf("fetched %d times, %v", times.Load(), err)
	}
	if left := names(t, dir, "partial"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestBrokenOffFetchGoesOn where it was, unless the fetch says that it was wrong.
func TestBrokenOffFetchGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := errors.New("the network is gone")
	breaksAt := func(n int64) nodecache.Fill {
		return func(f *os.File, _ int64, _ func()) error {
			_, err := f.WriteAt(content(1)[:n], 0)
			return errors.Join(broken, err, f.Truncate(n))
		}
	}
	_, err := open(t, dir, nodecache.Options{}).Blob(t.Context(), digestOf(1), 1000, breaksAt(400))
	if !errors.Is(err, broken) || len(names(t, dir, "blobs/sha256")) != 0 {
		t.Fatalf("%v, and there is %q", err, names(t, dir, "blobs/sha256"))
	}
	var had int64
	e, err := open(t, dir, nodecache.Options{}).Blob(t.Context(), digestOf(1), 1000, func(f *os.File, kept int64, _ func()) error {
		had = kept
		return filling(1, new(atomic.Int64))(f, kept, nil)
	})
	if err != nil || had != 400 || !e.Filled {
		t.Fatalf("%d bytes were kept, %v", had, err)
	}
	_ = e.Close()
	if _, err = open(t, dir, nodecache.Options{}).Blob(t.Context(), digestOf(2), 1000, breaksAt(0)); !errors.Is(err, broken) || len(names(t, dir, "partial")) != 0 {
		t.Errorf("%v, and there is %q", err, names(t, dir, "partial"))
	}
	// A full disk is the cache's trouble, not the blob's.
	_, err = open(t, dir, nodecache.Options{}).Blob(t.Context(), digestOf(2), 1000, func(f *os.File, _ int64, _ func()) error {
		_, err := f.WriteAt([]byte("x"), 0)
		return errors.Join(err, &os.PathError{Op: "allocate", Path: f.Name(), Err: syscall.ENOSPC})
	})
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) || len(names(t, dir, "partial")) != 0 {
		t.Errorf("%v, and there is %q", err, names(t, dir, "partial"))
	}
}

// TestAPartOfAWholeBlobIsRemoved: another user has fetched the rest since we were killed.
func TestAPartOfAWholeBlobIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var times atomic.Int64
	c := open(t, dir, nodecache.Options{})
	_ = mustBlob(t, c, 1, &times).Close()
	for uid, left := range map[int]int{os.Geteuid(): 0, os.Geteuid() + 1: 1} {
		part := filepath.Join(dir, "partial", digestOf(1).Encoded()+"."+strconv.Itoa(uid))
		if err := os.WriteFile(part, content(1)[:400], 0o600); err != nil {
			t.Fatal(err)
		}
		_ = mustBlob(t, c, 1, &times).Close()
		if there := names(t, dir, "partial"); len(there) != left || times.Load() != 1 {
			t.Errorf("left: %q, fetched %d times", there, times.Load())
		}
		_ = os.Remove(part)
	}
}

// TestWrongBlobIsDropped, and a file of another size does not count at all.
func TestWrongBlobIsDropped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir, nodecache.Options{})
	var times atomic.Int64
	_ = mustBlob(t, c, 1, &times).Close()
	path := filepath.Join(dir, "blobs", "sha256", digestOf(1).Encoded())
	if err := os.WriteFile(path, content(2), 0o644); err != nil {
		t.Fatal(err)
	}
	e, err := c.Blob(t.Context(), digestOf(1), 1000, filling(1, &times))
	if err != nil || times.Load() != 1 || e.Filled {
		t.Fatalf("%v, fetched %d times", err, times.Load())
	}
	if !c.Drop(e) {
		t.Fatal("it could not be dropped")
	}
	mustBlob(t, c, 1, &times)
	if times.Load() != 2 {
		t.Errorf("fetched %d times", times.Load())
	}
	if err := os.WriteFile(path, content(1)[:999], 0o644); err != nil {
		t.Fatal(err)
	}
	other := open(t, dir, nodecache.Options{Stall: 10 * time.Millisecond})
	_, err = other.Blob(t.Context(), digestOf(1), 1000, filling(1, &times))
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) {
		t.Errorf("a blob that another one is reading was replaced: %v", err)
	}
}

// TestPlantedFilesAreNotFollowed: whoever can write to the cache must not get us to
// read or to destroy another file.
func TestPlantedFilesAreNotFollowed(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	c := open(t, dir, nodecache.Options{})
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, content(7), 0o600); err != nil {
		t.Fatal(err)
	}
	d := digestOf(1)
	blob := filepath.Join(dir, "blobs", "sha256", d.Encoded())
	partial := filepath.Join(dir, "partial", d.Encoded()+"."+strconv.Itoa(os.Geteuid()))
	for name, plant := range map[string]func() error{
		"a link for the blob":      func() error { return os.Symlink(victim, blob) },
		"a link for a part":        func() error { return os.Symlink(victim, partial) },
		"a second name for a part": func() error { return os.Link(victim, partial) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		var times atomic.Int64
		e, err := c.Blob(t.Context(), d, 1000, filling(1, &times))
		var unusable *nodecache.UnusableError
		switch {
		case errors.As(err, &unusable):
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			if got, _ := io.ReadAll(e.File()); !bytes.Equal(got, content(1)) {
				t.Errorf("%s: another file was read", name)
			}
			_ = e.Close()
		}
		if got, err := os.ReadFile(victim); err != nil || !bytes.Equal(got, content(7)) {
			t.Fatalf("%s: the file outside is %q, %v", name, got, err)
		}
		for _, p := range []string{blob, partial} {
			_ = os.Remove(p)
		}
	}
	// A lock that is a link leads nowhere either.
	if err := os.Remove(filepath.Join(dir, "locks", d.Encoded())); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "locks", d.Encoded())); err != nil {
		t.Fatal(err)
	}
	_, err := c.Blob(t.Context(), d, 1000, filling(1, new(atomic.Int64)))
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) {
		t.Errorf("%v", err)
	}
}

// TestANameThatStaysTakenIsFetchedForByNobody: what is in the blob's place and cannot be
// removed is found before the blob comes.
func TestANameThatStaysTakenIsFetchedForByNobody(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, nodecache.Options{})
	var times atomic.Int64
	taken := filepath.Join(dir, "blobs", "sha256", digestOf(1).Encoded())
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := c.Blob(t.Context(), digestOf(1), 1000, filling(1, &times))
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) || !strings.Contains(err.Error(), "another file") || times.Load() > 0 {
		t.Errorf("error %v, fetched %d times", err, times.Load())
	}
	if err := os.Remove(filepath.Join(taken, "x")); err != nil {
		t.Fatal(err)
	}
	mustBlob(t, c, 1, &times)
}

func TestDirectoriesThatAreRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(mode os.FileMode, below string) string {
		dir := filepath.Join(t.TempDir(), "cache")
		if err := os.MkdirAll(filepath.Join(dir, below), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, below), mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, c := range map[string]struct {
		dir    string
		reason string
	}{
		"our own":               {at(0o755, ""), ""},
		"a group's":             {at(0o775|os.ModeSetgid, ""), ""},
		"sticky for all":        {at(0o777|os.ModeSticky, ""), ""},
		"for all":               {at(0o777, ""), "sticky"},
		"a file":                {file, "not a directory"},
		"below a file":          {filepath.Join(file, "cache"), "not a directory"},
		"killed when half made": {at(0o700, "blobs"), ""},
	} {
		o, err := nodecache.Open(c.dir, nodecache.Options{})
		var refused *nodecache.DirError
		if c.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want, _ := os.Stat(c.dir)
			for _, part := range []string{"blobs/sha256", "partial", "locks"} {
				if got, err := os.Stat(filepath.Join(c.dir, part)); err != nil || got.Mode() != want.Mode() {
					t.Errorf("%s: %s has mode %v, %v", name, part, got.Mode(), err)
				}
			}
			_ = o.Close()
		} else if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatIsSpoiltInsideIsGonePast: whoever may write to the cache was there first.
func TestWhatIsSpoiltInsideIsGonePast(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(dir string) error
		reason string
	}{
		"a file":         {func(dir string) error { return os.WriteFile(filepath.Join(dir, "locks"), nil, 0o644) }, "no directory"},
		"a link":         {func(dir string) error { return os.Symlink(t.TempDir(), filepath.Join(dir, "blobs")) }, "no directory"},
		"open to all":    {func(dir string) error { return openDir(filepath.Join(dir, "partial")) }, "sticky"},
		"open to all, 2": {func(dir string) error { return openDir(filepath.Join(dir, "blobs", "sha256")) }, "sticky"},
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), c.spoil(dir)); err != nil {
			t.Fatal(err)
		}
		_, err := nodecache.Open(dir, nodecache.Options{})
		var unusable *nodecache.UnusableError
		if !errors.As(err, &unusable) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func openDir(dir string) error {
	return errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o777))
}

// TestACacheThatMovedIsNotTriedForEver: nothing that is locked below its name is what is in
// the open directory. What is there already can be read.
func TestACacheThatMovedIsNotTriedForEver(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "cache")
		c := open(t, dir, nodecache.Options{})
		var times atomic.Int64
		_ = mustBlob(t, c, 1, &times).Close()
		if err := os.Rename(dir, dir+".old"); err != nil {
			t.Fatal(err)
		}
		if again {
			open(t, dir, nodecache.Options{})
		}
		done := make(chan error, 1)
		go func() {
			_, err := c.Blob(t.Context(), digestOf(2), 1000, filling(2, &times))
			done <- err
		}()
		select {
		case err := <-done:
			var unusable *nodecache.UnusableError
			if !errors.As(err, &unusable) || times.Load() != 1 {
				t.Errorf("%v, fetched %d times", err, times.Load())
			}
		case <-time.After(30 * time.Second):
			t.Fatal("it is still trying")
		}
		_ = mustBlob(t, c, 1, &times).Close()
	}
}

// TestHangingFetchIsNotWaitedFor for ever, and one that moves is.
func TestHangingFetchIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	started, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		c, err := nodecache.Open(dir, nodecache.Options{})
		if err == nil {
			_, err = c.Blob(context.Background(), digestOf(1), 1000, func(f *os.File, kept int64, _ func()) error {
				close(started)
				<-end
				return filling(1, new(atomic.Int64))(f, kept, nil)
			})
		}
		done <- err
	}()
	<-started
	c := open(t, dir, nodecache.Options{Stall: 200 * time.Millisecond})
	_, err := c.Blob(t.Context(), digestOf(1), 1000, filling(1, new(atomic.Int64)))
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) || !strings.Contains(err.Error(), "without getting on") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if _, err := open(t, dir, nodecache.Options{}).Blob(ctx, digestOf(1), 1000, nil); !errors.Is(err, interrupted) {
		t.Errorf("%v", err)
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestReadersOfAWrongBlobAreNotWaitedFor for ever, and are not said to fetch it.
func TestReadersOfAWrongBlobAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reader, c := open(t, dir, nodecache.Options{}), open(t, dir, nodecache.Options{Stall: 200 * time.Millisecond})
	defer mustBlob(t, reader, 1, new(atomic.Int64)).Close() //nolint:errcheck // only read
	if !c.Drop(mustBlob(t, c, 1, new(atomic.Int64))) {
		t.Fatal("it could not be dropped")
	}
	_, err := c.Blob(t.Context(), digestOf(1), 1000, filling(1, new(atomic.Int64)))
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) || !strings.Contains(err.Error(), "other processes have been reading") {
		t.Errorf("%v", err)
	}
}

// TestAFetchThatReadsWhatIsKeptIsWaitedFor, though nothing grows meanwhile.
func TestAFetchThatReadsWhatIsKeptIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var clock atomic.Int64 // seconds
	now := func() time.Time { return time.Unix(1e9+clock.Load(), 0) }
	started, waited := make(chan struct{}), make(chan error, 1)
	go func() {
		<-started
		c, err := nodecache.Open(dir, nodecache.Options{Stall: 10 * time.Second, Now: now})
		if err == nil {
			defer c.Close()
			var e *nodecache.Entry
			if e, err = c.Blob(context.Background(), digestOf(1), 1000, func(*os.File, int64, func()) error { return errors.New("it was fetched twice") }); err == nil {
				err = e.Close()
			}
		}
		waited <- err
	}()
	e, err := open(t, dir, nodecache.Options{Now: now}).Blob(t.Context(), digestOf(1), 1000, func(f *os.File, kept int64, alive func()) error {
		if _, err := f.Write([]byte("a part")); err != nil {
			return err
		}
		close(started)
		for range 10 {
			time.Sleep(120 * time.Millisecond) // more than the other looks apart
			clock.Add(5)
			alive()
			select {
			case err := <-waited:
				return fmt.Errorf("the other has not waited: %w", err)
			default:
			}
		}
		return errors.Join(f.Truncate(0), filling(1, new(atomic.Int64))(f, 0, nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = e.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// TestWhatIsKeptIsSetAsideAlready: its blocks are, too, where they are taken at once.
func TestWhatIsKeptIsSetAsideAlready(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), nodecache.Options{})
	if n := c.Kept(digestOf(1)); n != 0 {
		t.Errorf("%d bytes of nothing", n)
	}
	broken := errors.New("the network is gone")
	_, err := c.Blob(t.Context(), digestOf(1), 1000, func(f *os.File, _ int64, _ func()) error {
		_, err := f.Write(content(1)[:400])
		return errors.Join(broken, err)
	})
	if n := c.Kept(digestOf(1)); !errors.Is(err, broken) || n < 400 {
		t.Errorf("%v, %d bytes are kept", err, n)
	}
}

// TestAWrongBlobOfManyReadersIsFetchedOnce: each of them finds it wrong and drops it, and
// one fetches it anew.
func TestAWrongBlobOfManyReadersIsFetchedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var times atomic.Int64
	_ = mustBlob(t, open(t, dir, nodecache.Options{}), 1, &times).Close()
	path := filepath.Join(dir, "blobs", "sha256", digestOf(1).Encoded())
	if err := os.WriteFile(path, content(2), 0o644); err != nil {
		t.Fatal(err)
	}
	const readers = 6
	var all, reading sync.WaitGroup
	reading.Add(readers)
	for range readers {
		c := open(t, dir, nodecache.Options{})
		all.Go(func() {
			e, err := c.Blob(t.Context(), digestOf(1), 1000, filling(1, &times))
			reading.Done()
			if err != nil {
				t.Error(err)
				return
			}
			reading.Wait()
			if !c.Drop(e) {
				t.Error("it could not be dropped")
			}
			again, err := c.Blob(t.Context(), digestOf(1), 1000, filling(1, &times))
			if err != nil {
				t.Error(err)
				return
			}
			defer again.Close()
			got, err := io.ReadAll(again.File())
			if err != nil || !bytes.Equal(got, content(1)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if n := times.Load(); n != 2 {
		t.Errorf("fetched %d times, want once before and once after", n)
	}
}
