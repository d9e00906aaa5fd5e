// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

func TestDecodeRefusesPaths(t *testing.T) {
	for _, p := range []string{
		"", "/a", "../a", "a/../../b", "a/..", "./a", "a//b", "a/", `a\b`, `..\a`, "C:a", "c:/a", "a\x00b", "a\nb", "nul", "COM1.bin", "a.", "a ",
		".aegis", "d/.aegis/x", ".AEGIS-staging", "\u2024./a\x7f", "aegis~1", strings.Repeat("a", 256), strings.Repeat("a/", 2100) + "b",
	} {
		for _, key := range []string{modelspec.AnnotationFilepath, ocispec.AnnotationTitle, legacyFilepath} {
			a := newArtifact().layer("application/vnd.cncf.model.weight.v1.raw", []byte("x"), map[string]string{key: p})
			var pe *PathError
			if err := a.decodeError(t); !errors.As(err, &pe) {
				t.Errorf("%s=%q: %v, want a *PathError", key, p, err)
			}
		}
	}
}

func TestDecodeRefusesPathsThatMeet(t *testing.T) {
	for _, pair := range [][2]string{{"a", "a"}, {"a", "A"}, {"stra\u00dfe", "STRASSE"}, {"\u00e9", "e\u0301"}, {"a", "a/b"}, {"a/b", "a"}, {"D/x", "d/y"}} {
		a := newArtifact().file(pair[0], []byte("x")).file(pair[1], []byte("y"))
		var pe *PathError
		if err := a.decodeError(t); !errors.As(err, &pe) || pe.Path != pair[1] {
			t.Errorf("%q: %v, want a *PathError that names the second", pair, err)
		}
	}
	a := newArtifact().layer(modelspec.MediaTypeModelWeightRaw, []byte("x"), map[string]string{modelspec.AnnotationFilepath: "a", ocispec.AnnotationTitle: "b"})
	var pe *PathError
	if err := a.decodeError(t); !errors.As(err, &pe) {
		t.Errorf("two names for one layer: %v", err)
	}
}

func TestDecodeRefusesWhatDoesNotAddUp(t *testing.T) {
	change := func(f func(*ocispec.Manifest)) *artifact {
		a := newArtifact().file("a", []byte("x")).file("b", []byte("y"))
		f(&a.manifest)
		return a
	}
	meta := func(text string) *artifact {
		return change(func(m *ocispec.Manifest) { m.Layers[0].Annotations[modelspec.AnnotationFileMetadata] = text })
	}
	for name, a := range map[string]*artifact{
		"negative size":           change(func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }),
		"huge size":               change(func(m *ocispec.Manifest) { m.Layers[0].Size = 1 << 62 }),
		"sizes that overflow":     change(func(m *ocispec.Manifest) { m.Layers[0].Size, m.Layers[1].Size = maxModelSize, maxModelSize }),
		"two sizes of one digest": change(func(m *ocispec.Manifest) { m.Layers[1].Digest, m.Layers[1].Size = m.Layers[0].Digest, 7 }),
		"sha512":                  change(func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.SHA512.FromString("x") }),
		"no digest":               change(func(m *ocispec.Manifest) { m.Layers[0].Digest = "" }),
		"digest of a path":        change(func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../x" }),
		"config without a digest": change(func(m *ocispec.Manifest) { m.Config.Digest = "" }),
		"metadata of other size":  meta(`{"name":"a","mode":420,"size":2,"typeflag":0}`),
		"metadata of a link":      meta(`{"name":"a","mode":420,"size":1,"typeflag":50}`),
		"metadata twice":          meta(`{"mode":420,"mode":493}`),
		"metadata that is none":   meta(`[`),
	} {
		var me *signature.ManifestError
		var pe *PathError
		if err := a.decodeError(t); !errors.As(err, &me) && !errors.As(err, &pe) {
			t.Errorf("%s: %v (%T), want a *ManifestError or a *PathError", name, err, err)
		}
	}
}

