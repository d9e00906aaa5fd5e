// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

func FuzzDecodeManifest(f *testing.F) {
	a := newArtifact().file("a/b.bin", []byte("x")).layer("application/vnd.kitops.modelkit.model.v1.tar+gzip", []byte("y"), nil)
	raw, _ := a.raw(f)
	f.Add(raw)
	for _, old := range []string{`"a/b.bin"`, `"layers"`, `"size":1`} {
		for _, evil := range []string{`"../x"`, `"/x"`, `"a\u0000"`, `".aegis"`, `"size":-1`, `"size":9223372036854775807`, `"Layers"`} {
			f.Add(bytes.Replace(raw, []byte(old), []byte(evil), -1))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			return
		}
		m, err := DecodeUnverified(s, raw)
		if err != nil {
			if m.subject != (signature.Subject{}) || len(m.Layers()) > 0 {
				t.Fatalf("refused, and something came: %v", err)
			}
			return
		}
		if m.Subject() != s || !bytes.Equal(m.Raw(), raw) {
			t.Fatal("another manifest came out")
		}
		seen := make(map[string]bool)
		for _, l := range m.Layers() {
			if l.Descriptor.Size < 0 || l.Descriptor.Digest.Validate() != nil || l.Descriptor.Digest.Algorithm() != digest.SHA256 {
				t.Fatalf("layer %+v", l.Descriptor)
			}
			if l.Path == "" && !l.Archive {
				t.Fatal("a file without a name")
			}
			if l.Archive {
				continue
			}
			if !filepath.IsLocal(l.Path) || strings.ContainsAny(l.Path, "\\:\x00") || seen[foldName(l.Path)] {
				t.Fatalf("path %q", l.Path)
			}
			seen[foldName(l.Path)] = true
			for part := range strings.SplitSeq(strings.ToLower(l.Path), "/") {
				if part == ".aegis" || strings.HasPrefix(part, ".aegis-") {
					t.Fatalf("the reserved path %q", l.Path)
				}
			}
		}
		if m.Size() < 0 || m.Size() > maxModelSize {
			t.Fatalf("a size of %d", m.Size())
		}
	})
}

// FuzzUnpackPaths unpacks a raw layer and an archive of two entries, whose names,
// types and link targets are the fuzzer's, beside a tree that must not change.
func FuzzUnpackPaths(f *testing.F) {
	for _, name := range []string{"a", "a/b", "../canary/keep", "/etc/x", `..\x`, "a/../../x", "C:x", ".aegis/receipt.json", "con", "\u00e9", "e\u0301", "A", ""} {
		f.Add("raw", name, byte(tar.TypeReg), "", "b", byte(tar.TypeReg), "")
		f.Add(name, "l", byte(tar.TypeSymlink), "../canary", "l/x", byte(tar.TypeReg), "")
		f.Add("raw", "d", byte(tar.TypeDir), "", "d/l", byte(tar.TypeSymlink), name)
		f.Add("raw", "f", byte(tar.TypeReg), "", "h", byte(tar.TypeLink), name)
	}
	f.Fuzz(func(t *testing.T, raw, first string, firstType byte, firstTo, second string, secondType byte, secondTo string) {
		archive, ok := fuzzTar(first, firstType, firstTo, second, secondType, secondTo)
		if !ok {
			return
		}
		a := newArtifact().file(raw, []byte("raw")).layer("application/vnd.cncf.model.weight.v1.tar", archive, nil)
		body, err := json.Marshal(a.manifest)
		if err != nil {
			return
		}
		s, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, body)
		if err != nil {
			return
		}
		m, err := DecodeUnverified(s, body)
		if err != nil {
			return
		}
		parent := t.TempDir()
		must(t, os.Mkdir(filepath.Join(parent, "canary"), 0o755))
		writeFile(t, filepath.Join(parent, "canary", "keep"), "kept")
		before := snapshot(t, parent)
		dst := filepath.Join(parent, "m")
		_, err = UnpackUnverified(t.Context(), a.fetcher(), m, dst, UnpackOptions{})
		if err == nil {
			staysInside(t, dst)
			must(t, os.RemoveAll(dst))
		}
		if after := snapshot(t, parent); !maps.Equal(before, after) {
			t.Fatalf("%v became %v (error %v)", before, after, err)
		}
	})
}

func fuzzTar(first string, firstType byte, firstTo, second string, secondType byte, secondTo string) ([]byte, bool) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: first, Typeflag: firstType, Linkname: firstTo}, {Name: second, Typeflag: secondType, Linkname: secondTo}} {
		h.Mode, h.Format = 0o644, tar.FormatPAX
		if h.Typeflag == tar.TypeReg {
			h.Size = 1
		}
		if w.WriteHeader(&h) != nil {
			return nil, false
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("x")); err != nil {
				return nil, false
			}
		}
	}
	return b.Bytes(), w.Close() == nil
}

// staysInside follows every link below dir as a reader of the model would.
func staysInside(t *testing.T, dir string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(dir)
	must(t, err)
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		to, err := os.Readlink(p)
		if err != nil {
			return err
		}
		if full := filepath.Join(filepath.Dir(p), to); filepath.IsAbs(to) || full != root && !strings.HasPrefix(full, root+"/") {
			t.Fatalf("%s leads to %s", p, to)
		}
		if full, err := filepath.EvalSymlinks(p); err == nil && full != root && !strings.HasPrefix(full, root+"/") {
			t.Fatalf("%s resolves to %s", p, full)
		}
		return nil
	}))
}
