// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package nodecache_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

func TestPrunedByLastUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var times atomic.Int64
	// Files take whole blocks of the disk.
	probe := open(t, t.TempDir(), nodecache.Options{})
	info, err := mustBlob(t, probe, 1, &times).File().Stat()
	if err != nil {
		t.Fatal(err)
	}
	each := max(info.Size(), info.Sys().(*syscall.Stat_t).Blocks*512)

	c := open(t, dir, nodecache.Options{MaxSize: 3 * each})
	age := func(n int, ago time.Duration) {
		t.Helper()
		for _, part := range []string{"locks", "blobs/sha256"} {
			if err := os.Chtimes(filepath.Join(dir, part, digestOf(n).Encoded()), time.Time{}, time.Now().Add(-ago)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := 1; n <= 3; n++ {
		_ = mustBlob(t, c, n, &times).Close()
		age(n, time.Duration(10-n)*time.Minute)
	}
	// The oldest is used again, and the second oldest is in use.
	_ = mustBlob(t, c, 1, &times).Close()
	inUse := mustBlob(t, c, 2, &times)
	age(2, time.Hour)
	if times.Load() != 4 {
		t.Fatalf("%d fetches before anything was pruned", times.Load()-1)
	}
	_ = mustBlob(t, c, 4, &times).Close()
	has := func(want ...int) {
		t.Helper()
		got := names(t, dir, "blobs/sha256")
		for _, n := range want {
			if !strings.Contains(strings.Join(got, " "), digestOf(n).Encoded()) {
				t.Errorf("blob %d is gone", n)
			}
		}
		if len(got) != len(want) || len(names(t, dir, "locks")) > len(want) {
			t.Errorf("%d blobs and %d locks, want %d", len(got), len(names(t, dir, "locks")), len(want))
		}
	}
	has(1, 2, 4)
	// A part that nobody fetches any more goes as well.
	old := filepath.Join(dir, "partial", digestOf(5).Encoded()+"."+strconv.Itoa(os.Geteuid()+1))
	if err := os.WriteFile(old, content(5), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	_ = mustBlob(t, c, 6, &times).Close()
	if has(2, 4, 6); len(names(t, dir, "partial")) > 0 {
		t.Errorf("the part is still there")
	}
	// Everything in use: it is fetched past the cache.
	second, third := mustBlob(t, c, 4, &times), mustBlob(t, c, 6, &times)
	_, err = c.Blob(t.Context(), digestOf(7), 1000, filling(7, &times))
	var unusable *nodecache.UnusableError
	if !errors.As(err, &unusable) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
	for _, e := range []*nodecache.Entry{inUse, second, third} {
		_ = e.Close()
	}
	small := open(t, dir, nodecache.Options{MaxSize: 999})
	if _, err = small.Blob(t.Context(), digestOf(7), 1000, filling(7, &times)); !errors.As(err, &unusable) {
		t.Errorf("%v", err)
	}
	if err := small.Close(); err != nil || len(names(t, dir, "blobs/sha256")) != 0 {
		t.Errorf("%v, and there is %q", err, names(t, dir, "blobs/sha256"))
	}
}

// TestBlobsOfOnePullStayWithinTheSize though they begin at the same time.
func TestBlobsOfOnePullStayWithinTheSize(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := open(t, t.TempDir(), nodecache.Options{MaxSize: 2500})
		var fetched atomic.Int64
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				e, err := c.Blob(t.Context(), digestOf(n), 1000, func(f *os.File, _ int64, _ func()) error {
					fetched.Add(1)
					time.Sleep(time.Millisecond)
					_, err := f.Write(content(n))
					return err
				})
				var full *nodecache.UnusableError
				if err == nil {
					// Held, so that it is not pruned for another one.
					t.Cleanup(func() { _ = e.Close() })
				} else if !errors.As(err, &full) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := fetched.Load(); n < 1 || n > 2 {
			t.Fatalf("%d blobs were fetched into a cache for two", n)
		}
	}
}
