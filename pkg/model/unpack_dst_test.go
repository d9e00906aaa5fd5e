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
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

func TestUnpackChecksWhatIsAlreadyThere(t *testing.T) {
	a := sample()
	dst := filepath.Join(t.TempDir(), "m")
	first := install(t, a, dst)
	v, m := a.decode(t)
	f := a.fetcher()
	res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !res.AlreadyThere || res.BytesReused != first.Size || res.Files != first.Files || len(f.calls) != 0 {
		t.Errorf("result %+v after %d fetches", res, len(f.calls))
	}
	wantOnly(t, dst, ".aegis", "copy.onnx", "model.onnx", "run.sh", "sub dir")
	// The newer signature is what is kept now.
	checkInstalled(t, dst, v, 5)
}

func TestUnpackSaysWhatIsDamagedAndReplacesOnRequest(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, dst string)
		list   func(*DirError) []string
		want   string
	}{
		"changed": {
			func(t *testing.T, dst string) { writeFile(t, filepath.Join(dst, "sub dir/späße.txt"), "hellO") },
			func(e *DirError) []string { return e.Changed }, "sub dir/späße.txt",
		},
		"truncated": {
			func(t *testing.T, dst string) { must(t, os.Truncate(filepath.Join(dst, "model.onnx"), 5)) },
			func(e *DirError) []string { return e.Changed }, "model.onnx",
		},
		"missing": {
			func(t *testing.T, dst string) { must(t, os.Remove(filepath.Join(dst, "run.sh"))) },
			func(e *DirError) []string { return e.Missing }, "run.sh",
		},
		"extra": {
			func(t *testing.T, dst string) { writeFile(t, filepath.Join(dst, "sub dir/sitecustomize.py"), "x") },
			func(e *DirError) []string { return e.Extra }, "sub dir/sitecustomize.py",
		},
		"extra in the evidence": {
			func(t *testing.T, dst string) {
				mkdir(t, filepath.Join(dst, ".aegis/layers"))
				writeFile(t, filepath.Join(dst, ".aegis/layers/evil.py"), "x")
			},
			func(e *DirError) []string { return e.Extra }, ".aegis/layers/evil.py",
		},
		"extra directory in the evidence": {
			func(t *testing.T, dst string) { mkdir(t, filepath.Join(dst, ".aegis/pkg")) },
			func(e *DirError) []string { return e.Extra }, ".aegis/pkg/",
		},
		"extra directory": {
			func(t *testing.T, dst string) { mkdir(t, filepath.Join(dst, "x/y")) },
			func(e *DirError) []string { return e.Extra }, "x/",
		},
		"link for a file": {
			func(t *testing.T, dst string) {
				p := filepath.Join(dst, "copy.onnx")
				must(t, os.Remove(p), os.Symlink("model.onnx", p))
			},
			func(e *DirError) []string { return e.Links }, "copy.onnx",
		},
		"link for a directory": {
			func(t *testing.T, dst string) {
				p := filepath.Join(dst, "sub dir")
				must(t, os.Rename(p, filepath.Join(filepath.Dir(dst), "out")), os.Symlink("../out", p))
			},
			func(e *DirError) []string { return e.Links }, "sub dir",
		},
		"directory for a file": {
			func(t *testing.T, dst string) {
				p := filepath.Join(dst, "run.sh")
				must(t, os.Remove(p), os.Mkdir(p, 0o755))
			},
			func(e *DirError) []string { return e.Extra }, "run.sh/",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := sample()
			dst := filepath.Join(t.TempDir(), "m")
			install(t, a, dst)
			c.damage(t, dst)
			v, m := a.decode(t)
			_, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{})
			var diff *DirError
			if !errors.As(err, &diff) || len(c.list(diff)) != 1 || c.list(diff)[0] != c.want {
				t.Fatalf("error %v, want a DirError about %q", err, c.want)
			}
			if exists(filepath.Join(dst, stagingName)) {
				t.Error("staging is left")
			}
			i, err := OpenInstalled(dst)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := i.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &diff) {
				t.Errorf("Check: %v, want a DirError", err)
			}
			if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Replace: true}); err != nil {
				t.Fatal(err)
			}
			wantOnly(t, dst, ".aegis", "copy.onnx", "model.onnx", "run.sh", "sub dir")
			checkInstalled(t, dst, v, 5)
		})
	}
}

