// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

const largeFile = 20 << 20

// largeModel has one file that is hashed while it is sent, and a small one.
func largeModel(t testing.TB, seed uint64) string {
	t.Helper()
	dir := writeModel(t, map[string]string{"config.json": `{"model_type": "test"}`})
	writeWeights(t, filepath.Join(dir, "model.bin"), seed, largeFile)
	return dir
}

// loneFile has the large one alone, for tests of what is left behind: of a session whose
// POST was interrupted nobody learns the name, and distribution can fail to remove one
// whose PUT was.
func loneFile(t testing.TB, seed uint64) string {
	t.Helper()
	dir := t.TempDir()
	writeWeights(t, filepath.Join(dir, "model.bin"), seed, largeFile)
	return dir
}

// uploads lists what is left of sessions in a storage of distribution. A state of
// its hash it writes once more after it has removed a session that was cancelled.
func uploads(t testing.TB, storage string) []string {
	t.Helper()
	var left []string
	err := filepath.WalkDir(storage, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "/_uploads/") && !strings.Contains(path, "/hashstates/") {
			left = append(left, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// noTrace fails when a push has left a tag, a manifest or a blob of the model.
func noTrace(t testing.TB, ref registry.Reference, dir string) {
	t.Helper()
	repo := repository(t, ref)
	if d, ok, err := repo.ResolveTag(t.Context(), ref.Tag); err != nil || ok {
		t.Errorf("the tag names %s (%v)", d, err)
	}
	p, err := model.Pack(t.Context(), []string{dir}, model.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repository(t, byDigest(ref, p.Subject().Digest())).Resolve(t.Context()); err == nil {
		t.Error("the manifest is there")
	}
	for _, b := range p.Blobs() {
		if b.Path != "model.bin" {
			continue
		}
		if there, err := repo.BlobExists(t.Context(), b.Descriptor); err != nil || there {
			t.Errorf("the blob of %s is there: %v, %v", b.Path, there, err)
		}
	}
}

func pulled(t testing.TB, ref registry.Reference, dir string) {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := newClient(t).PullUnverified(t.Context(), aegis.PullOptions{Ref: ref, Dir: dst}); err != nil {
		t.Fatal(err)
	}
	sameModel(t, dir, dst)
}

// refusedCommit answers the PUT that ends the large file of largeModel, so many times,
// or always for zero. The small file's comes before it.
func refusedCommit(status, times int) servertest.Fault {
	return servertest.Fault{Method: http.MethodPut, Path: "/blobs/uploads/", Skip: 1, Status: status, Times: times}
}

// A push survives what happens to its requests, and sends little twice.
func TestPushGoesOnAfterFaults(t *testing.T) {
	t.Parallel()
	const patch, put = http.MethodPatch, http.MethodPut
	// The first session is lost at the end, and the second one cut at each sixth of the file.
	lostAndCut := []servertest.Fault{refusedCommit(404, 1)}
	for range 6 {
		lostAndCut = append(lostAndCut, servertest.Fault{Method: patch, Skip: 1, CutBody: 3 << 20, Times: 1})
	}
	for name, c := range map[string]struct {
		faults []servertest.Fault
		most   float64 // of the size, in bytes sent
		retry  bool
	}{
		"none":                    {nil, 1.01, false},
		"cut on the way":          {[]servertest.Fault{{Method: patch, CutBody: 12 << 20, Times: 1}, {Method: patch, CutBody: 5 << 20, Times: 1}}, 1.1, true},
		"cut at once":             {[]servertest.Fault{{Method: patch, CutBody: 1, Times: 1}}, 1.35, true},
		"overloaded":              {[]servertest.Fault{{Method: patch, Status: 429, Times: 1, Header: http.Header{"Retry-After": {"1"}}}}, 2.01, true},
		"unavailable":             {[]servertest.Fault{{Method: patch, Status: 503, Times: 1}}, 2.01, true},
		"overloaded for long":     {[]servertest.Fault{{Method: patch, Status: 429, Times: 5}}, 6.01, true},
		"commit put off for long": {[]servertest.Fault{refusedCommit(503, 5)}, 1.1, true},
		"commit refused in step":  {[]servertest.Fault{refusedCommit(400, 1)}, 2.01, true},
		"refused in step":         {[]servertest.Fault{{Method: patch, CutBody: 5 << 20, Times: 1}, {Method: patch, Status: 409, Times: 1}}, 2.1, true},
		"lost, and cut often":     {lostAndCut, 2.2, true},
		"answer lost":             {[]servertest.Fault{{Method: patch, Cut: true, Times: 1}}, 1.1, true},
		"commit lost":             {[]servertest.Fault{{Method: put, Path: "/blobs/uploads/", Skip: 1, Cut: true, Times: 1}}, 1.1, false},
		"commit refused once":     {[]servertest.Fault{refusedCommit(503, 1)}, 1.1, true},
		"status not told":         {[]servertest.Fault{{Method: patch, CutBody: 5 << 20, Times: 1}, {Method: http.MethodGet, Path: "/blobs/uploads/", Status: 404, Times: 1}}, 1.35, true},
		"status without range":    {[]servertest.Fault{{Method: patch, CutBody: 5 << 20, Times: 1}, {Method: http.MethodGet, Path: "/blobs/uploads/", Header: http.Header{"Range": nil}, Times: 1}}, 1.35, true},
		"status ahead of us":      {[]servertest.Fault{{Method: patch, CutBody: 5 << 20, Times: 1}, {Method: http.MethodGet, Path: "/blobs/uploads/", Header: http.Header{"Range": {"0-99999999"}}, Times: 1}}, 1.35, true},
		"status of other bytes":   {[]servertest.Fault{{Method: patch, CutBody: 18 << 20, Times: 1}, {Method: http.MethodGet, Path: "/blobs/uploads/", Header: http.Header{"Range": {"0-999999"}}, Times: 2}}, 1.6, true},
		"session lost":            {[]servertest.Fault{refusedCommit(404, 1)}, 2.01, true},
		"no chunks: 404":          {[]servertest.Fault{{Method: patch, Status: 404}}, 2.01, false},
		"no chunks: 405":          {[]servertest.Fault{{Method: patch, Status: 405}}, 2.01, false},
		"no chunks: 416":          {[]servertest.Fault{{Method: patch, Status: 416}}, 2.01, false},
		"answer without range":    {[]servertest.Fault{{Method: patch, Header: http.Header{"Range": nil}}}, 1.01, false},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, "for long") {
				t.Parallel() // it waits most of the time
			}
			onBothRegistries(t, func(t *testing.T, host string) {
				ref, dir, proxy := refTo(t, host, "v1"), largeModel(t, 7), servertest.FaultProxy(t, host)
				for _, f := range c.faults {
					proxy.Fail(f)
				}
				patient := func(o *aegis.Options) { o.RetryBudget = 2 * time.Minute }
				got := mustPush(t, newClient(t, patient), via(proxy, ref), dir, nil)
				if sent := float64(proxy.Received()) / largeFile; sent < 1 || sent > c.most {
					t.Errorf("%.3f times the size was sent, want at most %.3f", sent, c.most)
				}
				if (got.Retries > 0) != c.retry {
					t.Errorf("%d retries", got.Retries)
				}
				if got.BytesUploaded < largeFile {
					t.Errorf("%d bytes uploaded", got.BytesUploaded)
				}
				pulled(t, ref, dir)
			})
		})
	}
}

// TestPushGoesOnWhereItWasPutOff: that a registry is busy says nothing of the offset, which
// is asked for again as it was.
func TestPushGoesOnWhereItWasPutOff(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		ref, dir, proxy := refTo(t, host, "v1"), largeModel(t, 7), servertest.FaultProxy(t, host)
		proxy.Fail(servertest.Fault{Method: http.MethodPatch, CutBody: 12 << 20, Times: 1})
		proxy.Fail(servertest.Fault{Method: http.MethodPatch, Status: http.StatusServiceUnavailable, Times: 2})
		mustPush(t, newClient(t), via(proxy, ref), dir, nil)
		var from []string
		for _, r := range proxy.Requests() {
			if r.Method == http.MethodPatch {
				first, _, _ := strings.Cut(r.Header.Get("Content-Range"), "-")
				from = append(from, first)
			}
		}
		if len(from) != 4 || from[0] != "0" || from[1] == "0" || from[1] != from[2] || from[1] != from[3] {
			t.Errorf("it went on from %q", from)
		}
		pulled(t, ref, dir)
	})
}

