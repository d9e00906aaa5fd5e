// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/hashing"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// maxFuzzArchive bounds what an archive may expand to in FuzzReadArchive.
const maxFuzzArchive = 1 << 20

// FuzzReadArchive reads any bytes as an archive in each compression. Names stay
// local, the bound holds, and what was written down beside the files gives the
// same archive again.
func FuzzReadArchive(f *testing.F) {
	plain, ok := fuzzTar("d/", tar.TypeDir, "", "d/a.bin", tar.TypeReg, "")
	linked, linkedOK := fuzzTar("a", tar.TypeReg, "", "l", tar.TypeSymlink, "a")
	evil, evilOK := fuzzTar("../x", tar.TypeReg, "", "l", tar.TypeSymlink, "../../x")
	if !ok || !linkedOK || !evilOK {
		f.Fatal("no seeds")
	}
	for _, raw := range [][]byte{plain, linked, evil, append(bytes.Clone(plain), "rest"...), nil} {
		f.Add(byte(0), raw)
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write(raw)
		must(f, errors.Join(err, w.Close()))
		f.Add(byte(1), bytes.Clone(z.Bytes()))
		enc, err := zstd.NewWriter(nil)
		must(f, err)
		f.Add(byte(2), enc.EncodeAll(raw, nil))
	}
	f.Fuzz(func(t *testing.T, compression byte, raw []byte) {
		l := Layer{Compression: []string{compressionNone, compressionGzip, compressionZstd}[compression%3]}
		stream, err := decompress(l, bytes.NewReader(raw))
		if err != nil {
			return
		}
		defer stream.Close()
		names := newTarNames(&modelNames{}, nil)
		var skeleton bytes.Buffer
		ahead := newReadAhead(hashing.NewGroup(1<<10, 2, 1), stream)
		rec := newTarRecorder(ahead, l, &skeleton)
		rec.expandTo(maxFuzzArchive, maxFuzzArchive, math.MaxInt64, "dst")
		var contents [][]byte
		err = walkTar(rec, l.Descriptor.Digest, names, func(e tarEntry, content io.Reader) error {
			if !filepath.IsLocal(e.path) || strings.ContainsAny(e.path, "\\:\x00") {
				t.Fatalf("the name %q", e.path)
			}
			if to := filepath.Join(filepath.Dir(e.path), e.target); e.kind == tarSymlink && (filepath.IsAbs(e.target) || !filepath.IsLocal(to)) {
				t.Fatalf("%q leads to %q", e.path, e.target)
			}
			if e.kind != tarFile {
				return nil
			}
			rec.content = true
			defer func() { rec.content = false }()
			b, err := io.ReadAll(content)
			contents = append(contents, b)
			if err != nil {
				return tarReadError(l.Descriptor.Digest, err) // as unpacking has it
			}
			if int64(len(b)) != e.size {
				t.Fatalf("%q has %d bytes, not %d", e.path, len(b), e.size)
			}
			return nil
		})
		ahead.close()
		if err != nil {
			var bad *TarError
			var path *PathError
			if !errors.As(err, &bad) && !errors.As(err, &path) {
				t.Fatalf("of no type: %v (%T)", err, err)
			}
			return
		}
		if rec.left < 0 {
			t.Fatal("it expanded past its bound")
		}
		again := &tarRebuilder{skeleton: &skeleton, sum: sha256.New()}
		err = walkTar(again, l.Descriptor.Digest, newTarNames(&modelNames{}, nil), func(e tarEntry, content io.Reader) error {
			if e.kind != tarFile {
				return nil
			}
			again.content = bytes.NewReader(contents[0])
			contents = contents[1:]
			_, err := io.CopyN(io.Discard, content, e.size)
			again.content = nil
			return err
		})
		if err != nil || again.digest() != ahead.digest() {
			t.Fatalf("rebuilt as %s, was %s: %v", again.digest(), ahead.digest(), err)
		}
	})
}

