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
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

// cut is one piece of a tar as a splitter has it, whose input comes in steps of some size.
type cut struct {
	number int
	bytes  []byte
}

func cutsOf(t testing.TB, raw []byte, step func() int) []cut {
	t.Helper()
	var cuts []cut
	s := newSplitter(int64(len(raw)))
	for rest := raw; len(rest) > 0; {
		number := s.piece
		n := s.step(rest[:min(step(), len(rest))])
		if n <= 0 || cap(s.pax) > maxPAX+tarBlock {
			t.Fatalf("%d of %d bytes taken at piece %d, and %d kept", n, len(rest), number, cap(s.pax))
		}
		if len(cuts) == 0 || cuts[len(cuts)-1].number != number {
			cuts = append(cuts, cut{number: number})
		}
		cuts[len(cuts)-1].bytes = append(cuts[len(cuts)-1].bytes, rest[:n]...)
		rest = rest[n:]
	}
	return cuts
}

func whole() int { return 1 << 30 }

// tarForms are the same files in the ways in which writers note names and sizes.
func tarForms(t testing.TB, files ...tarIn) map[string][]byte {
	all := make(map[string][]byte)
	for name, change := range map[string]func(*tar.Header){
		"USTAR": func(h *tar.Header) { h.Format = tar.FormatUSTAR },
		"GNU":   func(h *tar.Header) { h.Format, h.Name = tar.FormatGNU, strings.Repeat("long/", 60)+h.Name },
		"PAX": func(h *tar.Header) {
			h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"comment": strings.Repeat("x", 700)}
		},
		"links between": func(h *tar.Header) {},
	} {
		var entries []tarIn
		for _, f := range files {
			change(&f.Header)
			entries = append(entries, f)
			if name == "links between" {
				entries = append(entries, tarDirOf(f.Name+".d/"), tarLinkOf(tar.TypeSymlink, f.Name+".link", f.Name))
			}
		}
		all[name] = tarOf(t, entries...)
	}
	all["global"] = append(tarOf(t, tarIn{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"size": "17"}}, ""})[:1024], all["USTAR"]...)
	all["base 256"] = slices.Clone(all["USTAR"])
	all["size in a record"] = sizeInRecord(t, files)
	field, n := all["base 256"][124:136], len(files[0].body)
	clear(field)
	field[0] = 0x80
	for i := len(field) - 1; n > 0; i-- {
		field[i], n = byte(n), n>>8
	}
	checksum(all["base 256"][:512])
	return all
}

// sizeInRecord is what writers make of files of more than 8 GiB.
func sizeInRecord(t testing.TB, files []tarIn) []byte {
	t.Helper()
	var out []byte
	for _, f := range files {
		raw := tarOf(t, tarIn{tar.Header{Name: f.Name, PAXRecords: map[string]string{"comment": "size=xxxxxxx"}}, f.body})
		raw = raw[:len(raw)-1024]
		// "NN comment=size=xxxxxxx\n" has the length of "NN size=000000000000000\n".
		from, to := []byte("comment=size=xxxxxxx\n"), fmt.Appendf(nil, "size=%015d\n", len(f.body))
		if len(from) != len(to) || !bytes.Contains(raw, from) {
			t.Fatalf("%q for %q", to, from)
		}
		raw = bytes.Replace(raw, from, to, 1)
		h := raw[len(raw)-int(padded(int64(len(f.body))))-512:][:512]
		copy(h[124:136], "00000000000\x00")
		checksum(h)
		out = append(out, raw...)
	}
	return append(out, make([]byte, 1024)...)
}

func checksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// TestSplitterCutsWhereTheFilesAre, however the bytes come.
func TestSplitterCutsWhereTheFilesAre(t *testing.T) {
	t.Parallel()
	files := []tarIn{
		tarFileOf("a", string(random(170_000))), tarFileOf("small", "x"), tarFileOf("b", string(random(minPiece))),
		tarFileOf("less", string(random(minPiece-1))), tarFileOf("c", string(random(100_000))), tarFileOf("empty", ""),
	}
	for form, raw := range tarForms(t, files...) {
		want := []string{files[0].body, files[2].body, files[4].body}
		steps := map[string]func() int{"at once": whole, "byte by byte": func() int { return 1 }}
		for seed := range uint64(5) {
			r := rand.New(rand.NewPCG(seed, 0))
			steps[fmt.Sprint("seed ", seed)] = func() int { return 1 + r.IntN(5000) }
		}
		for name, step := range steps {
			var got []string
			var joined []byte
			for i, c := range cutsOf(t, raw, step) {
				if c.number != i {
					t.Fatalf("%s, %s: piece %d comes as number %d", form, name, i, c.number)
				}
				if joined = append(joined, c.bytes...); i%2 == 1 {
					got = append(got, string(c.bytes))
				}
			}
			if !bytes.Equal(joined, raw) || !slices.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes and %d files, want %d and %d", form, name, len(joined), len(got), len(raw), len(want))
			}
		}
	}
}

// endless is a tar whose records say that they are empty and go on for ever.
func endless(next byte) []byte {
	raw := make([]byte, 4<<20)
	raw[156] = 'x'
	copy(raw[512+124:], fmt.Sprintf("%011o\x00", len(raw)-1024))
	raw[512+156] = next
	return raw
}

// TestSplitterKeepsNoMoreThanRecordsMayHave: whoever sends the bytes has not been checked.
func TestSplitterKeepsNoMoreThanRecordsMayHave(t *testing.T) {
	t.Parallel()
	for _, next := range []byte("LKg0Z") {
		s := newSplitter(4 << 20)
		for rest := endless(next); len(rest) > 0; {
			if rest = rest[s.step(rest[:min(len(rest), 32<<10)]):]; cap(s.pax) > 0 {
				t.Fatalf("%c: %d bytes are kept of no records", next, cap(s.pax))
			}
		}
	}
}

// FuzzSplitter holds that any bytes are cut into pieces that give them again, the same
// ones however the bytes come.
func FuzzSplitter(f *testing.F) {
	for _, raw := range tarForms(f, tarFileOf("a", string(random(minPiece+1))), tarFileOf("b", "x")) {
		f.Add(raw, uint64(1))
	}
	for _, raw := range evilTars(f) {
		f.Add(raw, uint64(2))
	}
	f.Add(endless('L')[:8192], uint64(3))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		once := cutsOf(t, raw, whole)
		if again := cutsOf(t, raw, func() int { return 1 + r.IntN(700) }); !slices.EqualFunc(once, again, func(a, b cut) bool { return a.number == b.number && bytes.Equal(a.bytes, b.bytes) }) {
			t.Fatalf("%d pieces, or %d", len(once), len(again))
		}
		var joined []byte
		for i, c := range once {
			if joined = append(joined, c.bytes...); c.number != i {
				t.Fatalf("piece %d comes as number %d", i, c.number)
			}
		}
		if !bytes.Equal(joined, raw) {
			t.Fatal("other bytes")
		}
	})
}

// pieceTar has files of all sizes, and what it becomes.
func pieceTar(t testing.TB) ([]byte, map[string]string) {
	files := map[string]string{"d/": "dir", "large.bin": string(random(400_000)), "small": "x", "d/second.bin": string(random(90_000)), "third.bin": string(random(70_000))}
	raw := tarOf(t, tarFileOf("large.bin", files["large.bin"]), tarFileOf("small", "x"), tarDirOf("d/"),
		tarIn{tar.Header{Name: "d/second.bin", Mode: 0o755}, files["d/second.bin"]},
		tarIn{tar.Header{Name: "third.bin", Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "x"}}, files["third.bin"]},
		tarLinkOf(tar.TypeLink, "hard.bin", "third.bin"), tarLinkOf(tar.TypeSymlink, "latest", "large.bin"))
	files["hard.bin"], files["latest"] = files["third.bin"], "-> large.bin"
	return raw, files
}