// overwrite changes the second half of a file in its place.
func overwrite(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, largeFile/2), largeFile/2)
	return errors.Join(err, f.Close())
}

// The retry budget is for failing, not for the time that a large file takes.
func TestPushDoesNotCountTheTimeInWhichBytesFlow(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	ref, dir, proxy := refTo(t, host, "v1"), largeModel(t, 12), servertest.FaultProxy(t, host)
	proxy.Fail(servertest.Fault{Method: http.MethodPatch, CutBody: 12 << 20, Times: 1})
	const budget = 800 * time.Millisecond
	c := newClient(t, func(o *aegis.Options) { o.RetryBudget, o.LimitRate = budget, 10<<20 })
	began := time.Now()
	if got := mustPush(t, c, via(proxy, ref), dir, nil); got.Retries == 0 || time.Since(began) < 2*budget {
		t.Errorf("%d retries in %v: the test tests nothing", got.Retries, time.Since(began))
	}
	pulled(t, ref, dir)
}

// A proxy in front of a registry may take no request as large as a model.
func TestPushSendsPiecesWhereRequestsAreBounded(t *testing.T) {
	t.Parallel()
	const size, mib = 80 << 20, 1 << 20
	for name, c := range map[string]struct {
		most, piece int64
		least       string
		fails       bool
	}{
		"free":     {most: 33 * mib, piece: 32 * mib},
		"32 MiB":   {most: 33 * mib, piece: 32 * mib, least: "33554432"},
		"40 MiB":   {most: 33 * mib, least: "41943040", fails: true},
		"smallest": {most: 5 * mib, piece: 4 * mib},
		"too few":  {most: 3 * mib, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			host, storage := servertest.Distribution(t)
			ref, dir, proxy := refTo(t, host, "v1"), sparse(t, size), servertest.FaultProxy(t, host)
			if c.least != "" {
				proxy.Fail(servertest.Fault{Method: http.MethodPost, Header: http.Header{"OCI-Chunk-Min-Length": {c.least}}})
			}
			var taken []int64
			proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPatch {
					return false
				}
				if r.ContentLength > c.most {
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					return true
				}
				taken = append(taken, r.ContentLength)
				return false
			})
			_, err := newClient(t).Push(t.Context(), aegis.PushOptions{Ref: via(proxy, ref), Paths: []string{dir}})
			if c.fails {
				wantRegistryErr(t, err, registry.TooLarge)
				noTrace(t, ref, dir)
			} else if err != nil {
				t.Fatal(err)
			} else if n := (size + c.piece - 1) / c.piece; int64(len(taken)) != n || taken[0] != c.piece || taken[n-1] != size-(n-1)*c.piece {
				t.Errorf("pieces of %d bytes", taken)
			} else {
				pulled(t, ref, dir)
			}
			if left := uploads(t, storage); len(left) > 0 {
				t.Errorf("sessions are left: %q", left)
			}
		})
	}
}

