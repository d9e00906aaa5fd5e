// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// sample is a model with a file in every situation that raw layers have.
func sample() *artifact {
	a := newArtifact()
	a.file("model.onnx", random(2<<20+17))
	a.file("sub dir/späße.txt", []byte("hello"))
	a.file("sub dir/empty", nil)
	a.file("copy.onnx", random(2<<20+17))
	a.layer(modelspec.MediaTypeModelCodeRaw, []byte("#!/bin/sh\n"), map[string]string{
		modelspec.AnnotationFilepath: "run.sh", modelspec.AnnotationFileMetadata: `{"name":"run.sh","mode":493,"size":10,"typeflag":0}`,
	})
	return a
}

func sampleNames() map[string]string {
	return map[string]string{
		"model.onnx": string(random(2<<20 + 17)), "copy.onnx": string(random(2<<20 + 17)),
		"sub dir/": "dir", "sub dir/späße.txt": "hello", "sub dir/empty": "", "run.sh": "#!/bin/sh\n",
	}
}

// install unpacks a as if signed at testNow.
func install(t *testing.T, a *artifact, dst string) UnpackResult {
	t.Helper()
	v, m := a.decode(t)
	res, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestUnpackInstallsAllFilesAndTheEvidence(t *testing.T) {
	for _, where := range []string{"missing", "empty", "mount"} {
		t.Run(where, func(t *testing.T) {
			parent := t.TempDir()
			dst := filepath.Join(parent, "deep", "er", "model")
			if where != "missing" {
				mkdir(t, dst)
			}
			if where == "mount" {
				mkdir(t, filepath.Join(dst, "lost+found"))
				mkdir(t, filepath.Join(dst, ".snapshot"))
			}
			a := sample()
			v, m := a.decode(t)
			f := a.fetcher()
			res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Now: func() time.Time { return testNow }})
			if err != nil {
				t.Fatal(err)
			}
			want := UnpackResult{Path: dst, Files: 5, Size: 2*(2<<20+17) + 15, BytesFetched: 2<<20 + 17 + 15}
			if res != want {
				t.Errorf("result %+v, want %+v", res, want)
			}
			got := names(t, dst)
			delete(got, "lost+found/")
			delete(got, ".snapshot/")
			if !maps.Equal(got, sampleNames()) {
				t.Errorf("the directory holds %v", keys(got))
			}
			wantOnly(t, filepath.Dir(dst), "model")
			checkModes(t, dst)
			checkInstalled(t, dst, v, 5)
		})
	}
}