// wantTree fails unless dst holds exactly these files, with the evidence of v.
func wantTree(t testing.TB, dst string, want map[string]string) {
	t.Helper()
	got := names(t, dst)
	delete(got, evidenceDir+"/")
	if !maps.Equal(got, want) {
		t.Errorf("unpacked %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

func checkPasses(t testing.TB, dst string, a *artifact, at int) {
	t.Helper()
	v, _ := a.decode(t)
	installed, err := OpenInstalled(dst)
	must(t, err)
	if _, err := installed.Check(t.Context(), v, CheckOptions{}); err != nil {
		t.Errorf("check, cut at %d: %v", at, err)
	}
}

// fetched is a run that has staged and checked all of a.
func fetched(t testing.TB, a *artifact, dst string, noLinks bool) (*unpacking, *site) {
	t.Helper()
	v, m := a.decode(t)
	u := newUnpacking(a.fetcher(), v, m, dst, UnpackOptions{})
	u.noLinks = noLinks
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	must(t, s.begin(m.subject.Digest()), u.fetchAll(t.Context(), s, u.blobs(), nil))
	return u, s
}

// placed does the rest of a run.
func placed(t testing.TB, u *unpacking, s *site) {
	t.Helper()
	tr, err := u.assemble(t.Context(), s)
	must(t, err, u.place(s, tr, false))
	s.leave(true)
}

// TestAnArchiveIsWrittenOnce: its files are what was staged, under another name.
func TestAnArchiveIsWrittenOnce(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	dst := t.TempDir()
	u, s := fetched(t, a, dst, false)
	staged := make(map[string]os.FileInfo)
	for i, name := range []string{"large.bin", "d/second.bin", "third.bin"} {
		info, err := s.root.Lstat(pieceFile(digest.FromBytes(raw), 2*i+1))
		must(t, err)
		staged[name] = info
	}
	placed(t, u, s)
	for name, before := range staged {
		if after, err := os.Lstat(filepath.Join(dst, name)); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s is another file than was staged: %v", name, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dst, "d", "second.bin")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	wantTree(t, dst, want)
	checkPasses(t, dst, a, len(raw))
	wantOnly(t, dst, evidenceDir, "d", "hard.bin", "large.bin", "latest", "small", "third.bin")
}

// TestAnArchiveGoesOnAfterACut at any place: in a header, a file, its padding and between
// them. Only the rest is fetched.
func TestAnArchiveGoesOnAfterACut(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	size := int64(len(raw))
	var places []int64
	for _, at := range []int64{0, 512, 512 + 400_000, 512 + padded(400_000), 2048 + padded(400_000), size} {
		places = append(places, max(0, at-1), at, min(at+1, size-1))
	}
	for at := int64(300); at < size; at += 17_000 {
		places = append(places, at)
	}
	for _, at := range places {
		if at == size {
			continue
		}
		dst := filepath.Join(t.TempDir(), "m")
		f := a.fetcher()
		f.serve = cutAfter(at)
		if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		if exists(dst) {
			t.Fatalf("cut at %d: the final name exists", at)
		}
		// Once more, a little later.
		f.serve = cutAfter(min(at+7000, size-1))
		if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
			t.Fatalf("cut at %d: %v", at+7000, err)
		}
		f.serve = nil
		res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
		if kept := min(at+7000, size-1); err != nil || res.BytesReused != kept || res.BytesFetched != size-kept {
			t.Fatalf("cut at %d: %+v, %v", at, res, err)
		}
		wantTree(t, dst, want)
		checkPasses(t, dst, a, int(at))
		wantOnly(t, filepath.Dir(dst), "m")
	}
}

// TestAnArchiveKilledWhileItIsPlacedIsNotFetchedAgain, after it was put together and
// after some of its files have their final names.
func TestAnArchiveKilledWhileItIsPlacedIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil).file("raw.bin", []byte("raw"))
	want["raw.bin"] = "raw"
	for n := range 8 {
		dst := t.TempDir()
		halfPlaced(t, a, dst, n, false)
		v, m := a.decodeSignedAt(t, testNow)
		f := a.fetcher()
		res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
		if err != nil || res.BytesFetched != 0 || f.bytes != 0 {
			t.Errorf("after %d renames: %+v, %v", n, res, err)
		}
		wantTree(t, dst, want)
	}
}

// TestStagedPiecesAreNotTrusted: what somebody changed is fetched again, and what is not
// plainly ours is not used.
func TestStagedPiecesAreNotTrusted(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	kept := int64(512 + padded(400_000) + 1024 + 512 + 512 + 30_000) // in the second file
	for name, spoil := range map[string]func(t *testing.T, dir, canary string){
		"a header changed":       func(t *testing.T, dir, _ string) { overwrite(t, filepath.Join(dir, "0"), 10) },
		"a size changed":         func(t *testing.T, dir, _ string) { overwrite(t, filepath.Join(dir, "0"), 130) },
		"content changed":        func(t *testing.T, dir, _ string) { overwrite(t, filepath.Join(dir, "1"), 20_000) },
		"the last changed":       func(t *testing.T, dir, _ string) { overwrite(t, filepath.Join(dir, "3"), 20_000) },
		"one in between shorter": func(t *testing.T, dir, _ string) { must(t, os.Truncate(filepath.Join(dir, "1"), 100)) },
		"one in between longer":  func(t *testing.T, dir, _ string) { must(t, os.Truncate(filepath.Join(dir, "1"), 410_000)) },
		"one empty":              func(t *testing.T, dir, _ string) { must(t, os.Truncate(filepath.Join(dir, "2"), 0)) },
		"the last much longer":   func(t *testing.T, dir, _ string) { must(t, os.Truncate(filepath.Join(dir, "3"), 1<<30)) },
		"one missing":            func(t *testing.T, dir, _ string) { must(t, os.Remove(filepath.Join(dir, "1"))) },
		"cut elsewhere": func(t *testing.T, dir, _ string) {
			var all []byte
			for n := range 4 {
				name := filepath.Join(dir, strconv.Itoa(n))
				b, err := os.ReadFile(name)
				must(t, err, os.Remove(name))
				all = append(all, b...)
			}
			writeFile(t, filepath.Join(dir, "0"), string(all))
		},
		"one too many": func(t *testing.T, dir, _ string) { writeFile(t, filepath.Join(dir, "4"), "more") },
		"one beside":   func(t *testing.T, dir, _ string) { writeFile(t, filepath.Join(dir, "04"), "more") },
		"a link": func(t *testing.T, dir, canary string) {
			must(t, os.Remove(filepath.Join(dir, "3")), os.Symlink(canary, filepath.Join(dir, "3")))
		},
		"a hard link": func(t *testing.T, dir, canary string) {
			must(t, os.Remove(filepath.Join(dir, "3")), os.Link(canary, filepath.Join(dir, "3")))
		},
		"a hard link beside": func(t *testing.T, dir, canary string) { must(t, os.Link(canary, filepath.Join(dir, "4"))) },
		"a directory": func(t *testing.T, dir, _ string) {
			must(t, os.Remove(filepath.Join(dir, "1")), os.Mkdir(filepath.Join(dir, "1"), 0o755))
		},
		"all of it a file": func(t *testing.T, dir, _ string) { must(t, os.RemoveAll(dir)); writeFile(t, dir, "x") },
		"all of it a link": func(t *testing.T, dir, canary string) {
			must(t, os.RemoveAll(dir), os.Symlink(filepath.Dir(canary), dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			dst := filepath.Join(parent, "m")
			must(t, os.Mkdir(filepath.Join(parent, "beside"), 0o755))
			canary := filepath.Join(parent, "beside", "3")
			writeFile(t, canary, "untouched")
			f := a.fetcher()
			f.serve = cutAfter(kept)
			if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			spoil(t, filepath.Join(parent, stagingBeside("m"), piecesDir(digest.FromBytes(raw))), canary)
			f.serve = nil
			res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(name, "beside") && res.BytesReused != kept {
				t.Errorf("%d bytes were used again, want %d", res.BytesReused, kept)
			}
			if got, _ := os.ReadFile(canary); string(got) != "untouched" {
				t.Errorf("the canary now holds %q", got)
			}
			wantOnly(t, parent, "beside", "m")
			wantOnly(t, filepath.Dir(canary), "3")
			wantTree(t, dst, want)
			checkPasses(t, dst, a, 0)
		})
	}
}

// overwrite changes one byte.
func overwrite(t testing.TB, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	must(t, err)
	b[0]++
	_, err = f.WriteAt(b, at)
	must(t, err)
}

// TestAnArchiveThatIsAnotherLeavesNothing: nothing of it has a name before all of it has
// the digest.
func TestAnArchiveThatIsAnotherLeavesNothing(t *testing.T) {
	t.Parallel()
	raw, _ := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	for name, change := range map[string]func([]byte) []byte{
		"a name":     func(b []byte) []byte { return bytes.Replace(b, []byte("large.bin"), []byte("../ge.bin"), 1) },
		"a size":     func(b []byte) []byte { copy(b[124:136], "77777777777\x00"); return b },
		"no size":    func(b []byte) []byte { copy(b[124:136], "not a number"); return b },
		"content":    func(b []byte) []byte { b[90_000]++; return b },
		"the end":    func(b []byte) []byte { b[len(b)-1]++; return b },
		"noise":      func(b []byte) []byte { return random(len(b)) },
		"zeros":      func(b []byte) []byte { return make([]byte, len(b)) },
		"shorter":    func(b []byte) []byte { return b[:len(b)-600] },
		"longer":     func(b []byte) []byte { return append(b, 0) },
		"many files": func(b []byte) []byte { return bytes.Repeat(b[:512], len(b)/512) },
	} {
		parent := t.TempDir()
		f := a.fetcher()
		f.serve = serveAs(change)
		_, err := Unpack(t.Context(), f, v, m, filepath.Join(parent, "m"), UnpackOptions{})
		var content *ContentError
		var short *ShortError
		if !errors.As(err, &content) && !errors.As(err, &short) {
			t.Errorf("%s: %v (%T)", name, err, err)
		}
		wantOnly(t, parent)
	}
}

// TestPiecesReadAsTheBlob also where no piece can be the file, as on a file system
// without hard links.
func TestPiecesReadAsTheBlob(t *testing.T) {
	t.Parallel()
	raw, _ := pieceTar(t)
	dst := t.TempDir()
	s, err := openSite(t.Context(), dst, silent)
	must(t, err, s.begin(digest.FromBytes(raw)))
	defer s.leave(true)
	p, err := openPieces(s, ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}, false)
	must(t, err)
	old, err := p.keep(0)
	must(t, err)
	if b, err := io.ReadAll(old); err != nil || len(b) > 0 {
		t.Fatalf("%d bytes are kept of nothing: %v", len(b), err)
	}
	for rest := raw; len(rest) > 0; {
		n, err := p.Write(rest[:min(len(rest), 7001)])
		must(t, err)
		rest = rest[n:]
	}
	must(t, p.flush())
	j, err := p.join(p.literal.Sum64())
	must(t, err)
	got, err := io.ReadAll(j)
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%d of %d bytes: %v", len(got), len(raw), err)
	}
	must(t, j.close(), os.Truncate(filepath.Join(dst, stagingName, pieceFile(digest.FromBytes(raw), 1)), 5))
	if _, err := p.join(p.literal.Sum64()); err == nil {
		t.Error("what is missing goes unnoticed")
	}
	must(t, p.close())
}