// A push that fails leaves no session, no blob under its digest, and no tag.
func TestFailedPushLeavesNothing(t *testing.T) {
	t.Parallel()
	impatient := func(o *aegis.Options) { o.RetryBudget = 300 * time.Millisecond }
	for name, c := range map[string]struct {
		fault servertest.Fault
		kind  registry.Kind
	}{
		"denied":             {servertest.Fault{Method: http.MethodPatch, Status: 403}, registry.Denied},
		"always unavailable": {servertest.Fault{Method: http.MethodPatch, Status: 503}, registry.Unavailable},
		"a long wait":        {servertest.Fault{Method: http.MethodPatch, Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, registry.RateLimited},
		"always cut":         {servertest.Fault{Method: http.MethodPatch, CutBody: 1 << 20}, registry.Unreachable},
		"commit denied":      {refusedCommit(403, 0), registry.Denied},
		"commit refused":     {refusedCommit(400, 0), registry.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			host, storage := servertest.Distribution(t)
			ref, dir, proxy := refTo(t, host, "v1"), largeModel(t, 8), servertest.FaultProxy(t, host)
			proxy.Fail(c.fault)
			if name == "always cut" {
				// The registry gets a part once. What is cut after that does not reach it, so
				// that there is no progress.
				var patches atomic.Int64
				proxy.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodPatch && patches.Add(1) > 1 {
						io.CopyN(io.Discard, r.Body, 1<<20) //nolint:errcheck // it is cut in any case
						panic(http.ErrAbortHandler)
					}
					return false
				})
			}
			_, err := newClient(t, impatient).Push(t.Context(), aegis.PushOptions{Ref: via(proxy, ref), Paths: []string{dir}})
			wantRegistryErr(t, err, c.kind)
			noTrace(t, ref, dir)
			if left := uploads(t, storage); len(left) > 0 {
				t.Errorf("sessions are left: %q", left)
			}
			// A refusal of what was sent whole is final when it comes again.
			if sent := float64(proxy.Received()) / largeFile; name == "commit refused" && sent > 2.01 {
				t.Errorf("%.3f times the size was sent", sent)
			}
		})
	}
}

