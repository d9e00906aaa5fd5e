// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// oldAndNew are two versions of a model that share a large file under two names
// and a small one.
func oldAndNew() (*artifact, *artifact) {
	big := random(3<<20 + 5)
	before := newArtifact().file("w/model.bin", big).file("config.json", []byte("1")).file("same", []byte("same"))
	after := newArtifact().file("renamed.bin", big).file("config.json", []byte("2")).file("same", []byte("same"))
	return before, after
}

func replaced(t *testing.T, a *artifact, dst string, o UnpackOptions) (UnpackResult, *fetcher) {
	t.Helper()
	v, m := a.decode(t)
	f := a.fetcher()
	o.Replace = true
	res, err := Unpack(t.Context(), f, v, m, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, dst, v, 3)
	wantOnly(t, dst, ".aegis", "config.json", "renamed.bin", "same")
	return res, f
}

func TestReplaceTakesUnchangedFilesOfTheOldModel(t *testing.T) {
	for _, link := range []bool{false, true} {
		dst := filepath.Join(t.TempDir(), "m")
		before, after := oldAndNew()
		install(t, before, dst)
		old, err := os.Stat(filepath.Join(dst, "w/model.bin"))
		must(t, err)
		res, f := replaced(t, after, dst, UnpackOptions{Link: link})
		if res.BytesReused != 3<<20+5+4 || res.BytesFetched != 1 || f.bytes != 1 {
			t.Errorf("link %v: %+v, %d bytes", link, res, f.bytes)
		}
		now, err := os.Stat(filepath.Join(dst, "renamed.bin"))
		must(t, err)
		if os.SameFile(old, now) != link {
			t.Errorf("link %v: the same file: %v", link, os.SameFile(old, now))
		}
		if rootfile.LinkCount(now) != 1 {
			t.Errorf("link %v: %d names", link, rootfile.LinkCount(now))
		}
	}
}

// A file of the old model that somebody changed is fetched, whatever its name and
// size promise, and a damaged model is repaired out of what is whole.
func TestReplaceFetchesWhatIsNotWhatItWas(t *testing.T) {
	for _, link := range []bool{false, true} {
		before, after := oldAndNew()
		for what, damage := range map[string]func(p string){
			"changed": func(p string) {
				b, err := os.ReadFile(p)
				must(t, err)
				b[len(b)-1] ^= 1
				must(t, os.WriteFile(p, b, 0o644))
			},
			"a link": func(p string) {
				must(t, os.Rename(p, p+".real"), os.Symlink(filepath.Base(p)+".real", p))
			},
			"short": func(p string) { must(t, os.Truncate(p, 7)) },
			"gone":  func(p string) { must(t, os.Remove(p)) },
		} {
			dst := filepath.Join(t.TempDir(), "m")
			install(t, before, dst)
			damage(filepath.Join(dst, "w/model.bin"))
			res, f := replaced(t, after, dst, UnpackOptions{Link: link})
			if res.BytesReused != 4 || f.bytes != 3<<20+5+1 {
				t.Errorf("%s, link %v: %+v, %d bytes", what, link, res, f.bytes)
			}
		}
		dst := filepath.Join(t.TempDir(), "m")
		install(t, after, dst)
		writeFile(t, filepath.Join(dst, "same"), "SAME")
		if res, f := replaced(t, after, dst, UnpackOptions{Link: link}); f.bytes != 4 || res.BytesReused != 3<<20+5+1 {
			t.Errorf("repair, link %v: %+v, %d bytes", link, res, f.bytes)
		}
	}
}

// An old file that turns out to be another one costs nothing of what is staged.
func TestReplaceGoesOnWithWhatIsStaged(t *testing.T) {
	a := newArtifact().file("a", random(3<<20))
	dst := filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	damaged, err := os.ReadFile(filepath.Join(dst, "a"))
	must(t, err)
	damaged[7] ^= 1
	writeFile(t, filepath.Join(dst, "a"), string(damaged))
	v, m := a.decode(t)
	f := a.fetcher()
	for _, at := range []int64{2 << 20, 2<<20 + 10, 3 << 20} {
		f.serve = cutAfter(at)
		if at == 3<<20 {
			f.serve = nil
		}
		_, err = Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: true})
		if at < 3<<20 && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	must(t, err)
	var offsets []int64
	for _, c := range f.calls {
		offsets = append(offsets, c.offset)
	}
	if !slices.Equal(offsets, []int64{0, 2 << 20, 2<<20 + 10}) {
		t.Errorf("fetched from %d on", offsets)
	}
	checkInstalled(t, dst, v, 1)
}

// A file that has a further name, through which it could be written to after the
// check, is copied even with Link.
func TestLinkDoesNotTakeAFileWithAFurtherName(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "m")
	before, after := oldAndNew()
	install(t, before, dst)
	p := filepath.Join(dst, "w/model.bin")
	other := filepath.Join(t.TempDir(), "x")
	must(t, os.Link(p, other))
	res, _ := replaced(t, after, dst, UnpackOptions{Link: true})
	a, err := os.Stat(other)
	must(t, err)
	b, err := os.Stat(filepath.Join(dst, "renamed.bin"))
	must(t, err)
	if res.BytesFetched != 1 || os.SameFile(a, b) {
		t.Errorf("%+v, the same file: %v", res, os.SameFile(a, b))
	}
}

// When a replacement fails after files were taken over, the old model is whole,
// and the next run takes them again.
func TestAReplacementThatFailsLeavesTheOldModelWhole(t *testing.T) {
	for _, link := range []bool{false, true} {
		for _, content := range []bool{false, true} {
			dst := filepath.Join(t.TempDir(), "m")
			before, after := oldAndNew()
			install(t, before, dst)
			v, m := after.decode(t)
			f := after.fetcher()
			f.serve = cutAfter(0)
			if content {
				f.serve = serveAs(func(b []byte) []byte { b[0] ^= 1; return b })
			}
			_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: true, Link: link, Concurrency: 1})
			var bad *ContentError
			if !content && !errors.Is(err, errCut) || content && !errors.As(err, &bad) {
				t.Fatalf("error %v", err)
			}
			old, _ := before.decode(t)
			i, err := OpenInstalled(dst)
			must(t, err)
			if _, err := i.Check(t.Context(), old, CheckOptions{}); err != nil {
				t.Errorf("link %v: %v", link, err)
			}
			if res, f := replaced(t, after, dst, UnpackOptions{Link: link}); f.bytes != 1 || res.BytesReused != 3<<20+5+4 {
				t.Errorf("link %v: %+v, %d bytes", link, res, f.bytes)
			}
		}
	}
}

// TestCloneOfAFileThatGrew: whoever owns a file that is cloned can add to it after its size
// was looked at, and what is hashed is the clone's beginning.
func TestCloneOfAFileThatGrew(t *testing.T) {
	real := tryClone
	t.Cleanup(func() { tryClone = real })
	var cloned atomic.Int64
	tryClone = func(dst, src *os.File) error {
		cloned.Add(1)
		if _, err := io.Copy(dst, src); err != nil {
			return err
		}
		_, err := dst.WriteString("and more")
		return err
	}
	before, after := oldAndNew()
	dst := filepath.Join(t.TempDir(), "m")
	install(t, before, dst)
	if res, _ := replaced(t, after, dst, UnpackOptions{}); res.BytesReused != 3<<20+5+4 || cloned.Load() != 2 {
		t.Errorf("%+v, %d clones", res, cloned.Load())
	}
}