// Evidence that cannot be read is damage like any other, where the rest of it tells whose
// directory it is. What is whole is not fetched again.
func TestReplaceMendsDamagedEvidence(t *testing.T) {
	link := func(name string) func(string) error {
		return func(dst string) error {
			p := filepath.Join(dst, name)
			return errors.Join(os.Rename(p, p+"x"), os.Symlink(filepath.Base(p)+"x", p))
		}
	}
	for name, c := range map[string]struct {
		damage func(dst string) error
		// judged is what an unforced pull says.
		judged error
	}{
		"a cut receipt":       {func(dst string) error { return os.Truncate(filepath.Join(dst, receiptName), 7) }, &NotEmptyError{}},
		"an empty receipt":    {func(dst string) error { return os.Truncate(filepath.Join(dst, receiptName), 0) }, &NotEmptyError{}},
		"a link as receipt":   {link(receiptName), &NotEmptyError{}},
		"a link as manifest":  {link(manifestName), &NotEmptyError{}},
		"a link as signature": {link(signatureName(signaturesDir, 0, "envelope")), &NotEmptyError{}},
		"half a signature": {func(dst string) error {
			return os.Remove(filepath.Join(dst, signatureName(signaturesDir, 0, "envelope")))
		}, &NotEmptyError{}},
		"a directory as receipt": {func(dst string) error {
			p := filepath.Join(dst, receiptName)
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
		}, &NotEmptyError{}},
		"layers that there are not": {func(dst string) error {
			p := filepath.Join(dst, receiptName)
			data, err := os.ReadFile(p)
			return errors.Join(err, os.WriteFile(p, bytes.Replace(data, []byte("{"), []byte(`{"layers":"9-1",`), 1), 0o644))
		}, &NotInstalledError{}},
	} {
		t.Run(name, func(t *testing.T) {
			a, dst := sample(), filepath.Join(t.TempDir(), "m")
			install(t, a, dst)
			must(t, c.damage(dst))
			before := snapshot(t, dst)
			v, m := a.decode(t)
			f := a.fetcher()
			_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
			if reflect.TypeOf(err) != reflect.TypeOf(c.judged) || !maps.Equal(before, snapshot(t, dst)) {
				t.Errorf("without --replace: %v", err)
			}
			var warnings []string
			o := UnpackOptions{Replace: true, Warn: func(s string) { warnings = append(warnings, s) }}
			_, err = Unpack(t.Context(), f, v, m, dst, o)
			must(t, err)
			checkInstalled(t, dst, v, 5)
			if f.bytes > 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "replacing") {
				t.Errorf("%d bytes were fetched, warnings %q", f.bytes, warnings)
			}
			wantOnly(t, filepath.Join(dst, evidenceDir), "manifest.json", "receipt.json", "signatures")
		})
	}
}

// Evidence that names nothing, or another model, or that a link leads to, gives nobody's
// directory away.
func TestReplaceRefusesWhatNoEvidenceNames(t *testing.T) {
	a := sample()
	other := newArtifact().file("other", []byte("other"))
	cut := func(t *testing.T, dst, name string) { must(t, os.Truncate(filepath.Join(dst, name), 7)) }
	for name, fill := range map[string]func(t *testing.T, dst string){
		"nothing in .aegis": func(t *testing.T, dst string) { mkdir(t, filepath.Join(dst, evidenceDir)) },
		"a file for .aegis": func(t *testing.T, dst string) { mkdir(t, dst); writeFile(t, filepath.Join(dst, evidenceDir), "mine") },
		"receipt alone, cut": func(t *testing.T, dst string) {
			install(t, a, dst)
			cut(t, dst, receiptName)
			must(t, os.Remove(filepath.Join(dst, manifestName)))
		},
		"another model, its receipt cut": func(t *testing.T, dst string) { install(t, other, dst); cut(t, dst, receiptName) },
		"a link for .aegis": func(t *testing.T, dst string) {
			install(t, a, dst)
			p := filepath.Join(dst, evidenceDir)
			must(t, os.Rename(p, p+"x"), os.Symlink(evidenceDir+"x", p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "m")
			fill(t, dst)
			writeFile(t, filepath.Join(dst, "thesis.tex"), "mine")
			before := snapshot(t, dst)
			v, m := a.decode(t)
			_, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{Replace: true, AllowRollback: true})
			var full *NotEmptyError
			if !errors.As(err, &full) || !maps.Equal(before, snapshot(t, dst)) {
				t.Errorf("error %v, want a NotEmptyError; it holds %q", err, keys(snapshot(t, dst)))
			}
		})
	}
}

