// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
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
