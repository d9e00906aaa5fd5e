// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
)

const (
	tarType  = "application/vnd.cncf.model.weight.v1.tar"
	gzipType = tarType + "+gzip"
	zstdType = tarType + "+zstd"
)

// TestUnpackArchivesThatDependOnOneAnother unpacks more archives at once than there are
// cores. Each has a hard link to a file of one before, which may be in work or may not
// have begun, and the first ones are the longest.
func TestUnpackArchivesThatDependOnOneAnother(t *testing.T) {
	t.Parallel()
	const n = 3 * maxUnpacking
	a, want := newArtifact(), map[string]string{"shared/": "dir"}
	for i := range n {
		name, body := fmt.Sprintf("shared/%d.bin", i), string(random((n-i)*200_000))
		entries := []tarIn{tarDirOf("shared/"), tarFileOf(name, body)}
		want[name] = body
		if i > 0 {
			link, target := fmt.Sprintf("shared/%d.link", i), fmt.Sprintf("shared/%d.bin", i/2)
			if i%2 == 1 {
				target = fmt.Sprintf("shared/%d.bin", i-1)
			}
			entries = append(entries, tarLinkOf(tar.TypeLink, link, target))
			want[link] = want[target]
		}
		switch raw := tarOf(t, entries...); i % 3 {
		case 0:
			a.layer(tarType, raw, nil)
		case 1:
			a.layer(gzipType, gzipped(t, raw), nil)
		case 2:
			a.layer(zstdType, zstdWindow(t, raw, maxZstdWindow), nil)
		}
	}
	v, m := a.decode(t)
	dst := filepath.Join(t.TempDir(), "m")
	r, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{})
	must(t, err)
	got := names(t, dst)
	delete(got, evidenceDir+"/")
	if !maps.Equal(got, want) || r.Files != len(want)-1 {
		t.Errorf("%d names and %d files, want %d and %d", len(got), r.Files, len(want), len(want)-1)
	}
	installed, err := OpenInstalled(dst)
	must(t, err)
	var un *UncheckableError
	if _, err := installed.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &un) {
		t.Errorf("check: %v", err)
	}
}

// zstdWindow compresses b into a frame that asks for so large a window.
func zstdWindow(t testing.TB, b []byte, window int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithSingleSegment(false), zstd.WithEncoderConcurrency(1))
	must(t, err)
	_, err = w.Write(b[:len(b)/2])
	// A frame that is begun before all is known has no size in it.
	must(t, err, w.Flush())
	_, err = w.Write(b[len(b)/2:])
	must(t, err, w.Close())
	return out.Bytes()
}

// TestUnpackRefusesWhatArchivesDoToOneAnother holds the rules of one archive between
// several, in whatever order they get on.
func TestUnpackRefusesWhatArchivesDoToOneAnother(t *testing.T) {
	t.Parallel()
	long := string(random(3 << 20))
	for name, archives := range map[string][2][]byte{
		"twice":                        {tarOf(t, tarFileOf("a", long)), tarOf(t, tarFileOf("a", "y"))},
		"twice but for case":           {tarOf(t, tarFileOf("A", long)), tarOf(t, tarFileOf("a", "y"))},
		"directory and file":           {tarOf(t, tarFileOf("long", long), tarDirOf("a/")), tarOf(t, tarFileOf("a", "y"))},
		"through another's link":       {tarOf(t, tarLinkOf(tar.TypeSymlink, "l", "d"), tarFileOf("long", long)), tarOf(t, tarFileOf("l/x", "x"))},
		"hard link to what follows":    {tarOf(t, tarLinkOf(tar.TypeLink, "h", "a")), tarOf(t, tarFileOf("a", long))},
		"hard link to nothing":         {tarOf(t, tarFileOf("a", long)), tarOf(t, tarLinkOf(tar.TypeLink, "h", "b"))},
		"hard link into what is bad":   {tarOf(t, tarFileOf("long", long), tarFileOf("../a", "x")), tarOf(t, tarLinkOf(tar.TypeLink, "h", "a"))},
		"bad beside what waits for it": {tarOf(t, tarFileOf("a", long))[:2<<20], tarOf(t, tarLinkOf(tar.TypeLink, "h", "a"))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArtifact().layer(tarType, archives[0], nil).layer(gzipType, gzipped(t, archives[1]), nil)
			refusedWithCanary(t, a, UnpackOptions{})
		})
	}
}

