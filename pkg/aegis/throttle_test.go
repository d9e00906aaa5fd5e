// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
)

func TestLimitRateBoundsAllFilesOfAPushAndOfAPull(t *testing.T) {
	t.Parallel()
	dir := writeModel(t, map[string]string{
		"a.bin": string(weights(1, 1<<20)), "b.bin": string(weights(2, 1<<20)), "c.bin": string(weights(3, 1<<20)),
	})
	ref, dst := refTo(t, servertest.SharedStack(t).Registry, "v1"), filepath.Join(t.TempDir(), "m")
	c := newClient(t, func(o *aegis.Options) { o.LimitRate = 3 << 20 })
	timed := func(what string, move func() error) {
		t.Helper()
		start := time.Now()
		if err := move(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if took := time.Since(start); took < 900*time.Millisecond {
			t.Errorf("%s: 3 MiB at 3 MiB/s took %v", what, took)
		}
	}
	timed("push", func() error {
		_, err := c.Push(t.Context(), aegis.PushOptions{Ref: ref, Paths: []string{dir}})
		return err
	})
	timed("pull", func() error {
		_, err := c.PullUnverified(t.Context(), aegis.PullOptions{Ref: ref, Dir: dst})
		return err
	})
	sameModel(t, dir, dst)
}

// A copy is held to the rate whether it comes from a registry or goes to one.
func TestLimitRateBoundsACopy(t *testing.T) {
	t.Parallel()
	host, site := servertest.SharedStack(t).Registry, t.TempDir()
	from := refTo(t, host, "v1")
	dir := writeModel(t, map[string]string{"a.bin": string(weights(4, 1<<20)), "b.bin": string(weights(5, 2<<20))})
	writeWeights(t, filepath.Join(dir, "large.bin"), 6, 5<<20) // in a session
	mustPush(t, newClient(t), from, dir, nil)
	c := newClient(t, func(o *aegis.Options) { o.LimitRate = 8 << 20 })
	out := layout.Reference{Path: filepath.Join(site, "layout"), Tag: "v1"}
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	// Another name of the registry: nothing is mounted.
	elsewhere := via(servertest.FaultProxy(t, host), parse(t, host+"/"+name(t)+"-elsewhere:v1"))
	for _, o := range []aegis.CopyOptions{{From: from, To: out}, {From: out, To: to}, {From: from, To: elsewhere}} {
		start := time.Now()
		if _, err := c.Copy(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 900*time.Millisecond {
			t.Errorf("8 MiB at 8 MiB/s to %s took %v", o.To, took)
		}
	}
}

// A transfer that was cut and goes on is counted in a pull's result as in a push's.
func TestPullCountsTransfersThatWereCut(t *testing.T) {
	t.Parallel()
	ref, dir := refTo(t, servertest.SharedStack(t).Registry, "v1"), modelDir(t, 65)
	mustPush(t, newClient(t), ref, dir, nil)
	proxy := servertest.FaultProxy(t, ref.Registry)
	const cuts = 2
	proxy.Fail(servertest.Fault{Method: http.MethodGet, Path: blobOf(t, dir, "weights/part-1.bin").String(), Cut: true, CutAfter: 1000, Times: cuts})
	dst := filepath.Join(t.TempDir(), "m")
	got, err := newClient(t).PullUnverified(t.Context(), aegis.PullOptions{Ref: via(proxy, ref), Dir: dst})
	if err != nil || got.Retries != cuts {
		t.Errorf("%d retries, %v", got.Retries, err)
	}
	sameModel(t, dir, dst)
}

// What an interrupted pull kept comes once more from a registry without ranges: it is
// fetched, at the rate that is allowed, and said to be.
func TestPullWithoutRangesCountsWhatItDiscards(t *testing.T) {
	t.Parallel()
	// Too little is left for parts to be asked for, which a busy machine may make worth
	// trying: the first range is asked for after the cut.
	const size, kept = 15 << 20, 12 << 20
	host, _ := servertest.Distribution(t)
	ref, dir, proxy := refTo(t, host, "v1"), t.TempDir(), servertest.FaultProxy(t, host)
	writeWeights(t, filepath.Join(dir, "model.bin"), 64, size)
	mustPush(t, newClient(t), ref, dir, nil)
	dst, path := filepath.Join(t.TempDir(), "m"), "/blobs/"+blobOf(t, dir, "model.bin").String()
	ctx, interrupt := context.WithCancel(t.Context())
	proxy.Fail(servertest.Fault{Method: http.MethodGet, Path: path, Cut: true, CutAfter: kept, Times: 1})
	proxy.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" {
			interrupt()
		}
		return false
	})
	if _, err := newClient(t).PullUnverified(ctx, aegis.PullOptions{Ref: via(proxy, ref), Dir: dst}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	proxy.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	})
	slow := newClient(t, func(o *aegis.Options) { o.LimitRate = size })
	began := time.Now()
	got, err := slow.PullUnverified(t.Context(), aegis.PullOptions{Ref: via(proxy, ref), Dir: dst})
	if err != nil {
		t.Fatal(err)
	}
	if got.BytesReused < kept/2 || got.BytesFetched < size || got.BytesFetched > size+1<<20 {
		t.Errorf("%d bytes reused, %d fetched", got.BytesReused, got.BytesFetched)
	}
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("15 MiB at 15 MiB/s took %v", took)
	}
	sameModel(t, dir, dst)
}
