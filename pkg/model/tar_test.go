// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tarOf writes an archive. A header without a type is a file with body's bytes.
func tarOf(t testing.TB, entries ...tarIn) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.body))
		}
		if h.Mode == 0 && h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type tarIn struct {
	tar.Header
	body string
}

func tarFileOf(name, body string) tarIn { return tarIn{tar.Header{Name: name}, body} }

func tarDirOf(name string) tarIn { return tarIn{tar.Header{Name: name, Typeflag: tar.TypeDir}, ""} }

func tarLinkOf(typ byte, name, target string) tarIn {
	return tarIn{tar.Header{Name: name, Linkname: target, Typeflag: typ}, ""}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(t, err, w.Close())
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	must(t, err)
	_, err = w.Write(b)
	must(t, err, w.Close())
	return out.Bytes()
}

// goodTar has what archives of models have: directories, an executable, links
// that stay inside, names with spaces.
func goodTar(t testing.TB) []byte {
	return tarOf(t,
		tarDirOf("./"), tarDirOf("./data/"), tarFileOf("./data/a b.bin", "weights"),
		tarIn{tar.Header{Name: "run.sh", Mode: 0o755}, "#!/bin/sh\n"},
		tarFileOf("deep/er/empty", ""),
		tarLinkOf(tar.TypeSymlink, "deep/er/up", "../../data/a b.bin"),
		tarLinkOf(tar.TypeSymlink, "latest", "data"),
		tarLinkOf(tar.TypeLink, "hard.bin", "./data/a b.bin"),
		tarIn{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, ""},
	)
}

var goodTree = map[string]string{
	"data/": "dir", "data/a b.bin": "weights", "run.sh": "#!/bin/sh\n", "deep/": "dir", "deep/er/": "dir", "deep/er/empty": "",
	"deep/er/up": "-> ../../data/a b.bin", "latest": "-> data", "hard.bin": "weights",
}

func TestUnpackDirectoryLayers(t *testing.T) {
	plain := goodTar(t)
	content := map[string]string{orasUnpack: "true", orasContentDigest: digest.FromBytes(plain).String(), ocispec.AnnotationTitle: "data"}
	for name, c := range map[string]struct {
		mediaType   string
		blob        []byte
		annotations map[string]string
		checkable   bool
	}{
		"tar":              {"application/vnd.cncf.model.weight.v1.tar", plain, nil, true},
		"tar+gzip":         {"application/vnd.cncf.model.dataset.v1.tar+gzip", gzipped(t, plain), nil, false},
		"tar+zstd":         {"application/vnd.cncf.model.weight.v1.tar+zstd", zstded(t, plain), nil, false},
		"cnai":             {"application/vnd.cnai.model.weight.v1.tar", plain, map[string]string{legacyFilepath: "data"}, true},
		"KitOps":           {"application/vnd.kitops.modelkit.model.v1.tar", plain, nil, true},
		"KitOps, gzip":     {"application/vnd.kitops.modelkit.dataset.v1.tar+gzip", gzipped(t, plain), nil, false},
		"oras":             {"application/vnd.oci.image.layer.v1.tar+gzip", gzipped(t, plain), content, true},
		"oras, other type": {"application/octet-stream", gzipped(t, plain), content, true},
		"oras, zstd":       {"application/vnd.oci.image.layer.v1.tar+zstd", zstded(t, plain), content, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArtifact().layer(c.mediaType, c.blob, c.annotations).file("beside.txt", []byte("raw"))
			v, m := a.decode(t)
			dst := filepath.Join(t.TempDir(), "m")
			var warned []string
			if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Warn: func(s string) { warned = append(warned, s) }}); err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(goodTree)
			want["beside.txt"] = "raw"
			got := names(t, dst)
			delete(got, evidenceDir+"/")
			if !maps.Equal(got, want) {
				t.Errorf("unpacked %v, want %v", got, want)
			}
			if info, err := os.Stat(filepath.Join(dst, "run.sh")); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("run.sh: %v, %v", info.Mode(), err)
			}
			installed, err := OpenInstalled(dst)
			must(t, err)
			_, err = installed.Check(t.Context(), v, CheckOptions{})
			var un *UncheckableError
			if c.checkable && err != nil || !c.checkable && (!errors.As(err, &un) || len(warned) != 1) {
				t.Errorf("check: %v, warnings %q", err, warned)
			}
			if !c.checkable {
				return
			}
			must(t, os.WriteFile(filepath.Join(dst, "data", "a b.bin"), []byte("WEIGHTS"), 0o644))
			var de *DirError
			if _, err = installed.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &de) {
				t.Errorf("a changed file of an archive passes: %v", err)
			}
		})
	}
}