func TestUnpackRefusesADirectoryWithOtherContent(t *testing.T) {
	a := sample()
	v, m := a.decode(t)
	for _, o := range []UnpackOptions{{}, {Replace: true, AllowRollback: true}} {
		dst := t.TempDir()
		writeFile(t, filepath.Join(dst, "thesis.tex"), "mine")
		_, err := Unpack(t.Context(), a.fetcher(), v, m, dst, o)
		var full *NotEmptyError
		if !errors.As(err, &full) || full.Names[0] != "thesis.tex" {
			t.Errorf("error %v, want a NotEmptyError", err)
		}
		wantOnly(t, dst, "thesis.tex")
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "mine")
	dangling := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("nowhere", dangling))
	for _, dst := range []string{file, dangling} {
		var full *NotEmptyError
		if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); !errors.As(err, &full) {
			t.Errorf("%s: error %v, want a NotEmptyError", dst, err)
		}
	}
}

func TestUnpackReplacesAnOlderModelOnlyOnRequest(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "m")
	old := sample()
	install(t, old, dst)
	next := newArtifact().file("new", []byte("new")).file("model.onnx", []byte("other")).file("run.sh/now-a-directory", []byte("x"))
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	_, err := Unpack(t.Context(), next.fetcher(), v, m, dst, UnpackOptions{})
	var there *InstalledError
	_, oldSubject := old.raw(t)
	if !errors.As(err, &there) || there.Installed != oldSubject.Digest() || there.Wanted != m.subject.Digest() {
		t.Fatalf("error %v, want an InstalledError", err)
	}
	if _, err := Unpack(t.Context(), next.fetcher(), v, m, dst, UnpackOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dst, ".aegis", "model.onnx", "new", "run.sh")
	checkInstalled(t, dst, v, 3)

	// Back again: the signature is older now.
	v, m = old.decode(t)
	_, err = Unpack(t.Context(), old.fetcher(), v, m, dst, UnpackOptions{Replace: true})
	var rollback *RollbackError
	if !errors.As(err, &rollback) {
		t.Fatalf("error %v, want a RollbackError", err)
	}
	wantOnly(t, dst, ".aegis", "model.onnx", "new", "run.sh")
	if _, err := Unpack(t.Context(), old.fetcher(), v, m, dst, UnpackOptions{Replace: true, AllowRollback: true}); err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, dst, v, 5)
}

// A tampered replacement must not cost the model that is there.
func TestUnpackKeepsTheOldModelWhenTheNewIsRejected(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "m")
	old := sample()
	install(t, old, dst)
	before := snapshot(t, dst)
	next := newArtifact().file("new", []byte("new"))
	v, m := next.decodeSignedAt(t, testNow.Add(time.Minute))
	f := next.fetcher()
	f.serve = serveAs(func(b []byte) []byte { b[0] ^= 1; return b })
	_, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Replace: true})
	var content *ContentError
	if !errors.As(err, &content) {
		t.Fatalf("error %v, want a ContentError", err)
	}
	after := snapshot(t, dst)
	if len(before) != len(after) {
		t.Errorf("before %q, after %q", keys(before), keys(after))
	}
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s changed", name)
		}
	}
}

