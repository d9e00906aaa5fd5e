// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// checked checks dst as verify --dir does.
func checked(t *testing.T, a *artifact, dst string) error {
	t.Helper()
	v, _ := a.decode(t)
	i, err := OpenInstalled(dst)
	must(t, err)
	_, err = i.Check(t.Context(), v, CheckOptions{})
	return err
}

// A replaced model's files must go, and those of its successor find their names free.
func TestFurnitureIsNoPartOfAModel(t *testing.T) {
	var pe *PathError
	if err := newArtifact().file("w", random(10)).file(".snapshot/cfg", random(20)).decodeError(t); !errors.As(err, &pe) {
		t.Errorf("error %v", err)
	}
	dir := packTree(t, map[string]string{"w": "1", "lost+found/x": "2", ".aegisignore": "!lost+found\n"})
	if _, err := Pack(t.Context(), []string{dir}, PackOptions{}); !errors.As(err, &pe) || pe.Path != "lost+found/x" {
		t.Errorf("error %v", err)
	}
}

// A loader that looks for files finds those in what a volume brings along, too.
func TestCheckFindsWhatIsPlantedInTheFurniture(t *testing.T) {
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	for _, name := range []string{
		"lost+found", ".snapshot", ".aegis-staging",
		"lost+found/evil.py", "lost+found/d/evil.py", ".snapshot/evil.py", ".snapshot/daily/evil.py",
		".aegis-staging/evil.py", ".aegis-staging/tree/evil.py", ".aegis-staging/blobs/evil.py", ".aegis-staging/lock/evil.py",
		".aegis-staging/blobs/" + strings.Repeat("a", 64) + "/evil.py", ".aegis-staging/blobs/" + strings.Repeat("a", 64) + ".pieces/evil.py",
	} {
		path := filepath.Join(dst, name)
		mkdir(t, filepath.Dir(path))
		writeFile(t, path, "evil")
		var diff *DirError
		found := func(planted string) bool { return planted == name || strings.HasPrefix(name, planted) }
		if err := checked(t, a, dst); !errors.As(err, &diff) || !slices.ContainsFunc(diff.Extra, found) {
			t.Errorf("%s: error %v", name, err)
		}
		tree, err := HashTree(t.Context(), dst, TreeOptions{})
		must(t, err)
		if !errors.As(tree.Differs(dst, nil), &diff) || !slices.ContainsFunc(diff.Extra, found) {
			t.Errorf("%s is no file of the tree", name)
		}
		top, _, _ := strings.Cut(name, "/")
		must(t, os.RemoveAll(filepath.Join(dst, top)))
	}
	for _, top := range []string{"lost+found", ".snapshot", ".aegis-staging"} {
		must(t, os.Symlink(t.TempDir(), filepath.Join(dst, top)))
		var diff *DirError
		if err := checked(t, a, dst); !errors.As(err, &diff) || !slices.Contains(diff.Links, top) {
			t.Errorf("%s: error %v", top, err)
		}
		must(t, os.Remove(filepath.Join(dst, top)))
	}
	must(t, checked(t, a, dst))
}

// What an interrupted pull left of another model is no file that somebody planted.
func TestCheckBesideWhatAPullLeft(t *testing.T) {
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	next := newArtifact().file("next", random(100)).layer(modelspec.MediaTypeModelWeight, tarOf(t, tarFileOf("x", "1"), tarFileOf("y", string(random(200<<10)))), nil)
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	f := next.fetcher()
	f.serve = cutAfter(90)
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: true}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	must(t, checked(t, a, dst))

	// One that runs has a tree as well, and one that was killed leaves it to its owner.
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	mkdir(t, filepath.Join(dst, stagingName, treeDir))
	writeFile(t, filepath.Join(dst, stagingName, treeDir, "next"), "1")
	must(t, checked(t, a, dst))
	s.leave(false)
	must(t, checked(t, a, dst), os.Chmod(filepath.Join(dst, stagingName), 0o755))
	var diff *DirError
	if err := checked(t, a, dst); !errors.As(err, &diff) || !slices.Contains(diff.Extra, ".aegis-staging/tree/next") {
		t.Errorf("error %v", err)
	}
}

