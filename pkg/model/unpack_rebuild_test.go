// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestReplaceTakesAnArchiveOfTheOldModel: what both have comes out of its files, when they
// are what they were, and else from the registry.
func TestReplaceTakesAnArchiveOfTheOldModel(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	old := newArtifact().file("version", []byte("one")).layer(tarType, raw, nil)
	next := newArtifact().file("version", []byte("two!")).file("more", []byte("more")).layer(tarType, raw, nil)
	want["version"], want["more"] = "two!", "more"
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	size := int64(len(raw))
	const others = int64(len("two!") + len("more"))
	for name, c := range map[string]struct {
		spoil  func(dst string) error
		cutAt  int64 // of a run before
		reused int64
	}{
		"as it was":            {nil, 0, size},
		"some of it is staged": {nil, 300_000, size},
		"a file changed": {func(dst string) error {
			return os.WriteFile(filepath.Join(dst, "large.bin"), make([]byte, 400_000), 0o644)
		}, 0, 0},
		"a file longer": {func(dst string) error {
			return os.WriteFile(filepath.Join(dst, "large.bin"), append([]byte(want["large.bin"]), 0), 0o644)
		}, 0, 0},
		"a file missing": {func(dst string) error { return os.Remove(filepath.Join(dst, "third.bin")) }, 0, 0},
		"a file a link": {func(dst string) error {
			p := filepath.Join(dst, "third.bin")
			return errors.Join(os.Rename(p, p+"x"), os.Symlink("third.binx", p))
		}, 0, 0},
		"skeleton missing": {func(dst string) error { return os.RemoveAll(filepath.Join(dst, layersDir)) }, 0, 0},
		"skeleton noise":   {func(dst string) error { return os.WriteFile(skeletonOf(dst), random(5000), 0o644) }, 0, 0},
		"skeleton shorter": {func(dst string) error { return os.Truncate(skeletonOf(dst), 600) }, 0, 0},
		"skeleton too long": {func(dst string) error {
			b, err := os.ReadFile(skeletonOf(dst))
			return errors.Join(err, os.WriteFile(skeletonOf(dst), append(b, random(5000)...), 0o644))
		}, 0, size},
		"changed, and some is staged": {func(dst string) error { return os.Remove(filepath.Join(dst, "third.bin")) }, 300_000, 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst := filepath.Join(t.TempDir(), "m")
			install(t, old, dst)
			f := next.fetcher()
			if c.cutAt > 0 {
				u := newUnpacking(f, v, m, dst, UnpackOptions{})
				f.serve = cutAfter(c.cutAt)
				s, err := openSite(t.Context(), dst, silent)
				must(t, err, s.begin(m.subject.Digest()))
				if err := u.fetchAll(t.Context(), s, u.blobs(), nil); !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				// Of the small ones nothing is kept, so that only the archive counts.
				for _, b := range u.blobs() {
					if !b.pieces {
						must(t, s.root.RemoveAll(b.file()))
					}
				}
				s.leave(false)
				f = next.fetcher()
			}
			if c.spoil != nil {
				must(t, c.spoil(dst))
			}
			res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: true})
			if err != nil || res.BytesReused != c.reused || res.BytesFetched != size-c.reused+others {
				t.Fatalf("%+v, %v; want %d used again of %d", res, err, c.reused, size)
			}
			for _, call := range f.calls {
				if call.digest == digest.FromBytes(raw) && c.reused == size {
					t.Error("the archive was fetched")
				}
			}
			got := names(t, dst)
			delete(got, evidenceDir+"/")
			if !maps.Equal(got, want) {
				t.Errorf("unpacked %d names, want %d", len(got), len(want))
			}
			installed, err := OpenInstalled(dst)
			must(t, err)
			_, err = installed.Check(t.Context(), v, CheckOptions{})
			must(t, err)
			wantOnly(t, filepath.Dir(dst), "m")
		})
	}
}

// TestReplaceWithEmptyPieces goes on where a loss of power has left files of no bytes.
func TestReplaceWithEmptyPieces(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	old := newArtifact().file("version", []byte("one")).layer(tarType, raw, nil)
	next := newArtifact().layer(tarType, raw, nil)
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	for _, replaced := range []bool{true, false} {
		dst := filepath.Join(t.TempDir(), "m")
		if replaced {
			install(t, old, dst)
		} else {
			mkdir(t, dst)
		}
		s, err := openSite(t.Context(), dst, silent)
		must(t, err, s.begin(m.subject.Digest()), s.root.Mkdir(piecesDir(digest.FromBytes(raw)), 0o700))
		for n := range 3 {
			must(t, os.WriteFile(filepath.Join(s.stagingPath(), pieceFile(digest.FromBytes(raw), n)), nil, 0o600))
		}
		s.leave(false)
		if _, err := Unpack(t.Context(), next.fetcher(), v, m, dst, UnpackOptions{Replace: true}); err != nil {
			t.Fatalf("replaced %t: %v", replaced, err)
		}
		wantTree(t, dst, want)
	}
}

// TestAnInterruptIsNoWordAboutTheOldModel.
func TestAnInterruptIsNoWordAboutTheOldModel(t *testing.T) {
	t.Parallel()
	raw, _ := pieceTar(t)
	dst := filepath.Join(t.TempDir(), "m")
	install(t, newArtifact().file("version", []byte("one")).layer(tarType, raw, nil), dst)
	must(t, os.WriteFile(skeletonOf(dst), random(5000), 0o644))
	root, err := os.OpenRoot(dst)
	must(t, err)
	defer root.Close()
	l := Layer{index: 1, Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(raw)}}
	var unusable *rebuildError
	if err := rebuildArchive(t.Context(), root, l, false, io.Discard); !errors.As(err, &unusable) || rejected(err) {
		t.Errorf("error %v (%T)", err, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	w := writerFunc(func(p []byte) (int, error) { cancel(stopped); return len(p), nil })
	if err := rebuildArchive(ctx, root, l, false, w); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// skeletonOf is that of the second layer.
func skeletonOf(dst string) string {
	return filepath.Join(dst, filepath.FromSlash(skeletonName(Layer{index: 1})))
}
