// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"encoding/json"
	"net"
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
// documents is refused before anybody connects to it, and not when all of it was sent.
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

	var asked atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			conn.Close()
		}
	}()
	into, err := registry.NewClient(registry.Options{Sleep: noWait, Resolve: []string{"ghcr.io:443:" + listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newClient(t).Copy(t.Context(), aegis.CopyOptions{From: byDigest(ref, made.Subject().Digest()), To: parse(t, "ghcr.io/a/b:v1"), Into: into})
	if e := wantErr[*aegis.LayerLimitError](t, err); e.Path != "model.safetensors" || e.Size != layer.Size || e.Limit != 10_000_000_000 {
		t.Errorf("error %+v", e)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d connections to the destination", n)
	}
}