// halfPlaced leaves dst as a run does that is killed after n renames.
func halfPlaced(t *testing.T, a *artifact, dst string, n int, replace bool) {
	t.Helper()
	v, m := a.decodeSignedAt(t, testNow.Add(time.Minute))
	u := newUnpacking(a.fetcher(), v, m, dst, UnpackOptions{Replace: replace})
	s, err := openSite(t.Context(), dst, silent)
	if err != nil {
		t.Fatal(err)
	}
	found, err := u.survey(t.Context(), s)
	must(t, err, s.begin(m.subject.Digest()), u.fetchAll(t.Context(), s, u.blobs(), nil))
	tr, err := u.assemble(t.Context(), s)
	must(t, err)
	names := append(append([]string(nil), tr.names...), receiptName)
	j := journal{Digest: m.subject.Digest(), State: statePlacing, New: names}
	if found == foundOther {
		j.Old, err = s.listTree()
		must(t, err)
	}
	must(t, s.writeJournal(j))
	if n < 0 { // killed while the old files were removed
		must(t, removeName(s.base, receiptName), removeName(s.base, "run.sh"))
	} else {
		must(t, s.clear(j.Old))
		for _, dir := range keysOf(tr.dirs) {
			must(t, makeDirs(s.base, dir, map[string]bool{}))
		}
		for _, name := range names[:n] {
			must(t, s.base.Rename(s.staging+"/"+treeDir+"/"+name, name))
		}
	}
	s.leave(false)
}

func keysOf(m map[string]bool) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

// Whatever rename a run is killed after, but the last one, the directory does not pass
// for a complete model, a run of the same digest finishes without fetching the raw
// layers again, and a run of another digest clears what is there. After the last one, the
// receipt's, it is a model like any other.
func TestUnpackFinishesOrClearsAHalfDoneList(t *testing.T) {
	other := newArtifact().file("other", []byte("other"))
	for n := -1; n <= 9; n++ {
		for _, replace := range []bool{false, true} {
			if n < 0 && !replace {
				continue
			}
			for _, same := range []bool{true, false} {
				dst := t.TempDir()
				if replace {
					install(t, newArtifact().file("run.sh", []byte("old")).file("old dir/old", []byte("old")), dst)
				} else {
					must(t, os.RemoveAll(filepath.Join(dst, evidenceDir)))
				}
				a := sample()
				halfPlaced(t, a, dst, n, replace)
				if n < 9 { // the ninth is the receipt
					if _, err := OpenInstalled(dst); err == nil {
						t.Fatalf("%d renames, replace %v: it passes for a complete model", n, replace)
					}
				}
				if !same {
					a = other
				}
				v, m := a.decodeSignedAt(t, testNow.Add(time.Hour/2))
				f := a.fetcher()
				res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
				if n == 9 && !same {
					var installed *InstalledError
					if !errors.As(err, &installed) || len(f.calls) > 0 {
						t.Fatalf("all renames, replace %v: error %v, %d fetched, want an InstalledError", replace, err, len(f.calls))
					}
					for name, content := range sampleNames() {
						if names(t, dst)[name] != content {
							t.Errorf("replace %v: %s is gone, or another", replace, name)
						}
					}
					continue
				}
				if err != nil {
					t.Fatalf("%d renames, replace %v, same %v: %v", n, replace, same, err)
				}
				if n == 9 && (!res.AlreadyThere || len(f.calls) > 0) {
					t.Errorf("all renames, replace %v: %+v, %d fetched", replace, res, len(f.calls))
				}
				if same && f.bytes > 0 && n >= 0 {
					t.Errorf("%d renames, replace %v: %d bytes were fetched again", n, replace, f.bytes)
				}
				if same {
					checkInstalled(t, dst, v, 5)
				} else {
					wantOnly(t, dst, ".aegis", "other")
				}
			}
		}
	}
}

func TestUnpackClearsOnlyTheList(t *testing.T) {
	dst := t.TempDir()
	halfPlaced(t, sample(), dst, 3, false)
	writeFile(t, filepath.Join(dst, "sub dir", "mine"), "mine")
	other := newArtifact().file("other", []byte("other"))
	v, m := other.decode(t)
	_, err := Unpack(t.Context(), other.fetcher(), v, m, dst, UnpackOptions{})
	var full *NotEmptyError
	if !errors.As(err, &full) {
		t.Fatalf("error %v, want a NotEmptyError", err)
	}
	if got := names(t, dst); len(got) != 2 || got["sub dir/mine"] != "mine" {
		t.Errorf("left: %q", keys(got))
	}
}