// What is interrupted cleans up behind itself.
func TestInterruptedPushCancelsItsSession(t *testing.T) {
	t.Parallel()
	host, storage := servertest.Distribution(t)
	ref, dir, proxy := refTo(t, host, "v1"), loneFile(t, 9), servertest.FaultProxy(t, host)
	ctx, interrupt := context.WithCancel(t.Context())
	proxy.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			interrupt()
		}
		return false
	})
	_, err := newClient(t).Push(ctx, aegis.PushOptions{Ref: via(proxy, ref), Paths: []string{dir}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	noTrace(t, ref, dir)
	if left := uploads(t, storage); len(left) > 0 {
		t.Errorf("sessions are left: %q", left)
	}
}

// A file that changes while it is sent is an error, whatever the change.
func TestPushRefusesAFileThatChangesWhileItIsSent(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(file string) error{
		"grows":    func(f string) error { return appendTo(f) },
		"shrinks":  func(f string) error { return os.Truncate(f, largeFile/2) },
		"touched":  func(f string) error { return os.Chtimes(f, time.Now(), time.Now().Add(time.Second)) },
		"replaced": func(f string) error { return replaceBySame(f) },
		"removed":  os.Remove,
		"rewritten with its old time": func(f string) error {
			info, err := os.Stat(f)
			if err != nil {
				return err
			}
			if err := overwrite(f); err != nil {
				return err
			}
			return os.Chtimes(f, time.Time{}, info.ModTime())
		},
		"rewritten": func(f string) error {
			return os.WriteFile(f, make([]byte, largeFile), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			host, storage := servertest.Distribution(t)
			ref, dir, proxy := refTo(t, host, "v1"), loneFile(t, 10), servertest.FaultProxy(t, host)
			file := filepath.Join(dir, "model.bin")
			before := blobOf(t, dir, "model.bin")
			proxy.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPatch {
					if err := change(file); err != nil {
						t.Error(err)
					}
				}
				return false
			})
			_, err := newClient(t).Push(t.Context(), aegis.PushOptions{Ref: via(proxy, ref), Paths: []string{dir}})
			if e := wantErr[*model.ChangedError](t, err); e.Path != "model.bin" {
				t.Errorf("error %+v", e)
			}
			repo := repository(t, ref)
			if _, ok, err := repo.ResolveTag(t.Context(), "v1"); err != nil || ok {
				t.Errorf("it is tagged (%v)", err)
			}
			if n := proxy.Count("/manifests/"); n > 0 {
				t.Errorf("%d requests for manifests", n)
			}
			for _, d := range blobsIn(t, storage) {
				if d == before || blobSize(t, storage, d) >= largeFile/2 {
					t.Errorf("blob %s is committed", d)
				}
			}
			if left := uploads(t, storage); len(left) > 0 {
				t.Errorf("sessions are left: %q", left)
			}
		})
	}
}

func appendTo(file string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

// replaceBySame puts a file of the same content and time in the place of file.
func replaceBySame(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(file+".new", content, 0o644),
		os.Chtimes(file+".new", info.ModTime(), info.ModTime()), os.Rename(file+".new", file))
}

// blobsIn lists the blobs in a storage of distribution.
func blobsIn(t testing.TB, storage string) []digest.Digest {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(storage, "docker/registry/v2/blobs/sha256/*/*/data"))
	if err != nil {
		t.Fatal(err)
	}
	var out []digest.Digest
	for _, f := range found {
		out = append(out, digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(filepath.Dir(f))))
	}
	return out
}

func blobSize(t testing.TB, storage string, d digest.Digest) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(storage, "docker/registry/v2/blobs/sha256", d.Encoded()[:2], d.Encoded(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// On a slow network, what the registry has already is found out long before it
// would have been sent again.
func TestPushOnASlowNetworkHashesAhead(t *testing.T) {
	t.Parallel()
	const size = 120 << 20
	host, storage := servertest.Distribution(t)
	ref, dir, proxy := refTo(t, host, "v1"), sparse(t, size), servertest.FaultProxy(t, host)
	first := mustPush(t, newClient(t), ref, dir, nil)
	slow := newClient(t, func(o *aegis.Options) { o.LimitRate = 8 << 20 })
	got := mustPush(t, slow, via(proxy, ref), dir, nil)
	if got.Digest != first.Digest || got.BytesUploaded != 0 {
		t.Errorf("pushed %s with %d bytes uploaded, want %s without any", got.Digest, got.BytesUploaded, first.Digest)
	}
	if sent := proxy.Received(); sent == 0 || sent > size/2 {
		t.Errorf("%d bytes were sent", sent)
	}
	if left := uploads(t, storage); len(left) > 0 {
		t.Errorf("sessions are left: %q", left)
	}
}

// Links to one file are one blob, sent once.
func TestPushSendsALinkedFileOnce(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	ref, dir, proxy := refTo(t, host, "v1"), largeModel(t, 11), servertest.FaultProxy(t, host)
	if err := os.Symlink("model.bin", filepath.Join(dir, "again.bin")); err != nil {
		t.Fatal(err)
	}
	mustPush(t, newClient(t), via(proxy, ref), dir, nil)
	if sent := proxy.Received(); sent > largeFile*11/10 {
		t.Errorf("%d bytes were sent", sent)
	}
	pulled(t, ref, dir)
}