func TestDecodeRefusesOtherBytes(t *testing.T) {
	raw, s := newArtifact().file("a", []byte("x")).raw(t)
	raw[len(raw)-2] ^= 1
	var ce *ContentError
	if _, err := DecodeUnverified(s, raw); !errors.As(err, &ce) || ce.Want != s.Digest() {
		t.Errorf("error %v, want a *ContentError", err)
	}
	var me *signature.ManifestError
	if _, err := DecodeUnverified(signature.Subject{}, raw); !errors.As(err, &me) {
		t.Errorf("error %v without a subject", err)
	}
	// The bound of every manifest is where it becomes a Subject.
	raw = append(raw, make([]byte, signature.MaxManifestSize)...)
	if _, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, raw); !errors.As(err, &me) {
		t.Errorf("a manifest of %d bytes: %v", len(raw), err)
	}
}

func TestUnknownLayersAreListedAndNotDropped(t *testing.T) {
	other := map[string]string{modelspec.AnnotationFilepath: "w.bin"}
	unknown := []string{"application/vnd.cncf.model.weight.v1.tar+lz4", "application/vnd.example.thing", "application/vnd.kitops.modelkit.code.v1.tar+br", "application/vnd.cncf.model.weight.v1.raw+gzip"}
	a := newArtifact().file("a", []byte("known"))
	a.layer(unknown[0], []byte("1"), nil).layer(unknown[1], []byte("2"), nil).layer(unknown[1], []byte("3"), nil).layer(unknown[2], []byte("4"), nil)
	// A name does not make a file of bytes in a compression that is not undone.
	a.layer(unknown[3], []byte("5"), other)
	v, m := a.decode(t)
	if !slices.Equal(m.Unknown(), unknown) {
		t.Errorf("unknown %q", m.Unknown())
	}
	parent := t.TempDir()
	dst := filepath.Join(parent, "m")
	f := a.fetcher()
	_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	var le *LayerError
	if !errors.As(err, &le) || !slices.Equal(le.MediaTypes, unknown) || len(f.calls) > 0 {
		t.Fatalf("error %v after %d requests, want a *LayerError", err, len(f.calls))
	}
	wantOnly(t, parent)

	var warned []string
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{SkipUnknown: true, Warn: func(s string) { warned = append(warned, s) }}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dst); got["a"] != "known" || got["w.bin"] != "" {
		t.Errorf("unpacked %v", got)
	}
	for _, typ := range unknown {
		if !strings.Contains(strings.Join(warned, "\n"), typ) {
			t.Errorf("%s was skipped silently", typ)
		}
	}
	installed, err := OpenInstalled(dst)
	must(t, err)
	if got, err := installed.Check(t.Context(), v, CheckOptions{}); err != nil || got.Files != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDecodeReadsWhatOthersWrite(t *testing.T) {
	for name, c := range map[string]struct {
		mediaType   string
		annotations map[string]string
		path        string
		executable  bool
	}{
		"plain oras push":     {"application/octet-stream", map[string]string{ocispec.AnnotationTitle: "w.bin"}, "w.bin", false},
		"cnai":                {"application/vnd.cnai.model.weight.v1.raw", map[string]string{legacyFilepath: "d/w.bin", legacyFileMetadata: `{"name":"w.bin","mode":493,"uid":0,"gid":0,"size":1,"mtime":"2026-01-01T00:00:00Z","typeflag":0}`}, "d/w.bin", true},
		"ModelPack":           {"application/vnd.cncf.model.code.v1.raw", map[string]string{modelspec.AnnotationFilepath: "run.py"}, "run.py", false},
		"a tarball as a file": {"application/vnd.oci.image.layer.v1.tar+gzip", map[string]string{ocispec.AnnotationTitle: "w.tar.gz"}, "w.tar.gz", false},
	} {
		_, m := newArtifact().layer(c.mediaType, []byte("x"), c.annotations).decode(t)
		if l := m.Layers(); len(l) != 1 || l[0].Path != c.path || l[0].Archive || l[0].Executable != c.executable {
			t.Errorf("%s: %+v, unknown %q", name, l, m.Unknown())
		}
	}
}
