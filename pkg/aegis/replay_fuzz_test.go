// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// recordOf is a record of a vector as Explain writes one, but for its conclusion.
func recordOf(t testing.TB, dir string, v vectors.Vector) aegis.Record {
	t.Helper()
	r := aegis.Record{
		Version: 1, Reference: v.Repository + ":v1", Repository: v.Repository, Time: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
		Policy:   aegis.RecordedPolicy{Kind: aegis.PolicyAegis, Document: string(v.Policy)},
		Evidence: aegis.Evidence{MediaType: ocispec.MediaTypeImageManifest, Manifest: []byte(v.Subject.Text), Files: map[string][]byte{}, Content: map[digest.Digest]aegis.RecordedContent{}},
	}
	files, err := filepath.Glob(filepath.Join(dir, "keys", "*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no keys: %v", err)
	}
	for _, file := range files {
		if r.Evidence.Files["keys/"+filepath.Base(file)], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	source := v.Source(t)
	for d := range source.Referrers(t.Context(), signature.Subject{}) {
		r.Evidence.Referrers = append(r.Evidence.Referrers, aegis.RecordedReferrer{
			MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations,
		})
	}
	for d, content := range source.Content() {
		r.Evidence.Content[d] = aegis.RecordedContent{Data: content}
	}
	return r
}

// TestReplayDecidesVectors: a record is decided as the vector says, whatever it
// says itself.
func TestReplayDecidesVectors(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t)
	for _, v := range vectors.Load(t, dir) {
		rec := recordOf(t, dir, v)
		rec.Decision = aegis.Decision{Outcome: "accepted", Signers: []string{"p256"}}
		raw, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if rec, err = aegis.ParseRecord(raw); err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		got, err := aegis.Replay(t.Context(), rec)
		want := map[string]string{"success": "accepted", "unsigned": "unsigned"}[v.Expect]
		if want == "" {
			want = "rejected"
		}
		if err != nil || got.Decision.Outcome != want || got.Same {
			t.Errorf("%s: %+v, %v, want %s and another conclusion than recorded", v.Name, got.Decision, err, want)
		}
	}
}

func FuzzReplay(f *testing.F) {
	dir := vectors.Dir(f)
	for _, v := range vectors.Load(f, dir) {
		raw, err := json.Marshal(recordOf(f, dir, v))
		if err != nil {
			f.Fatal(err)
		}
		if len(raw) < 64<<10 {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := aegis.ParseRecord(data)
		if err != nil {
			var bad *aegis.RecordError
			if !errors.As(err, &bad) || !reflect.DeepEqual(rec, aegis.Record{}) {
				t.Fatalf("refused with %#v and %+v", err, rec)
			}
			return
		}
		first, err := aegis.Replay(t.Context(), rec)
		if err != nil {
			if first.Same || first.Decision.Outcome != "" {
				t.Fatalf("%+v beside %v", first, err)
			}
			return
		}
		again, err := aegis.Replay(t.Context(), rec)
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Fatalf("decided again: %+v, then %+v, %v", first, again, err)
		}
		if first.Decision.Outcome == "accepted" != (first.Decision.Reason == "") || first.Decision.Outcome == "accepted" && len(first.Decision.Signers) == 0 {
			t.Fatalf("%+v", first.Decision)
		}
	})
}
