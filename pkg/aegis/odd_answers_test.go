// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// TestOneOddAnswerEndsNoPull has one answer about a blob come from something else than the
// registry. It is asked again, and nothing that was fetched is fetched again.
func TestOneOddAnswerEndsNoPull(t *testing.T) {
	t.Parallel()
	page := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	for name, c := range map[string]struct {
		fault  servertest.Fault
		resume bool
	}{
		"a web page":              {servertest.Fault{Status: 200, Body: "<html>please log in</html>", Header: page}, false},
		"a web page on resume":    {servertest.Fault{Status: 200, Body: "<html>please log in</html>", Header: page}, true},
		"another length":          {servertest.Fault{Status: 200, Body: "x"}, false},
		"another length, resumed": {servertest.Fault{Status: 200, Body: "x"}, true},
		"416 on resume":           {servertest.Fault{Status: 416}, true},
		"another total on resume": {servertest.Fault{Status: 206, Body: "x", Header: http.Header{"Content-Range": {"bytes 40960-40960/40961"}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newMirrorRig(t, 263)
			weights := blobOf(t, r.dir, "weights/part-1.bin").String()
			if c.resume {
				r.origin.Fail(servertest.Fault{Path: weights, Cut: true, CutAfter: 40 << 10, Times: 1})
			}
			c.fault.Path, c.fault.Times = weights, 1
			r.origin.Fail(c.fault)
			r.arrives(t)
		})
	}
	t.Run("a web page without a length", func(t *testing.T) {
		r := newMirrorRig(t, 264)
		weights := blobOf(t, r.dir, "weights/part-1.bin").String()
		var n atomic.Int32
		r.origin.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, weights) || n.Add(1) != 1 {
				return false
			}
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>please log in</html>"))
			_ = http.NewResponseController(w).Flush()
			return true
		})
		r.arrives(t)
	})
}

// arrives pulls the model, of which each byte comes once.
func (r *mirrorRig) arrives(t *testing.T) {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "model")
	got, err := newClient(t).Pull(t.Context(), aegis.PullOptions{Ref: r.ref, Dir: dst}, requirement(r.key.Public(t)))
	if err != nil {
		t.Fatal(err)
	}
	sameModel(t, r.dir, dst)
	if n := r.origin.Count(blobOf(t, r.dir, "weights/part-1.bin").String()); got.BytesFetched > got.Size+1 || n < 2 {
		t.Errorf("%d bytes fetched of %d, the blob asked for %d times", got.BytesFetched, got.Size, n)
	}
}

// TestAnAnswerThatStaysOddIsTheLastWord: a registry whose blob has another size says so
// twice, and the model is refused.
func TestAnAnswerThatStaysOddIsTheLastWord(t *testing.T) {
	t.Parallel()
	r := newMirrorRig(t, 265)
	weights := blobOf(t, r.dir, "weights/part-1.bin").String()
	r.origin.Fail(servertest.Fault{Path: weights, Method: http.MethodGet, Status: 200, Body: "x"})
	parent := t.TempDir()
	_, err := newClient(t).Pull(t.Context(), aegis.PullOptions{Ref: r.ref, Dir: filepath.Join(parent, "model")}, requirement(r.key.Public(t)))
	wantErr[*model.ContentError](t, err)
	nothingIn(t, parent)
	if n := r.origin.Count(weights); n != 2 {
		t.Errorf("asked %d times, want twice", n)
	}
}
