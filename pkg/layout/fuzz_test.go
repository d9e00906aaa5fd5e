// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// typed wants a failure to be one that a caller can act on.
func typed(t *testing.T, err error) {
	t.Helper()
	var e *layout.Error
	var bad *signature.ManifestError
	if err != nil && !errors.As(err, &e) && !errors.As(err, &bad) {
		t.Fatalf("of no type: %v (%T)", err, err)
	}
	if err != nil && strings.ContainsAny(err.Error(), "\x00\x1b\n") {
		t.Fatalf("the error shows %q", err)
	}
}

// readAll reads what a layout says it holds, as a copy out of it does.
func readAll(t *testing.T, l *layout.Layout, want digest.Digest) {
	t.Helper()
	ctx := t.Context()
	for _, ref := range []layout.Reference{{Path: l.Name(), Tag: "v1"}, {Path: l.Name(), Digest: want}} {
		p, err := l.Resolve(ctx, ref)
		typed(t, err)
		if err != nil {
			continue
		}
		if p.Subject().Digest() != digest.FromBytes(p.Manifest()) || ref.Digest != "" && p.Subject().Digest() != want {
			t.Fatalf("%s is %s", ref, p.Subject())
		}
		for d, err := range l.Referrers(ctx, p.Subject()) {
			if typed(t, err); err == nil && (d.Digest.Validate() != nil || d.Digest == p.Subject().Digest()) {
				t.Fatalf("%s refers to %s", d.Digest, p.Subject())
			}
		}
		_, _, err = l.Classic(ctx, p.Subject())
		typed(t, err)
	}
}

// FuzzOpenTar opens any file as a tar of a layout.
func FuzzOpenTar(f *testing.F) {
	desc, raw := manifest("application/vnd.cncf.model.manifest.v1+json")
	blob := "blobs/sha256/" + desc.Digest.Encoded()
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"` + desc.MediaType + `","digest":"` + desc.Digest.String() + `","size":1,"annotations":{"` + ocispec.AnnotationRefName + `":"v1"}}]}`
	for _, members := range [][]string{
		{ocispec.ImageLayoutFile, version, blob, string(raw), ocispec.ImageIndexFile, index},
		{"./" + ocispec.ImageLayoutFile, version, ocispec.ImageIndexFile, index, blob, "other"},
		{ocispec.ImageLayoutFile, version, ocispec.ImageLayoutFile, version},
		{ocispec.ImageLayoutFile, version, "blobs/sha256/../../x", "y"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(members); i += 2 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: members[i], Mode: 0o644, Size: int64(len(members[i+1]))}); err != nil {
				f.Fatal(err)
			}
			if _, err := w.Write([]byte(members[i+1])); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
		f.Add(b.Bytes()[:b.Len()/2])
	}
	path := filepath.Join(f.TempDir(), "layout.tar")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := layout.Open(path)
		if typed(t, err); err != nil {
			return
		}
		defer l.Close()
		readAll(t, l, desc.Digest)
	})
}

// FuzzIndex reads a directory whose files are the fuzzer's, and then tags a
// manifest in it: what was listed stays listed.
func FuzzIndex(f *testing.F) {
	desc, raw := manifest("application/vnd.cncf.model.manifest.v1+json")
	entry := func(d digest.Digest, tag string) string {
		return `{"mediaType":"` + desc.MediaType + `","digest":"` + d.String() + `","size":1,"annotations":{"` + ocispec.AnnotationRefName + `":"` + tag + `"}}`
	}
	another := digest.FromString("another")
	f.Add([]byte(version), []byte(`{"manifests":[`+entry(desc.Digest, "v1")+`,`+entry(another, "v2")+`],"x":1}`), raw)
	f.Add([]byte(version), []byte(`{"manifests":[`+entry(desc.Digest, "v1")+`,`+entry(another, "v1")+`]}`), raw)
	f.Add([]byte(version), []byte(`{"manifests":[`+entry(another, strings.Replace(desc.Digest.String(), ":", "-", 1))+`]}`), []byte(`{}`))
	f.Add([]byte(`{"imageLayoutVersion":"2.0.0"}`), []byte("null"), []byte("[]"))
	f.Add([]byte(`{"imageLayoutVersion":"1"}`), []byte(`{"manifests":{}}`), []byte(nil))
	// A file of the right size and other bytes, under the name of what is written.
	f.Add([]byte(version), []byte(`{"manifests":[]}`), bytes.Replace(raw, []byte("schema"), []byte("Schema"), 1))
	f.Fuzz(func(t *testing.T, version, index, blob []byte) {
		dir := t.TempDir()
		write(t, dir, map[string]string{ocispec.ImageLayoutFile: string(version), ocispec.ImageIndexFile: string(index),
			"blobs/sha256/" + desc.Digest.Encoded(): string(blob)})
		l, err := layout.Open(dir)
		if typed(t, err); err != nil {
			return
		}
		defer l.Close()
		readAll(t, l, desc.Digest)
		p, err := l.PushManifest(t.Context(), desc.MediaType, raw)
		if err == nil {
			err = l.TagManifest(t.Context(), p, "fuzzed")
		}
		if typed(t, err); err != nil {
			return
		}
		written, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
		if err != nil {
			t.Fatal(err)
		}
		if now, err := l.Resolve(t.Context(), layout.Reference{Path: dir, Tag: "fuzzed"}); err != nil || now.Subject() != p.Subject() {
			t.Fatalf("tagged %s, found %s, %v", p.Subject(), now.Subject(), err)
		}
		after := entries(written)
		for e, n := range entries(index) {
			if e.tag != "fuzzed" && e != (listed{desc.Digest, ""}) && after[e] < n {
				t.Fatalf("%+v is lost: %s became %s", e, index, written)
			}
		}
	})
}

type listed struct {
	dgst digest.Digest
	tag  string
}

// entries counts what an index lists.
func entries(index []byte) map[listed]int {
	var x ocispec.Index
	all := map[listed]int{}
	if json.Unmarshal(index, &x) == nil {
		for _, d := range x.Manifests {
			all[listed{d.Digest, d.Annotations[ocispec.AnnotationRefName]}]++
		}
	}
	return all
}

// FuzzParseReference holds that a reference's text reads as the same one.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"d:v1", "/a/b.tar", "a:b/c", "d@sha256:" + strings.Repeat("a", 64), ":v1", "d:", "a@b@sha256:x", "d:v1:v2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := layout.ParseReference(s)
		var bad *layout.ReferenceError
		if err != nil {
			if !errors.As(err, &bad) {
				t.Fatalf("of no type: %v (%T)", err, err)
			}
			return
		}
		again, err := layout.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q is %+v, and its text %+v, %v", s, ref, again, err)
		}
		if ref.Tag != "" && layout.CheckTag(ref.Tag) != nil && !strings.HasPrefix(ref.Tag, "sha256-") {
			t.Fatalf("the tag %q", ref.Tag)
		}
	})
}