// What somebody writes to an empty destination while a model is fetched stays, and stays
// somebody's, whether the model has that name or not.
func TestUnpackLeavesWhatCameMeanwhile(t *testing.T) {
	for _, name := range []string{"run.sh", "sub dir/mine", "notes"} {
		for _, o := range []UnpackOptions{{}, {NoResume: true}} {
			dst, a := t.TempDir(), sample()
			v, m := a.decode(t)
			f := a.fetcher()
			var once sync.Once
			f.serve = func(_ ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
				once.Do(func() {
					mkdir(t, filepath.Dir(filepath.Join(dst, name)))
					writeFile(t, filepath.Join(dst, name), "mine")
				})
				return io.NopCloser(bytes.NewReader(content[offset:])), nil
			}
			for run := range 3 {
				_, err := Unpack(t.Context(), f, v, m, dst, o)
				var full *NotEmptyError
				if !errors.As(err, &full) {
					t.Fatalf("%s, %+v, run %d: error %v, want a NotEmptyError", name, o, run, err)
				}
				top, _, _ := strings.Cut(name, "/")
				if run > 0 || o.NoResume {
					wantOnly(t, dst, top) // nothing is staged
				}
				if data, err := os.ReadFile(filepath.Join(dst, name)); err != nil || string(data) != "mine" {
					t.Fatalf("%s, %+v, run %d: it holds %q, %v", name, o, run, data, err)
				}
			}
		}
	}
}

// The same in the middle of the renames: what is the model's is cleared, and nothing else.
func TestUnpackLeavesWhatCameWhileItIsPlaced(t *testing.T) {
	dst, a := t.TempDir(), sample()
	v, m := a.decode(t)
	u := newUnpacking(a.fetcher(), v, m, dst, UnpackOptions{})
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	_, err = u.survey(t.Context(), s)
	must(t, err, s.begin(m.subject.Digest()), u.fetchAll(t.Context(), s, u.blobs(), nil))
	tr, err := u.assemble(t.Context(), s)
	must(t, err)
	taken := tr.names[2]
	j := journal{Digest: m.subject.Digest(), State: statePlacing, New: tr.names, Old: []string{taken}}
	must(t, s.writeJournal(j))
	mkdir(t, filepath.Dir(filepath.Join(dst, taken)))
	writeFile(t, filepath.Join(dst, taken), "mine")
	var full *NotEmptyError
	if err := u.placeEach(s, tr, j); !errors.As(err, &full) {
		t.Fatalf("error %v, want a NotEmptyError", err)
	}
	s.leave(false)
	for range 2 {
		if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); !errors.As(err, &full) {
			t.Fatalf("error %v, want a NotEmptyError", err)
		}
		got := names(t, dst)
		for _, name := range tr.names {
			if content, there := got[name]; there != (name == taken) || there && content != "mine" {
				t.Fatalf("%s: %v, %q", name, there, content)
			}
		}
	}
}

// A model without a receipt that was placed whole is nobody's to clear, though its
// staging is left.
func TestUnpackLeavesWhatWasPlacedWhole(t *testing.T) {
	dst, a := t.TempDir(), sample()
	_, m := a.decode(t)
	u := newUnpacking(a.fetcher(), verify.Verified{}, m, dst, UnpackOptions{})
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	started, err := u.at(t.Context(), s)
	if must(t, err); !started {
		t.Fatal("it has not started")
	}
	s.leave(false)
	before := names(t, dst)
	other := newArtifact().file("other", []byte("other"))
	v, m := other.decode(t)
	var full *NotEmptyError
	if _, err := Unpack(t.Context(), other.fetcher(), v, m, dst, UnpackOptions{}); !errors.As(err, &full) {
		t.Fatalf("error %v, want a NotEmptyError", err)
	}
	after := names(t, dst)
	for name, content := range before {
		if !strings.HasPrefix(name, stagingName+"/") && after[name] != content {
			t.Errorf("%s is gone, or another", name)
		}
	}
}

