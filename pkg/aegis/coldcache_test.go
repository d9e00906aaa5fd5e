// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// slowFront stands before a registry, gives each blob rate bytes a second, and counts.
type slowFront struct {
	url  string
	rate int64

	mu    sync.Mutex
	gets  map[digest.Digest]int
	bytes int64
}

func newSlowFront(t *testing.T, host string, rate int64) *slowFront {
	t.Helper()
	f := &slowFront{rate: rate, gets: make(map[digest.Digest]int)}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	proxy.FlushInterval = -1
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	proxy.ModifyResponse = func(resp *http.Response) error {
		if req := resp.Request; req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			f.mu.Lock()
			f.gets[digest.Digest(path.Base(req.URL.Path))]++
			f.mu.Unlock()
			resp.Body = &slowly{transfer.NewThrottle(f.rate, nil).Reader(req.Context(), resp.Body), f}
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

type slowly struct {
	io.ReadCloser
	front *slowFront
}

func (s *slowly) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.front.mu.Lock()
	s.front.bytes += int64(n)
	s.front.mu.Unlock()
	return n, err
}

// taken returns what was asked for since the last time, and the bytes of it.
func (f *slowFront) taken() (map[digest.Digest]int, int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gets, bytes := f.gets, f.bytes
	f.gets, f.bytes = make(map[digest.Digest]int), 0
	return gets, bytes
}

// TestColdCacheStoresWhatIsPulled: distribution stores a blob while it sends it, and only
// for whom it began with. A pull that broke off for ranges would leave it without.
func TestColdCacheStoresWhatIsPulled(t *testing.T) {
	t.Parallel()
	const files, size = 3, 24 << 20
	host, _ := servertest.Distribution(t)
	stored := refTo(t, host, "v1")
	content := map[string]string{"config.json": "{}"}
	for i := range files {
		content[fmt.Sprintf("w%d.bin", i)] = string(weights(uint64(900+i), size))
	}
	dir := writeModel(t, content)
	mustPush(t, newClient(t), stored, dir, nil)
	front := newSlowFront(t, host, 16<<20)
	cache, storage := servertest.Distribution(t, "proxy:\n  remoteurl: "+front.url+"\n")
	pull := func() {
		t.Helper()
		reg, err := registry.NewClient(registry.Options{Mirrors: []registry.Mirror{{URL: "http://" + cache}}})
		if err != nil {
			t.Fatal(err)
		}
		dst := filepath.Join(t.TempDir(), "m")
		if _, err := aegis.New(reg, aegis.Options{Concurrency: 2}).PullUnverified(t.Context(), aegis.PullOptions{Ref: stored, Dir: dst}); err != nil {
			t.Fatal(err)
		}
		sameModel(t, dir, dst)
	}

	pull()
	gets, bytes := front.taken()
	total := 0
	for i := range files {
		d := blobOf(t, dir, fmt.Sprintf("w%d.bin", i))
		total += gets[d]
		awaitStored(t, storage, stored, d)
	}
	// One question of a run is whether this cache sends ranges though it does not say so.
	if total < files || total > files+1 {
		t.Errorf("the registry was asked %d times for %d blobs: %v", total, files, gets)
	}
	if bytes > files*size*11/10 {
		t.Errorf("%d bytes came from the registry for %d", bytes, files*size)
	}
	t.Logf("%d requests and %d bytes for %d blobs of %d", total, bytes, files, files*size)

	pull()
	if gets, _ := front.taken(); len(gets) > 0 {
		t.Errorf("the cache asked the registry again: %v", gets)
	}
}

// awaitStored waits until a cache has a blob: its client has all bytes before.
func awaitStored(t *testing.T, storage string, ref registry.Reference, d digest.Digest) {
	t.Helper()
	link := filepath.Join(storage, "docker/registry/v2/repositories", ref.Repository, "_layers/sha256", d.Encoded(), "link")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(link); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Errorf("the cache did not store %s", d)
			return
		}
	}
}
