// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// opened counts the requests for a blob to its end. Those for a part of it come from
// further connections, which a busy machine may make worth trying.
func opened(p *servertest.Proxy, d string) int {
	n := 0
	for _, r := range p.Requests() {
		part := r.Header.Get("Range")
		if r.Method == http.MethodGet && strings.Contains(r.Path, "/blobs/"+d) && (part == "" || strings.HasSuffix(part, "-")) {
			n++
		}
	}
	return n
}

// A copy goes on where a request broke, in pieces where no request may be large, and
// opens its source no more often than that takes.
func TestCopyGoesOnAfterFaults(t *testing.T) {
	t.Parallel()
	const patch = http.MethodPatch
	for title, c := range map[string]struct {
		faults []servertest.Fault
		bound  int64   // of a request
		most   float64 // of the size, in bytes sent
		opens  int
	}{
		"none":         {nil, 0, 1.01, 1},
		"cut":          {[]servertest.Fault{{Method: patch, CutBody: 12 << 20, Times: 1}, {Method: patch, CutBody: 5 << 20, Times: 1}}, 0, 1.25, 5}, // each time what was sent is compared first
		"answer lost":  {[]servertest.Fault{{Method: patch, Cut: true, Times: 1}}, 0, 1.1, 1},
		"session lost": {[]servertest.Fault{refusedCommit(404, 1)}, 0, 2.01, 2},
		"no chunks":    {[]servertest.Fault{{Method: patch, Status: 405}}, 0, 2.01, 2},
		"small bound":  {nil, 5 << 20, 1.01, 5},
	} {
		t.Run(title, func(t *testing.T) {
			onBothRegistries(t, func(t *testing.T, host string) {
				from, dir := refTo(t, host, "v1"), largeModel(t, 61)
				mustPush(t, newClient(t), from, dir, nil)
				source, dest := servertest.FaultProxy(t, host), servertest.FaultProxy(t, host)
				for _, f := range c.faults {
					dest.Fail(f)
				}
				pieces := 0
				dest.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != patch {
						return false
					}
					if c.bound > 0 && r.ContentLength > c.bound {
						w.WriteHeader(http.StatusRequestEntityTooLarge)
						return true
					}
					pieces++
					return false
				})
				to := parse(t, host+"/"+name(t)+"-copy:v1")
				got := copied(t, aegis.CopyOptions{From: via(source, from), To: via(dest, to)})
				if got.BytesCopied < largeFile {
					t.Errorf("%d bytes copied", got.BytesCopied)
				}
				if sent := float64(dest.Received()) / largeFile; sent < 1 || sent > c.most {
					t.Errorf("%.3f times the size was sent, want at most %.3f", sent, c.most)
				}
				if n := opened(source, blobOf(t, dir, "model.bin").String()); n < 1 || n > c.opens {
					t.Errorf("the source was opened %d times, want at most %d", n, c.opens)
				}
				if c.bound > 0 && pieces != largeFile>>22 {
					t.Errorf("%d pieces", pieces)
				}
				pulled(t, to, dir)
			})
		})
	}
}

// What a source has wrong is not committed, however it is sent.
func TestCopyCommitsNoLargeBlobThatIsAnother(t *testing.T) {
	t.Parallel()
	host, storage := servertest.Distribution(t)
	from, dir := refTo(t, host, "v1"), largeModel(t, 62)
	mustPush(t, newClient(t), from, dir, nil)
	bad := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: bad})
	blob := blobOf(t, dir, "model.bin")
	spoil(t, bad, blob)
	for name, faults := range map[string][]servertest.Fault{
		"in a session": nil, "in one request": {{Method: http.MethodPatch, Status: 405}},
	} {
		t.Run(name, func(t *testing.T) {
			dest := servertest.FaultProxy(t, host)
			for _, f := range faults {
				dest.Fail(f)
			}
			to := refTo(t, host, "v1")
			_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: bad, To: via(dest, to)})
			if e := wantErr[*model.ContentError](t, err); e.Want != blob {
				t.Errorf("another blob: %v", e)
			}
			if dest.Received() < largeFile/2 {
				t.Errorf("%d bytes were sent: the test tests nothing", dest.Received())
			}
			noTrace(t, to, dir)
			if left := uploads(t, storage); len(left) > 0 {
				t.Errorf("sessions are left: %q", left)
			}
		})
	}
}

// A file whose digest had to be found out first goes on where a request broke, like any
// other, and in the session that a registry opens in place of a mount.
func TestPushWithAMountGoesOnAfterFaults(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		ref, dir, proxy := refTo(t, host, "v1"), largeModel(t, 63), servertest.FaultProxy(t, host)
		// The first one is too long, and the second one is cut.
		proxy.Fail(servertest.Fault{Method: http.MethodPatch, Skip: 1, CutBody: 12 << 20, Times: 1})
		proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPatch && r.ContentLength > 16<<20 {
				_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return true
			}
			return false
		})
		got, err := newClient(t).Push(t.Context(), aegis.PushOptions{Ref: via(proxy, ref), Paths: []string{dir}, MountFrom: []string{"none/here"}})
		if err != nil {
			t.Fatal(err)
		}
		if sent := float64(proxy.Received()) / largeFile; got.BytesUploaded < largeFile || sent > 1.3 || got.Retries == 0 {
			t.Errorf("%d bytes uploaded, %.3f times the size was sent, %d retries", got.BytesUploaded, sent, got.Retries)
		}
		pulled(t, ref, dir)
	})
}