// A server's snapshots are mounted by nobody who can write here.
func TestCheckPassesOverSnapshots(t *testing.T) {
	if ownNamespace(t) {
		return
	}
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	for _, at := range []string{".snapshot", ".snapshot/daily"} {
		snapshots := filepath.Join(dst, at)
		mkdir(t, snapshots)
		must(t, unix.Mount("tmpfs", snapshots, "tmpfs", 0, "size=64k"))
		writeFile(t, filepath.Join(snapshots, "old.bin"), "1")
		err := checked(t, a, dst)
		must(t, unix.Unmount(snapshots, 0), err)
	}
}

// What may not be looked into cannot be loaded either.
func TestCheckPassesOverWhatIsClosed(t *testing.T) {
	if asUser(t) {
		return
	}
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	for _, top := range []string{"lost+found", ".snapshot", ".aegis-staging"} {
		mkdir(t, filepath.Join(dst, top))
		lock(t, filepath.Join(dst, top), 0)
	}
	must(t, checked(t, a, dst))
}

// Who can write to a model's directory can make a staging directory there and lock it.
func TestCheckFindsWhatAHeldLockHides(t *testing.T) {
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	staging := filepath.Join(dst, stagingName)
	mkdir(t, staging)
	must(t, os.Chmod(staging, 0o755))
	writeFile(t, filepath.Join(staging, "evil.py"), "evil")
	writeFile(t, filepath.Join(staging, lockName), "")
	l := flock.New(filepath.Join(staging, lockName))
	defer l.Close()
	if got, err := l.TryLock(); err != nil || !got {
		t.Fatal(got, err)
	}
	var diff *DirError
	if err := checked(t, a, dst); !errors.As(err, &diff) || !slices.Equal(diff.Extra, []string{stagingName + "/evil.py"}) {
		t.Errorf("error %v", err)
	}
}

// What replacing a model leaves is no reason to fetch it again each time.
func TestReplaceSaysWhatItDoesNotRemove(t *testing.T) {
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	mkdir(t, filepath.Join(dst, "lost+found"))
	writeFile(t, filepath.Join(dst, "lost+found", "#123"), "x")
	v, m := a.decode(t)
	for _, replace := range []bool{false, true} {
		f := a.fetcher()
		var diff *DirError
		if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: replace}); !errors.As(err, &diff) || len(f.calls) > 0 {
			t.Errorf("replace %v: %v after %d fetches", replace, err, len(f.calls))
		}
	}
}

// A pull that is killed at any moment leaves nothing by which a whole model would be refused.
func TestCheckPassesWhatKilledPullsLeave(t *testing.T) {
	a, dst := sample(), filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	for _, name := range []string{".aegis/receipt.json.tmp", ".aegis/config.json.tmp", ".aegis/receipt.json.new", stagingName + "/lock"} {
		mkdir(t, filepath.Dir(filepath.Join(dst, name)))
		writeFile(t, filepath.Join(dst, name), "{}")
	}
	mkdir(t, filepath.Join(dst, stagingName, treeDir, ".aegis/signatures"))
	if err := checked(t, a, dst); err != nil {
		t.Error(err)
	}
}

// What is staged beside stays there while the destination has to be refused.
func TestARefusedDestinationKeepsWhatIsStagedBeside(t *testing.T) {
	a, dst := newArtifact().file("w", random(1<<20)).file("x", random(1<<20)), filepath.Join(t.TempDir(), "m")
	v, m := a.decode(t)
	f := a.fetcher()
	f.serve = cutAfter(900 << 10)
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); err == nil {
		t.Fatal("it was cut")
	}
	mkdir(t, dst)
	writeFile(t, filepath.Join(dst, "notes"), "")
	var full *NotEmptyError
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); !errors.As(err, &full) {
		t.Fatalf("error %v", err)
	}
	must(t, os.Remove(filepath.Join(dst, "notes")))
	if res, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); err != nil || res.BytesReused < 800<<10 {
		t.Errorf("%+v, %v", res, err)
	}
}