// FuzzIgnoreFile holds that a file of patterns is refused when it is read, and
// not in the middle of a push.
func FuzzIgnoreFile(f *testing.F) {
	for _, s := range []string{"# c\n*.log\n!a.log\n", "**/x", "[a-", "\\", "!", "!!a", "a/../b", "/", "**", "\xef\xbb\xbf*.tmp", "a\x00b", "[]a]", "***", "a**b"} {
		f.Add([]byte(s), "d/a.log")
	}
	dir := f.TempDir()
	root, err := os.OpenRoot(dir)
	must(f, err)
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		must(t, os.WriteFile(filepath.Join(dir, ignoreFile), raw, 0o600))
		rules, err := directoryRules(root, nil)
		var option *OptionError
		if err != nil {
			if !errors.As(err, &option) {
				t.Fatalf("of no type: %v (%T)", err, err)
			}
			return
		}
		if checkPath(name) != nil {
			return
		}
		state := ruleState{}
		for i, c := range name + "/" {
			if c != '/' {
				continue
			}
			if _, state, err = rules.match(name[:i], state); err != nil {
				t.Fatalf("%q was taken, and failed for %q: %v", raw, name[:i], err)
			}
		}
	})
}

// FuzzReadTexts reads what people write about models: all that comes out of it
// goes into the config and is printed.
func FuzzReadTexts(f *testing.F) {
	f.Add([]byte(`{"model_type":"llama","torch_dtype":"bfloat16","architectures":["LlamaForCausalLM"],"quantization_config":{"quant_method":"awq"}}`))
	f.Add([]byte(`{"model_type":"a\u001bb","architectures":[1]}`))
	f.Add([]byte("---\nlicense:\n- apache-2.0\n- other # x\n---\n# Model"))
	f.Add([]byte("---\nlicense: [mit, \"a\x1b[31m\"]\n---"))
	f.Add([]byte("SPDX-License-Identifier: MIT"))
	f.Add([]byte("SPDX-License-Identifier: " + strings.Repeat("M", 1000)))
	f.Add([]byte("                                 Apache License\n                           Version 2.0"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := readHuggingConfig(bytes.NewReader(raw))
		d := &detector{}
		d.learnLicense("LICENSE", bytes.NewReader(raw))
		d.learnLicense("README.md", bytes.NewReader(raw))
		for _, s := range append([]string{c.ModelType, c.DType, c.QuantMethod, c.TransformersVersion, c.architecture(), c.precision()}, d.licenses...) {
			if len(s) > 2*maxText || s != cleanText(s) && len(s) <= maxText {
				t.Fatalf("%q came out", s)
			}
		}
	})
}

// FuzzReadInstalled reads the files that a directory keeps about itself, which
// whoever could write there may have made.
func FuzzReadInstalled(f *testing.F) {
	a := newArtifact().file("a/b.bin", []byte("x")).file("c.bin", []byte("y"))
	manifest, _ := a.raw(f)
	receiptOf := func(layers string) []byte {
		return []byte(`{"version":1,"digest":"` + digest.FromBytes(manifest).String() + `","mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":"` + layers + `"}`)
	}
	for _, layers := range []string{"", "0", "0-1", "1,0", "0-9", "-", "0,0", "00", "1-0"} {
		f.Add(manifest, receiptOf(layers), layers)
	}
	f.Add([]byte("{}"), []byte("null"), "0-")
	f.Add(manifest, []byte(`{"version":1,"files":[{"name":"../x"}]}`), ",")
	subject, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, manifest)
	must(f, err)
	m, err := DecodeUnverified(subject, manifest)
	must(f, err)
	dir := f.TempDir()
	must(f, os.MkdirAll(filepath.Join(dir, evidenceDir), 0o700))
	f.Fuzz(func(t *testing.T, manifest, receipt []byte, layers string) {
		must(t, os.WriteFile(filepath.Join(dir, manifestName), manifest, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, receiptName), receipt, 0o600))
		i, err := OpenInstalled(dir)
		var none *NotInstalledError
		switch {
		case err != nil && !errors.As(err, &none):
			t.Fatalf("of no type: %v (%T)", err, err)
		case err == nil && i.digest() != digest.FromBytes(manifest):
			t.Fatalf("it says %s", i.digest())
		}
		set, err := parseLayerSet(layers, m)
		if err != nil {
			return
		}
		again, err := parseLayerSet(set.String(), m)
		if err != nil || again.String() != set.String() || len(set) != m.layerCount {
			t.Fatalf("%q is %q, and then %q, %v", layers, set, again, err)
		}
	})
}