// TestAnArchiveTwice, as two layers, is refused for its names as before, and as a raw
// file besides it is both.
func TestAnArchiveTwice(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	refusedWithCanary(t, newArtifact().layer(tarType, raw, nil).layer(tarType, raw, nil), UnpackOptions{})
	a := newArtifact().layer(tarType, raw, nil).file("all.tar", raw)
	want["all.tar"] = string(raw)
	v, m := a.decode(t)
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dst, want)
	checkPasses(t, dst, a, 0)
}

// TestPiecesThatTheDiskChangesAreNoFiles: no file is made of a header that is not what
// was hashed, and nobody is told that the archive was.
func TestPiecesThatTheDiskChangesAreNoFiles(t *testing.T) {
	t.Parallel()
	raw, _ := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	for _, at := range []struct {
		piece int
		byte  int64
	}{{0, 100}, {2, 600}, {6, 700}} { // a mode, a small file's content, the end
		dst := t.TempDir()
		u, s := fetched(t, a, dst, false)
		overwrite(t, filepath.Join(dst, stagingName, pieceFile(digest.FromBytes(raw), at.piece)), at.byte)
		if _, err := u.assemble(t.Context(), s); err == nil || rejected(err) || !strings.Contains(err.Error(), "changed on the disk") {
			t.Errorf("byte %d of piece %d: %v", at.byte, at.piece, err)
		}
		s.leave(true)
	}
}