// A run that is interrupted while it checks what is there keeps what it has staged.
func TestUnpackKeepsWhatIsStagedWhenTheCheckIsInterrupted(t *testing.T) {
	dst, a := t.TempDir(), sample()
	unpackSelected(t, a, dst, Selection{Include: []string{"run.sh"}})
	v, m := a.decode(t)
	f := a.fetcher()
	f.serve = func(desc ocispec.Descriptor, content []byte, offset int64) (io.ReadCloser, error) {
		if desc.Size < 1000 {
			return nil, errors.New("the line is cut")
		}
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	}
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Concurrency: 1}); err == nil {
		t.Fatal("it has all")
	}
	staged := func() int { return len(names(t, filepath.Join(dst, stagingName, filepath.FromSlash(blobsDir)))) }
	before := staged()
	if before == 0 {
		t.Fatal("nothing is staged: the test tests nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Unpack(ctx, a.fetcher(), v, m, dst, UnpackOptions{Progress: endsAtOnce{cancel}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if now := staged(); now != before {
		t.Errorf("%d blobs are staged, there were %d", now, before)
	}
}

// endsAtOnce calls off what it sees begin.
type endsAtOnce struct{ cancel func() }

func (e endsAtOnce) Start(string, int64) { e.cancel() }
func (endsAtOnce) Add(string, int64)     {}
func (endsAtOnce) Done(string)           {}

func TestUnpackManyAtOnceFetchOnce(t *testing.T) {
	for _, inside := range []bool{false, true} {
		parent := t.TempDir()
		dst := filepath.Join(parent, "m")
		if inside {
			mkdir(t, dst)
		}
		a := sample()
		v, m := a.decode(t)
		f := a.fetcher()
		var (
			g     errgroup.Group
			mu    sync.Mutex
			first int
		)
		for range 8 {
			g.Go(func() error {
				res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
				mu.Lock()
				defer mu.Unlock()
				if !res.AlreadyThere {
					first++
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if first != 1 || len(f.calls) != 3 {
			t.Errorf("inside %v: %d runs fetched, with %d calls", inside, first, len(f.calls))
		}
		wantOnly(t, parent, "m")
		checkInstalled(t, dst, v, 5)
	}
}

func TestUnpackIgnoresTheUmaskAndKeepsTheGroupBit(t *testing.T) {
	dst := t.TempDir()
	must(t, os.Chmod(dst, 0o775|fs.ModeSetgid))
	install(t, sample(), dst)
	info, err := os.Stat(filepath.Join(dst, "sub dir"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode()&(fs.ModePerm|fs.ModeSetgid) != 0o755|fs.ModeSetgid {
		t.Errorf("the directory has mode %v", info.Mode())
	}
}

func TestOpenInstalledTrustsNothing(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"a link for .aegis": func(t *testing.T, dir string) {
			p := filepath.Join(dir, evidenceDir)
			must(t, os.Rename(p, p+"x"), os.Symlink(".aegisx", p))
		},
		"a link for the manifest": func(t *testing.T, dir string) {
			p := filepath.Join(dir, manifestName)
			must(t, os.Rename(p, p+"x"), os.Symlink("manifest.jsonx", p))
		},
		"a huge manifest": func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, manifestName), 5<<20))
		},
		"a huge receipt": func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, receiptName), 1<<40))
		},
		"no receipt":          func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, receiptName))) },
		"a malformed receipt": func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, receiptName), "{") },
		"another manifest":    func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, manifestName), "{}") },
		"an unfinished signature": func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, signatureName(signaturesDir, 0, "envelope"))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "m")
			install(t, sample(), dst)
			spoil(t, dst)
			var not *NotInstalledError
			if _, err := OpenInstalled(dst); !errors.As(err, &not) {
				t.Errorf("error %v, want a NotInstalledError", err)
			}
		})
	}
}

// A receipt that was rewritten to fit another manifest does not help it.
func TestCheckHoldsTheKeptManifestToTheVerifiedOne(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "m")
	install(t, sample(), dst)
	v, _ := newArtifact().file("a", []byte("x")).decode(t)
	i, err := OpenInstalled(dst)
	if err != nil {
		t.Fatal(err)
	}
	var content *ContentError
	if _, err := i.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &content) {
		t.Errorf("error %v, want a ContentError", err)
	}
}

