// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// TestCopyRefusesWhatTheRegistryIsKnownToRefuse: a layer above the limit that a registry
// documents is refused before anything is sent, and not when all of it was.
func TestCopyRefusesWhatTheRegistryIsKnownToRefuse(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	ref, content := refTo(t, host, "v1"), []byte("no 20 GB")
	repo := repository(t, ref)
	layer := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
	pushContent(t, repo, layer, content)
	pushContent(t, repo, ocispec.DescriptorEmptyJSON, []byte("{}"))
	layer.Size, layer.Annotations = 20_000_000_000, map[string]string{ocispec.AnnotationTitle: "model.safetensors"}
	raw, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	made, err := repo.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		t.Fatal(err)
	}

	var sent atomic.Int64
	var there atomic.Bool
	to := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead {
			sent.Add(1)
		}
		if there.Load() && strings.Contains(r.URL.Path, layer.Digest.String()) {
			w.Header().Set("Content-Length", strconv.FormatInt(layer.Size, 10))
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(to.Close)
	into, err := registry.NewClient(registry.Options{Sleep: noWait, InsecureSkipTLS: true, Resolve: []string{"ghcr.io:443:" + to.Listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	o := aegis.CopyOptions{From: byDigest(ref, made.Subject().Digest()), To: parse(t, "ghcr.io/a/b:v1"), Into: into}
	_, err = newClient(t).Copy(t.Context(), o)
	if e := wantErr[*aegis.LayerLimitError](t, err); e.Path != "model.safetensors" || e.Size != layer.Size || e.Limit != 10_000_000_000 {
		t.Errorf("error %+v", e)
	}
	if n := sent.Load(); n > 0 {
		t.Errorf("%d requests that write", n)
	}

	// What is there already is not sent: the copy fails later, at a registry that takes nothing.
	there.Store(true)
	if _, err = newClient(t).Copy(t.Context(), o); err == nil || errors.As(err, new(*aegis.LayerLimitError)) {
		t.Errorf("a layer that is there is refused: %v", err)
	}
}