// evilTars are archives of which nothing may be unpacked.
func evilTars(t testing.TB) map[string][]byte {
	file := tarFileOf
	sym := func(name, to string) tarIn { return tarLinkOf(tar.TypeSymlink, name, to) }
	hard := func(name, to string) tarIn { return tarLinkOf(tar.TypeLink, name, to) }
	node := func(typ byte) []byte { return tarOf(t, tarIn{tar.Header{Name: "n", Typeflag: typ}, ""}) }
	good := goodTar(t)
	return map[string][]byte{
		"absolute":                   tarOf(t, file("/canary/x", "x")),
		"climbs":                     tarOf(t, file("../canary/x", "x")),
		"climbs inside":              tarOf(t, file("a/../../canary/x", "x")),
		"climbs after a dot":         tarOf(t, file("./../canary/x", "x")),
		"climbing directory":         tarOf(t, tarDirOf("../canary/d/")),
		"backslashes":                tarOf(t, file(`..\canary\x`, "x")),
		"drive":                      tarOf(t, file("C:x", "x")),
		"device name":                tarOf(t, file("aux.txt", "x")),
		"reserved":                   tarOf(t, file(".aegis/receipt.json", "{}")),
		"reserved, other case":       tarOf(t, file("x/.AEGIS-staging", "{}")),
		"twice":                      tarOf(t, file("a", "x"), file("a", "y")),
		"twice but for case":         tarOf(t, file("a", "x"), file("A", "y")),
		"twice but for Unicode":      tarOf(t, file("\u00e9", "x"), file("e\u0301", "y")),
		"over a raw layer":           tarOf(t, file("beside.txt", "y")),
		"file needs to be directory": tarOf(t, file("beside.txt/y", "y")),
		"directory over a file":      tarOf(t, file("a", "x"), tarDirOf("a/")),
		"link out":                   tarOf(t, sym("l", "../canary")),
		"absolute link":              tarOf(t, sym("l", "/etc")),
		"link that climbs midway":    tarOf(t, tarDirOf("d/"), sym("l", "d/../../canary")),
		"link that climbs too far":   tarOf(t, sym("d/l", "../../canary")),
		"link to the top":            tarOf(t, sym("d/l", "..")),
		"link to nothing":            tarOf(t, sym("l", "")),
		"link to the receipt":        tarOf(t, sym("l", ".aegis/receipt.json")),
		"link to its own directory":  tarOf(t, sym("d/l", "../d")),
		"through a link":             tarOf(t, tarDirOf("d/"), sym("l", "d"), file("l/x", "x")),
		"through a link made a dir":  tarOf(t, sym("l", "d"), tarDirOf("l/"), file("l/x", "x")),
		"over a link":                tarOf(t, sym("l", "d"), file("l", "x")),
		"hard link out":              tarOf(t, hard("h", "../canary/keep")),
		"absolute hard link":         tarOf(t, hard("h", "/etc/passwd")),
		"hard link to a raw layer":   tarOf(t, hard("h", "beside.txt")),
		"hard link to a link":        tarOf(t, file("a", "x"), sym("l", "a"), hard("h", "l")),
		"hard link to what follows":  tarOf(t, hard("h", "a"), file("a", "x")),
		"pipe":                       node(tar.TypeFifo),
		"character device":           node(tar.TypeChar),
		"block device":               node(tar.TypeBlock),
		"unknown type":               node('X'),
		"cut in a header":            good[:700],
		"cut in a file":              tarOf(t, file("big", strings.Repeat("x", 5000)))[:2000],
		"no archive":                 bytes.Repeat([]byte("no tar "), 500),
	}
}

func TestUnpackRefusesEvilArchivesAndLeavesNothing(t *testing.T) {
	for name, archive := range evilTars(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for mediaType, blob := range map[string][]byte{
				"application/vnd.cncf.model.weight.v1.tar":         archive,
				"application/vnd.kitops.modelkit.code.v1.tar+gzip": gzipped(t, archive),
			} {
				refusedWithCanary(t, newArtifact().file("beside.txt", []byte("raw")).layer(mediaType, blob, nil), UnpackOptions{})
			}
		})
	}
}