func keys(m map[string]string) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func checkModes(t *testing.T, dst string) {
	t.Helper()
	for name, want := range map[string]fs.FileMode{
		"": 0o755, "sub dir": 0o755, "model.onnx": 0o644, "run.sh": 0o755, ".aegis": 0o755, ".aegis/receipt.json": 0o644,
	} {
		info, err := os.Stat(filepath.Join(dst, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
}

// checkInstalled opens dst as verify --dir does and expects it to be whole.
func checkInstalled(t *testing.T, dst string, v verify.Verified, files int) {
	t.Helper()
	i, err := OpenInstalled(dst)
	if err != nil {
		t.Fatal(err)
	}
	got, err := i.Check(t.Context(), v, CheckOptions{})
	if err != nil || got.Files != files {
		t.Fatalf("Check = %+v, %v; want %d files", got, err, files)
	}
	sigs := i.Signatures()
	a := v.Accepted()[0]
	if len(sigs) != 1 || !bytes.Equal(sigs[0].Envelope, a.Envelope) || !bytes.Equal(sigs[0].Manifest, a.ManifestBytes) ||
		sigs[0].EnvelopeMediaType != a.EnvelopeMediaType || i.MediaType() != ocispec.MediaTypeImageManifest {
		t.Errorf("the evidence is not the accepted signature: %+v", sigs)
	}
}

func TestUnpackUnverifiedLeavesNoReceipt(t *testing.T) {
	a := sample()
	raw, s := a.raw(t)
	m, err := DecodeUnverified(s, raw)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := UnpackUnverified(t.Context(), a.fetcher(), m, dst, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dst); !maps.Equal(got, sampleNames()) {
		t.Errorf("the directory holds %v", keys(got))
	}
	wantOnly(t, dst, "copy.onnx", "model.onnx", "run.sh", "sub dir")
	var not *NotInstalledError
	if _, err := OpenInstalled(dst); !errors.As(err, &not) {
		t.Errorf("OpenInstalled: %v, want a NotInstalledError", err)
	}
}

func TestUnpackRefusesWhatWasNotVerified(t *testing.T) {
	a, b := sample(), newArtifact().file("other", []byte("x"))
	v, _ := a.decode(t)
	_, m := b.decode(t)
	parent := t.TempDir()
	var content *ContentError
	if _, err := Unpack(t.Context(), b.fetcher(), v, m, filepath.Join(parent, "m"), UnpackOptions{}); !errors.As(err, &content) {
		t.Errorf("another manifest: %v", err)
	}
	if _, err := Unpack(t.Context(), b.fetcher(), verify.Verified{}, m, filepath.Join(parent, "m"), UnpackOptions{}); err == nil {
		t.Error("the zero Verified unpacked a model")
	}
	if _, err := Unpack(t.Context(), b.fetcher(), verify.Verified{}, Manifest{}, filepath.Join(parent, "m"), UnpackOptions{}); err == nil {
		t.Error("the zero Verified unpacked the zero Manifest")
	}
	if _, err := UnpackUnverified(t.Context(), b.fetcher(), Manifest{}, filepath.Join(parent, "m"), UnpackOptions{}); err == nil {
		t.Error("the zero Manifest was unpacked")
	}
	wantOnly(t, parent)
}

// A rejection leaves nothing, in neither kind of destination, and neither on the
// second try: a damaged file of the right size must not pass for a finished one.
func TestUnpackRejectsTamperedContentAndLeavesNothing(t *testing.T) {
	flip := func(b []byte) []byte {
		if len(b) > 0 {
			b[len(b)/2] ^= 1
		}
		return b
	}
	for name, change := range map[string]func([]byte) []byte{
		"same size": flip,
		"longer":    func(b []byte) []byte { return append(b, 'x') },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArtifact().file("a", random(100)).file("b", random(2<<20))
			v, m := a.decode(t)
			parent := t.TempDir()
			empty := filepath.Join(parent, "empty")
			mkdir(t, empty)
			for range 2 {
				for _, dst := range []string{filepath.Join(parent, "new", "m"), empty} {
					f := a.fetcher()
					f.serve = serveAs(change)
					_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
					var content *ContentError
					if !errors.As(err, &content) {
						t.Fatalf("error %v, want a ContentError", err)
					}
				}
				wantOnly(t, parent, "empty")
				wantOnly(t, empty)
			}
		})
	}
}

func TestUnpackNeverWritesPastTheDescriptor(t *testing.T) {
	a := newArtifact().file("a", random(10))
	v, m := a.decode(t)
	f := a.fetcher()
	f.serve = func(_ ocispec.Descriptor, content []byte, _ int64) (io.ReadCloser, error) {
		return f.count(io.NopCloser(io.MultiReader(bytes.NewReader(content), zeros{t.Context()}))), nil
	}
	_, err := Unpack(t.Context(), f, v, m, filepath.Join(t.TempDir(), "m"), UnpackOptions{})
	var content *ContentError
	if !errors.As(err, &content) {
		t.Fatalf("error %v, want a ContentError", err)
	}
	if f.bytes > 11 {
		t.Errorf("%d bytes were read of a layer of 10", f.bytes)
	}
}

func TestUnpackKeepsWhatCameBeforeACut(t *testing.T) {
	content := random(5000)
	for at := int64(0); at <= 5000; at += 250 {
		for _, inside := range []bool{false, true} {
			parent := t.TempDir()
			dst := filepath.Join(parent, "m")
			if inside {
				mkdir(t, dst)
			}
			a := newArtifact().file("a", content)
			v, m := a.decode(t)
			f := a.fetcher()
			f.serve = cutAfter(at)
			if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); at < 5000 && !errors.Is(err, errCut) {
				t.Fatalf("cut at %d: %v", at, err)
			}
			if at < 5000 && exists(filepath.Join(dst, "a")) {
				t.Fatalf("cut at %d: the final name exists", at)
			}
			f.serve = nil
			res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
			if err != nil {
				t.Fatalf("resume at %d: %v", at, err)
			}
			if at < 5000 && (res.BytesReused != at || res.BytesFetched != 5000-at) {
				t.Errorf("cut at %d: %+v", at, res)
			}
			wantOnly(t, parent, "m")
			wantOnly(t, dst, ".aegis", "a")
			checkInstalled(t, dst, v, 1)
		}
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func TestUnpackReportsAShortLayer(t *testing.T) {
	a := newArtifact().file("a", random(5000))
	v, m := a.decode(t)
	dst := filepath.Join(t.TempDir(), "m")
	f := a.fetcher()
	f.serve = serveAs(func(b []byte) []byte { return b[:1234] })
	_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	var short *ShortError
	if !errors.As(err, &short) || short.Got != 1234 || short.Want != 5000 {
		t.Fatalf("error %v, want a ShortError of 1234 of 5000 bytes", err)
	}
	wantOnly(t, filepath.Dir(dst))
}

func TestUnpackNoResumeKeepsNothing(t *testing.T) {
	a := newArtifact().file("a", random(5000))
	v, m := a.decode(t)
	parent := t.TempDir()
	f := a.fetcher()
	f.serve = cutAfter(3000)
	_, err := Unpack(t.Context(), f, v, m, filepath.Join(parent, "x", "m"), UnpackOptions{NoResume: true})
	if !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	wantOnly(t, parent)
}

// Nor in a cache, of which a later run with it uses nothing.
func TestUnpackNoResumeKeepsNothingInTheCache(t *testing.T) {
	a := newArtifact().file("a", random(5000))
	v, m := a.decode(t)
	dir := t.TempDir()
	cache, err := nodecache.Open(dir, nodecache.Options{})
	must(t, err)
	pull := func(f *fetcher, noResume bool) error {
		_, err := Unpack(t.Context(), f, v, m, filepath.Join(t.TempDir(), "m"), UnpackOptions{NoResume: noResume, Cache: cache})
		return err
	}
	partial := func() int {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(dir, "partial"))
		must(t, err)
		return len(entries)
	}
	for _, noResume := range []bool{true, false} {
		f := a.fetcher()
		f.serve = cutAfter(3000)
		if err := pull(f, noResume); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if n := partial(); (n == 0) != noResume {
			t.Errorf("no resume %v: %d partial files", noResume, n)
		}
	}
	f := a.fetcher()
	must(t, pull(f, true))
	if f.bytes < 5000 {
		t.Errorf("%d bytes were fetched", f.bytes)
	}
}

// Kept bytes that somebody changed are fetched again, and staged files that are
// not plainly ours are not used at all.
func TestUnpackDoesNotTrustStagedBytes(t *testing.T) {
	a := newArtifact().file("a", random(5000))
	v, m := a.decode(t)
	partial := func(dst string) string {
		return filepath.Join(filepath.Dir(dst), stagingBeside("m"), blobFile(m.layers[0].Descriptor.Digest))
	}
	for name, spoil := range map[string]func(t *testing.T, p, canary string){
		"changed": func(t *testing.T, p, _ string) { writeFile(t, p, string(make([]byte, 3000))) },
		"whole but changed": func(t *testing.T, p, _ string) {
			writeFile(t, p, string(make([]byte, 5000)))
		},
		"too long": func(t *testing.T, p, _ string) { writeFile(t, p, string(make([]byte, 9000))) },
		"symlink": func(t *testing.T, p, canary string) {
			must(t, os.Remove(p), os.Symlink(canary, p))
		},
		"hard link":   func(t *testing.T, p, canary string) { must(t, os.Remove(p), os.Link(canary, p)) },
		"a directory": func(t *testing.T, p, _ string) { must(t, os.Remove(p), os.Mkdir(p, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dst := filepath.Join(parent, "m")
			canary := filepath.Join(parent, "canary")
			writeFile(t, canary, "untouched")
			f := a.fetcher()
			f.serve = cutAfter(3000)
			if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			spoil(t, partial(dst), canary)
			f.serve = nil
			if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(canary); string(got) != "untouched" {
				t.Errorf("the canary now holds %q", got)
			}
			checkInstalled(t, dst, v, 1)
			wantOnly(t, parent, "canary", "m")
		})
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestUnpackRefusesAForeignStagingPlace(t *testing.T) {
	a := newArtifact().file("a", random(10))
	v, m := a.decode(t)
	parent := t.TempDir()
	elsewhere := t.TempDir()
	must(t, os.Symlink(elsewhere, filepath.Join(parent, stagingBeside("m"))))
	_, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(parent, "m"), UnpackOptions{})
	var locked *LockedError
	if !errors.As(err, &locked) {
		t.Errorf("error %v, want a LockedError", err)
	}
	wantOnly(t, elsewhere)
	if exists(filepath.Join(parent, "m")) {
		t.Error("the destination exists")
	}
}

func TestUnpackCancelStopsABlockedReader(t *testing.T) {
	a := newArtifact().file("a", random(5000))
	v, m := a.decode(t)
	dst := filepath.Join(t.TempDir(), "m")
	ctx, cancel := context.WithCancel(t.Context())
	f := a.fetcher()
	f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		pr, pw := io.Pipe()
		go func() {
			pw.Write(content[offset:1000]) //nolint:errcheck
			cancel()
		}()
		return pr, nil
	}
	_, err := Unpack(ctx, f, v, m, dst, UnpackOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	if exists(dst) {
		t.Error("the destination exists")
	}
	f.serve = nil
	res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	if err != nil || res.BytesReused != 1000 {
		t.Errorf("resume: %+v, %v", res, err)
	}
}