// TestUnpackCountsTheEntriesOfAllArchives has neither of two over the bound.
func TestUnpackCountsTheEntriesOfAllArchives(t *testing.T) {
	t.Parallel()
	block := tarOf(t, tarDirOf("d/"))[:512]
	many := gzipped(t, append(bytes.Repeat(block, maxLayers/2+1), make([]byte, 1024)...))
	more := gzipped(t, append(bytes.Repeat(block, maxLayers/2+1), make([]byte, 2048)...))
	err := refusedWithCanary(t, newArtifact().layer(gzipType, many, nil).layer(gzipType, more, nil), UnpackOptions{})
	var te *TarError
	if !errors.As(err, &te) || !strings.Contains(te.Reason, fmt.Sprint(maxLayers)) {
		t.Errorf("error %v", err)
	}
}

func TestWindowIsWhatTheFrameAsksFor(t *testing.T) {
	t.Parallel()
	body := random(4 << 20)
	short := zstded(t, []byte("short"))
	for name, c := range map[string]struct {
		compression string
		blob        []byte
		want        int64
	}{
		"tar":             {compressionNone, body, 0},
		"gzip":            {compressionGzip, gzipped(t, body), 0},
		"zstd":            {compressionZstd, zstdWindow(t, body, 2<<20), 2 << 20},
		"the largest":     {compressionZstd, zstdWindow(t, body, maxZstdWindow), maxZstdWindow},
		"beyond it":       {compressionZstd, zstdWindow(t, body, 2*maxZstdWindow), maxZstdWindow},
		"one segment":     {compressionZstd, singleSegment(t, body), int64(len(body))},
		"skippable first": {compressionZstd, append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, short...), maxZstdWindow},
		"no frame":        {compressionZstd, body, maxZstdWindow},
		"nothing":         {compressionZstd, nil, maxZstdWindow},
	} {
		if got := (Layer{Compression: c.compression}).window(bytes.NewReader(c.blob)); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}

func singleSegment(t testing.TB, b []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	must(t, err)
	return enc.EncodeAll(b, nil)
}

// TestADiskThatCannotBeReadIsNoMalformedArchive: the model would be rejected, and what
// was fetched thrown away.
func TestADiskThatCannotBeReadIsNoMalformedArchive(t *testing.T) {
	t.Parallel()
	plain := tarOf(t, tarFileOf("a", string(random(1<<20))))
	for compression, blob := range map[string][]byte{
		compressionNone: plain, compressionGzip: gzipped(t, plain), compressionZstd: zstded(t, plain),
	} {
		l := Layer{Compression: compression}
		for _, at := range []int{0, 100, len(blob) / 2} {
			r := io.MultiReader(bytes.NewReader(blob[:at]), brokenDisk{})
			err := readWhole(t, l, ownReader{r})
			if !errors.Is(err, syscall.EIO) || rejected(err) {
				t.Errorf("%q, broken at %d: %v", compression, at, err)
			}
			if err := readWhole(t, l, ownReader{bytes.NewReader(blob[:at])}); at > 0 && !rejected(err) {
				t.Errorf("%q, cut at %d: %v", compression, at, err)
			}
		}
	}
}

type brokenDisk struct{}

func (brokenDisk) Read([]byte) (int, error) { return 0, syscall.EIO }

// readWhole reads an archive as it is unpacked, and keeps nothing.
func readWhole(t *testing.T, l Layer, r io.Reader) error {
	t.Helper()
	stream, err := decompress(l, r)
	if err != nil {
		return err
	}
	defer stream.Close()
	ahead := newReadAhead(newHashes(), stream)
	defer ahead.close()
	return walkTar(ahead, l.Descriptor.Digest, newTarNames(&modelNames{}, nil), func(_ tarEntry, content io.Reader) error {
		if _, err := io.Copy(io.Discard, content); err != nil {
			return tarReadError(l.Descriptor.Digest, err)
		}
		return nil
	})
}