// refusedWithCanary unpacks beside files that must not change, both to a
// destination that does not exist and into an empty one.
func refusedWithCanary(t *testing.T, a *artifact, o UnpackOptions) error {
	t.Helper()
	v, m := a.decode(t)
	parent := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(parent, "canary", "d"), 0o755), os.Mkdir(filepath.Join(parent, "empty"), 0o755))
	writeFile(t, filepath.Join(parent, "canary", "keep"), "kept")
	before := snapshot(t, parent)
	var err error
	for _, dst := range []string{"new", "empty"} {
		_, err = Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(parent, dst), o)
		var te *TarError
		var pe *PathError
		if !errors.As(err, &te) && !errors.As(err, &pe) {
			t.Errorf("error %v (%T), want a *TarError or a *PathError", err, err)
		}
		if after := snapshot(t, parent); !maps.Equal(before, after) {
			t.Errorf("into %s: %v became %v", dst, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
		}
	}
	return err
}

func TestUnpackBoundsWhatArchivesExpandTo(t *testing.T) {
	zeros := tarOf(t, tarFileOf("zeros", strings.Repeat("\x00", 4<<20)))
	var links []tarIn
	links = append(links, tarFileOf("a", strings.Repeat("x", 1<<20)))
	for i := range 64 {
		links = append(links, tarLinkOf(tar.TypeLink, fmt.Sprint("h", i), "a"))
	}
	trailing := append(tarOf(t, tarFileOf("a", "x")), make([]byte, 4<<20)...)
	for name, c := range map[string]struct {
		mediaType string
		blob      []byte
	}{
		"zeros":                    {"application/vnd.cncf.model.weight.v1.tar+gzip", gzipped(t, zeros)},
		"zeros, zstd":              {"application/vnd.cncf.model.weight.v1.tar+zstd", zstded(t, zeros)},
		"hard links":               {"application/vnd.cncf.model.weight.v1.tar+gzip", gzipped(t, tarOf(t, links...))},
		"hard links, uncompressed": {"application/vnd.cncf.model.weight.v1.tar", tarOf(t, links...)},
		"after the end":            {"application/vnd.cncf.model.weight.v1.tar+gzip", gzipped(t, trailing)},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArtifact().layer(c.mediaType, c.blob, nil)
			var te *TarError
			if err := refusedWithCanary(t, a, UnpackOptions{MaxExpansion: 2 << 20}); !errors.As(err, &te) || !strings.Contains(te.Reason, "expands to more than 2097152") {
				t.Errorf("error %v", err)
			}
			v, m := a.decode(t)
			if _, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(t.TempDir(), "m"), UnpackOptions{MaxExpansion: 128 << 20}); err != nil {
				t.Errorf("within the limit: %v", err)
			}
		})
	}
}

func TestUnpackBoundsTheEntriesOfArchives(t *testing.T) {
	block := tarOf(t, tarDirOf("d/"))[:512]
	many := gzipped(t, append(bytes.Repeat(block, maxLayers+1), make([]byte, 1024)...))
	err := refusedWithCanary(t, newArtifact().layer("application/vnd.cncf.model.weight.v1.tar+gzip", many, nil), UnpackOptions{})
	var te *TarError
	if !errors.As(err, &te) || !strings.Contains(te.Reason, fmt.Sprint(maxLayers)) {
		t.Errorf("error %v", err)
	}
}

// A path that is all directories must not make a set of names that fills memory.
func TestPathSetBoundsDirectories(t *testing.T) {
	var s pathSet
	deep := strings.Repeat("a/", 2000)
	for i := range maxNames {
		if err := s.addFile(fmt.Sprintf("%d/%sx", i, deep)); err != nil {
			var pe *PathError
			if !errors.As(err, &pe) || !strings.Contains(pe.Reason, fmt.Sprint(maxNames)) || len(s.seen) > maxNames {
				t.Errorf("%v after %d names", err, len(s.seen))
			}
			return
		}
	}
	t.Fatal("no bound")
}

func TestUnpackRefusesArchiveThatIsNotTheOneNamed(t *testing.T) {
	plain := goodTar(t)
	wrong := map[string]string{orasUnpack: "true", orasContentDigest: digest.FromString("another").String()}
	a := newArtifact().layer("application/vnd.oci.image.layer.v1.tar+gzip", gzipped(t, plain), wrong)
	v, m := a.decode(t)
	parent := t.TempDir()
	_, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(parent, "m"), UnpackOptions{})
	var ce *ContentError
	if !errors.As(err, &ce) || ce.Got != digest.FromBytes(plain) {
		t.Errorf("error %v, want a *ContentError", err)
	}
	wantOnly(t, parent)
}
