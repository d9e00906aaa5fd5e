// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// attached adds a manifest that refers to s.
func attached(t testing.TB, l *layout.Layout, s signature.Subject, note string) signature.Subject {
	t.Helper()
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.note","config":{},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"note":%q}}`,
		ocispec.MediaTypeImageManifest, s.MediaType(), s.Digest(), s.Size(), note)
	if _, err := l.Attach(t.Context(), s, ocispec.MediaTypeImageManifest, raw); err != nil {
		t.Fatal(err)
	}
	made, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// referring is what the layout lists for s.
func referring(t testing.TB, l *layout.Layout, s signature.Subject) (all []ocispec.Descriptor) {
	t.Helper()
	for desc, err := range l.Referrers(t.Context(), s) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, desc)
	}
	return all
}

func digests(all []ocispec.Descriptor) (of []digest.Digest) {
	for _, desc := range all {
		of = append(of, desc.Digest)
	}
	return of
}

func layoutIn(t testing.TB, dir string) (*layout.Layout, signature.Subject) {
	t.Helper()
	l, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	desc, raw := manifest("application/vnd.model")
	p, err := l.PushManifest(t.Context(), desc.MediaType, raw)
	if err != nil {
		t.Fatal(err)
	}
	return l, p.Subject()
}

// TestReferrersReadsEachManifestOnceForAll: a manifest that was read for one subject is
// not read for another, or each of n would be read n times.
func TestReferrersReadsEachManifestOnceForAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, model := layoutIn(t, dir)
	first := attached(t, l, model, "first")
	second := attached(t, l, first, "second")
	if got := referring(t, l, model); len(got) != 1 || got[0].Digest != first.Digest() || got[0].Annotations["note"] != "first" || got[0].ArtifactType != "application/vnd.note" {
		t.Errorf("%+v", got)
	}
	// What cannot be read is listed for whatever it may refer to: so it would be seen.
	if err := os.Remove(filepath.Join(dir, "blobs/sha256", model.Digest().Encoded())); err != nil {
		t.Fatal(err)
	}
	if got := digests(referring(t, l, first)); !slices.Equal(got, []digest.Digest{second.Digest()}) {
		t.Errorf("%v", got)
	}
}

// TestReferrersSeesWhatIsWrittenMeanwhile: by this process or by another, and with an
// index of the same size and time too.
func TestReferrersSeesWhatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, model := layoutIn(t, dir)
	want := []digest.Digest{attached(t, l, model, "0").Digest()}
	other, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i := range 4 {
		if got := digests(referring(t, l, model)); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		by := []*layout.Layout{l, other}[i%2]
		want = append(want, attached(t, by, model, fmt.Sprint(i+1)).Digest())
	}
	index := filepath.Join(dir, "index.json")
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	gone := strings.Replace(string(raw), want[4].String(), model.Digest().String(), 1)
	for content, n := range map[string]int{string(raw): 5, gone: 4} {
		if err := errors.Join(os.WriteFile(index, []byte(content), 0o644), os.Chtimes(index, now, now)); err != nil {
			t.Fatal(err)
		}
		if got := referring(t, l, model); len(got) != n {
			t.Errorf("%d are listed, want %d", len(got), n)
		}
	}
}

// endsAfter is a context that is over after so many looks at it.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks--; c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// TestReferrersEndWithTheirContext, whenever that ends: in the middle of a manifest, too.
func TestReferrersEndWithTheirContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, model := layoutIn(t, dir)
	for i := range 3 {
		attached(t, l, model, fmt.Sprint(i))
	}
	for looks := range 100 {
		l, err := layout.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = nil
		for desc, failed := range l.Referrers(&endsAfter{context.Background(), looks}, model) {
			if err = failed; err == nil && desc.Digest == "" {
				t.Fatalf("after %d looks: neither an entry nor an error", looks)
			}
			if err == nil {
				n++
			}
		}
		l.Close()
		if err == nil && n == 3 {
			if looks < 6 {
				t.Errorf("it looked %d times only", looks)
			}
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("after %d looks: %d entries, %v", looks, n, err)
		}
	}
	t.Error("it never ends")
}

// TestClassicSignaturesThatCosignSaved have no tag: for what was saved with them, and for
// nothing else. One that is added then goes under the tag, with those.
func TestClassicSignaturesThatCosignSaved(t *testing.T) {
	t.Parallel()
	l, other := layoutIn(t, t.TempDir())
	sig := []byte("signature")
	if _, err := l.PushBlob(t.Context(), descOf(sig), opener(sig)); err != nil {
		t.Fatal(err)
	}
	saved, raw := manifest("application/vnd.saved")
	model, err := l.PushManifest(t.Context(), saved.MediaType, raw)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := layoutIn(t, t.TempDir())
	listed, err := elsewhere.AppendClassic(t.Context(), model.Subject(), descOf(sig))
	if err != nil {
		t.Fatal(err)
	}
	was := filepath.Join(elsewhere.Name(), "blobs/sha256", listed.Encoded())
	raw, err = os.ReadFile(was)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(l.Name(), "index.json")
	content, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	mark := func(d digest.Digest, kind string) {
		t.Helper()
		entry := fmt.Sprintf(`"digest":%q`, d)
		content = []byte(strings.Replace(string(content), entry, entry+fmt.Sprintf(`,"annotations":{"kind":"dev.cosignproject.cosign/%s"}`, kind), 1))
		if err := os.WriteFile(index, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mark(saved.Digest, "image")
	mark(listed, "sigs")
	if desc, found, err := l.Classic(t.Context(), model.Subject()); err != nil || !found || desc.Digest != listed {
		t.Errorf("%+v %v %v", desc, found, err)
	}
	if desc, found, err := l.Classic(t.Context(), other); err != nil || found {
		t.Errorf("they are not of this one: %+v %v", desc, err)
	}
	of := content
	mark(other.Digest(), "image") // in a merged index nothing says of which they are
	for _, s := range []signature.Subject{model.Subject(), other} {
		if desc, found, err := l.Classic(t.Context(), s); err != nil || found {
			t.Errorf("they are anybody's: %+v %v", desc, err)
		}
	}
	if err := os.WriteFile(index, of, 0o644); err != nil {
		t.Fatal(err)
	}
	added, err := l.AppendClassic(t.Context(), model.Subject(), descOf([]byte("another")))
	if err != nil {
		t.Fatal(err)
	}
	desc, _, err := l.Classic(t.Context(), model.Subject())
	if err != nil || desc.Digest != added {
		t.Fatalf("%+v %v", desc, err)
	}
	if raw, err = l.FetchManifest(t.Context(), desc); err != nil || !strings.Contains(string(raw), descOf(sig).Digest.String()) {
		t.Errorf("what cosign saved is lost: %s %v", raw, err)
	}
}