// TestAnArchiveWithoutHardLinks is staged as a file, and unpacked beside it.
func TestAnArchiveWithoutHardLinks(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	dst := t.TempDir()
	u, s := fetched(t, a, dst, true)
	for range 2 {
		if lacks, err := s.lacksLinks(); err != nil || lacks {
			t.Errorf("there are hard links here: %v", err)
		}
	}
	if _, err := s.root.Lstat(piecesDir(digest.FromBytes(raw))); err == nil {
		t.Error("it is in pieces")
	}
	placed(t, u, s)
	wantTree(t, dst, want)
	checkPasses(t, dst, a, 0)
}

// TestAnArchiveStagedInAnotherForm: what a run without a cache has left is not what one
// with a cache goes on with, and takes no space then.
func TestAnArchiveStagedInAnotherForm(t *testing.T) {
	t.Parallel()
	raw, want := pieceTar(t)
	a := newArtifact().layer(tarType, raw, nil)
	v, m := a.decode(t)
	for _, cachedFirst := range []bool{false, true} {
		cache, err := nodecache.Open(t.TempDir(), nodecache.Options{})
		must(t, err)
		dst := t.TempDir()
		run := func(f *fetcher, cached bool) error {
			o := UnpackOptions{DropPageCache: true}
			if cached {
				o.Cache = cache
			}
			_, err := Unpack(t.Context(), f, v, m, dst, o)
			return err
		}
		f := a.fetcher()
		f.serve = cutAfter(200_000)
		if err := run(f, cachedFirst); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		staged := filepath.Join(dst, stagingName, blobFile(digest.FromBytes(raw)))
		if cachedFirst {
			writeFile(t, staged, "half of it")
		}
		seen := false
		f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
			seen = true
			if exists(staged) == cachedFirst || exists(staged+".pieces") != cachedFirst {
				t.Errorf("cached first: %t: both forms are there", cachedFirst)
			}
			return io.NopCloser(bytes.NewReader(content[offset:])), nil
		}
		if err := run(f, !cachedFirst); err != nil || !seen {
			t.Fatal(err)
		}
		wantTree(t, dst, want)
		checkPasses(t, dst, a, 0)
	}
}

// TestManySmallFilesOfAnArchive takes a tar that is one piece.
func TestManySmallFilesOfAnArchive(t *testing.T) {
	t.Parallel()
	var entries []tarIn
	want := make(map[string]string)
	for i := range 1000 {
		name := "f" + strconv.Itoa(i)
		want[name] = strings.Repeat(name, i%7)
		entries = append(entries, tarFileOf(name, want[name]))
	}
	a := newArtifact().layer(tarType, tarOf(t, entries...), nil)
	v, m := a.decode(t)
	dst := filepath.Join(t.TempDir(), "m")
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dst, want)
	checkPasses(t, dst, a, 0)
}
