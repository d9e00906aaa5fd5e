// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// freshKey says in a connection's context that it was opened when others had gone silent.
type freshKey struct{}

// TestATransferThatStalledGoesOnOnANewConnection: those that are kept are as silent.
func TestATransferThatStalledGoesOnOnANewConnection(t *testing.T) {
	t.Parallel()
	const kept = 3
	content := bytes.Repeat([]byte("x"), 100_000)
	var silent atomic.Bool
	var stale atomic.Int32
	var meet, fetched sync.WaitGroup
	meet.Add(kept)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fresh, _ := req.Context().Value(freshKey{}).(bool)
		switch {
		case fresh:
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
		case !silent.Load():
			meet.Done()
			meet.Wait()
			_, _ = w.Write(content)
		default:
			if stale.Add(1) == 1 {
				w.Header().Set("Content-Length", "100000")
				_, _ = w.Write(content[:1000])
				_ = http.NewResponseController(w).Flush()
			}
			<-req.Context().Done()
		}
	}))
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, freshKey{}, silent.Load())
	}
	srv.Start()
	t.Cleanup(srv.Close)
	client, err := registry.NewClient(registry.Options{AnswerTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(strings.TrimPrefix(srv.URL, "http://") + "/m")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := client.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	for range kept {
		fetched.Go(func() {
			if _, err := repo.FetchBlob(t.Context(), desc, desc.Size); err != nil {
				t.Error(err)
			}
		})
	}
	fetched.Wait()
	silent.Store(true)
	body, err := New(client, Options{RetryBudget: 2 * time.Second}).fetcher(repo).Fetch(t.Context(), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, content) || stale.Load() != 1 {
		t.Errorf("%d bytes, %v; %d requests to silent connections, want 1", len(got), err, stale.Load())
	}
}