func TestDirErrorIsBounded(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "m")
	a := sample()
	install(t, a, dst)
	for i := range 500 {
		writeFile(t, filepath.Join(dst, strings.Repeat("x", i%200+1)+string(rune('a'+i/200))), "x")
	}
	v, _ := a.decode(t)
	i, err := OpenInstalled(dst)
	must(t, err)
	_, err = i.Check(t.Context(), v, CheckOptions{})
	var diff *DirError
	if !errors.As(err, &diff) || len(diff.Extra) != maxDirNames || diff.More != 400 {
		t.Errorf("%v", err)
	}
}

// silent is for what warns of nothing.
// A destination that is made after a run was killed has its staging inside, and what was
// beside it would stay for ever.
func TestUnpackTakesOverWhatIsStagedBeside(t *testing.T) {
	a := newArtifact().file("a", random(5000))
	v, m := a.decode(t)
	for name, c := range map[string]struct {
		between func(dst string)
		reused  int64
		stays   bool
	}{
		"made": {func(string) {}, 1000, false},
		"with other staging": {func(dst string) {
			beside := filepath.Join(filepath.Dir(dst), stagingBeside("m"))
			must(t, os.Rename(beside, beside+"x"))
			halfFetched(t, a, dst, 10)
			must(t, os.Rename(beside+"x", beside))
		}, 10, false},
		"in use": {func(dst string) {
			s := &site{dst: dst, staging: stagingBeside("m")}
			var err error
			s.base, err = os.OpenRoot(filepath.Dir(dst))
			must(t, err, s.openStaging(), s.takeLock(t.Context(), silent))
			t.Cleanup(func() { s.leave(false) })
		}, 0, true},
	} {
		parent := t.TempDir()
		dst := filepath.Join(parent, "m")
		halfFetched(t, a, dst, 1000)
		wantOnly(t, parent, stagingBeside("m"))
		mkdir(t, dst)
		c.between(dst)
		res, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{})
		if err != nil || res.BytesReused != c.reused {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		checkInstalled(t, dst, v, 1)
		if exists(filepath.Join(parent, stagingBeside("m"))) != c.stays {
			t.Errorf("%s: what was beside stays: %v", name, !c.stays)
		}
	}

	// A journal that somebody planted there clears nothing.
	parent := t.TempDir()
	dst := filepath.Join(parent, "m")
	halfFetched(t, a, dst, 1000)
	mkdir(t, dst)
	writeFile(t, filepath.Join(dst, "keep"), "1")
	writeFile(t, filepath.Join(parent, stagingBeside("m"), journalName),
		`{"version":1,"digest":"`+m.subject.Digest().String()+`","state":"placing","new":["keep"]}`)
	var full *NotEmptyError
	if _, err := Unpack(t.Context(), a.fetcher(), v, m, dst, UnpackOptions{}); !errors.As(err, &full) {
		t.Errorf("error %v", err)
	}
	wantOnly(t, dst, "keep")
}

// halfFetched leaves n bytes of each blob staged.
func halfFetched(t *testing.T, a *artifact, dst string, n int64) {
	t.Helper()
	v, m := a.decode(t)
	f := a.fetcher()
	f.serve = cutAfter(n)
	if _, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
}

func silent(string) {}

// TestAPullSaysThatItWaits has a destination that somebody else is filling, without end.
func TestAPullSaysThatItWaits(t *testing.T) {
	t.Parallel()
	a, dst := sample(), filepath.Join(t.TempDir(), "model")
	held, err := openSite(t.Context(), dst, silent)
	must(t, err)
	defer held.leave(true)
	cause := errors.New("the node goes down")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	v, m := a.decodeSignedAt(t, testNow)
	said := make(chan string, 1)
	u := newUnpacking(a.fetcher(), v, m, dst, UnpackOptions{Warn: func(s string) {
		said <- s
		cancel(cause)
	}})
	_, err = u.run(ctx)
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "waiting for another process that is filling "+dst) {
		t.Errorf("error %v", err)
	}
	select {
	case got := <-said:
		if !strings.Contains(got, "another process is filling "+dst) {
			t.Errorf("said %q", got)
		}
	default:
		t.Error("nothing was said")
	}
}
