// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"archive/tar"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
)

// watcher notes in which order files are begun, and how many are open at once.
type watcher struct {
	mu         sync.Mutex
	begun      []int64
	open, most int
	meet       chan struct{} // two files at once meet here
}

func (w *watcher) Start(_ string, total int64) {
	w.mu.Lock()
	w.begun = append(w.begun, total)
	w.open++
	w.most = max(w.most, w.open)
	w.mu.Unlock()
	if w.meet == nil {
		return
	}
	select {
	case w.meet <- struct{}{}:
	case <-w.meet:
	case <-time.After(10 * time.Second):
	}
}

func (w *watcher) Add(string, int64) {}

func (w *watcher) Done(string) {
	w.mu.Lock()
	w.open--
	w.mu.Unlock()
}

func TestCheckTakesTheLargestFilesFirstAndSeveralAtOnce(t *testing.T) {
	a := newArtifact()
	for i, size := range []int{10, 3000, 200, 0, 1 << 20, 77} {
		a.file(string(rune('a'+i)), random(size))
	}
	dst := filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	v, _ := a.decode(t)
	i, err := OpenInstalled(dst)
	must(t, err)
	w := &watcher{}
	if _, err := i.Check(t.Context(), v, CheckOptions{Concurrency: 1, Progress: w}); err != nil {
		t.Fatal(err)
	}
	if want := []int64{1 << 20, 3000, 200, 77, 10, 0}; !slices.Equal(w.begun, want) || w.most != 1 {
		t.Errorf("with one worker: %v, %d at once; want %v", w.begun, w.most, want)
	}
	w = &watcher{meet: make(chan struct{})}
	if _, err := i.Check(t.Context(), v, CheckOptions{Concurrency: 2, Progress: w}); err != nil {
		t.Fatal(err)
	}
	if w.most != 2 || w.begun[len(w.begun)-1] > 10 {
		t.Errorf("with two workers: %v, %d at once", w.begun, w.most)
	}
}

// Archives are compared at the same time, though a hard link may lead from one to
// another, and each of them is held to its own names.
func TestCheckTakesSeveralArchivesAtOnce(t *testing.T) {
	one := tarOf(t, tarIn{Header: tar.Header{Name: "a/one"}, body: string(random(70000))}, tarIn{Header: tar.Header{Name: "a/empty"}})
	two := tarOf(t, tarIn{Header: tar.Header{Name: "a/two"}, body: string(random(80001))},
		tarIn{Header: tar.Header{Name: "a/link", Typeflag: tar.TypeLink, Linkname: "a/one"}})
	a := newArtifact().layer(modelspec.MediaTypeModelWeight, one, nil).layer(modelspec.MediaTypeModelWeight, two, nil).
		file("c", random(10)).file("d", random(9))
	dst := filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	v, _ := a.decode(t)
	i, err := OpenInstalled(dst)
	must(t, err)
	w := &watcher{meet: make(chan struct{})}
	got, err := i.Check(t.Context(), v, CheckOptions{Concurrency: 2, Progress: w})
	if err != nil || got.Files != 6 {
		t.Fatalf("%+v, %v", got, err)
	}
	if w.most != 2 || w.begun[0] < 60000 || w.begun[1] < 60000 {
		t.Errorf("%v, %d at once", w.begun, w.most)
	}
	for name, change := range map[string]func(p string) error{
		"a/one": func(p string) error { return os.WriteFile(p, random(70000)[:69999], 0o644) },
		"a/two": func(p string) error { return os.WriteFile(p, append(random(80001)[1:], 0), 0o644) },
		"a/link": func(p string) error {
			return errors.Join(os.Remove(p), os.WriteFile(p, append(random(70000)[1:], 0), 0o644))
		},
		"a/more": func(p string) error { return os.WriteFile(p, nil, 0o644) },
	} {
		p := filepath.Join(dst, filepath.FromSlash(name))
		before, _ := os.ReadFile(p)
		must(t, change(p))
		_, err := i.Check(t.Context(), v, CheckOptions{Concurrency: 4})
		var differs *DirError
		if !errors.As(err, &differs) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, os.Remove(p))
		if before != nil {
			must(t, os.WriteFile(p, before, 0o644))
		}
	}
	if _, err := i.Check(t.Context(), v, CheckOptions{}); err != nil {
		t.Error(err)
	}
}

// A name that two archives have when they are hashed, and had not when they were skimmed,
// is no name of the model.
func TestCheckRefusesANameOfTwoArchives(t *testing.T) {
	for _, kinds := range [][2]tarKind{{tarFile, tarSymlink}, {tarFile, tarFile}, {tarSymlink, tarDir}} {
		c := &checker{expected: make(map[string]tarKind)}
		c.expect("d/x", kinds[0])
		c.expect("d/y", kinds[0])
		if !c.diff.empty() {
			t.Fatalf("%v", c.diff)
		}
		c.expect("d/x", kinds[1])
		if !slices.Equal(c.diff.Changed, []string{"d/x"}) {
			t.Errorf("%v: %v", kinds, c.diff)
		}
	}
	c := &checker{expected: make(map[string]tarKind)}
	c.expect("d", tarDir)
	c.expect("d", tarDir)
	c.expect("d/x", tarFile)
	c.expect("d/x/y", tarFile)
	if !slices.Equal(c.diff.Changed, []string{"d/x"}) {
		t.Errorf("%v", c.diff)
	}
}

// TestSkeletonsThatAreNoFiles: what stands in the place of what we wrote is damage, like
// a change in it.
func TestSkeletonsThatAreNoFiles(t *testing.T) {
	const skeleton = layersDir + "/1.skeleton"
	for name, c := range map[string]struct {
		spoil func(path string) error
		want  string
	}{
		"a link":      {func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink("1.skeleton2", p)) }, skeleton},
		"a directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, skeleton},
		"a link for the directory": {func(p string) error {
			dir := filepath.Dir(p)
			return errors.Join(os.Rename(dir, dir+"2"), os.Symlink("layers2", dir))
		}, layersDir},
		"a link out for the directory": {func(p string) error {
			dir := filepath.Dir(p)
			out := filepath.Join(dir, "../../../out")
			return errors.Join(os.Rename(dir, out), os.Symlink("../../out", dir))
		}, layersDir},
		"a file for the directory": {func(p string) error {
			dir := filepath.Dir(p)
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644))
		}, layersDir},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArtifact().file("w.bin", random(100))
			for _, name := range []string{"x", "y"} {
				a.layer("application/vnd.cncf.model.doc.v1.tar", tarOf(t, tarFileOf(name, name)), map[string]string{"org.cncf.model.filepath": name})
			}
			parent := t.TempDir()
			dst := filepath.Join(parent, "m")
			install(t, a, dst)
			must(t, c.spoil(filepath.Join(dst, skeleton)))
			v, m := a.decode(t)
			i, err := OpenInstalled(dst)
			must(t, err)
			var diff *DirError
			if _, err := i.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &diff) || !slices.Equal(diff.Changed, []string{c.want}) {
				t.Errorf("check: %v, want %s among what changed", err, c.want)
			}
			outside := snapshot(t, parent)
			if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); !errors.As(err, &diff) || !slices.Equal(diff.Changed, []string{c.want}) {
				t.Errorf("pull: %v, want %s among what changed", err, c.want)
			}
			if !maps.Equal(outside, snapshot(t, parent)) {
				t.Error("the refusal has changed something")
			}
			if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Replace: true}); err != nil {
				t.Fatal(err)
			}
			checkInstalled(t, dst, v, 3)
			for name, content := range snapshot(t, parent) {
				if strings.HasPrefix(name, "out/") && outside[name] != content {
					t.Errorf("%s was written through the link", name)
				}
			}
		})
	}
}
