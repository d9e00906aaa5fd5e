// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestSelectionPicksLayersByNameAndKind(t *testing.T) {
	a := newArtifact()
	for _, f := range []struct{ mediaType, path string }{
		{modelspec.MediaTypeModelWeightRaw, "a.safetensors"},
		{modelspec.MediaTypeModelWeightRaw, "onnx/b.onnx"},
		{modelspec.MediaTypeModelWeightConfigRaw, "config.json"},
		{modelspec.MediaTypeModelDocRaw, "onnx/README.md"},
		{"application/vnd.kitops.modelkit.model.v1.raw", "kit.gguf"},
		{"application/octet-stream", "plain.gguf"},
	} {
		a.layer(f.mediaType, []byte(f.path), map[string]string{ocispec.AnnotationTitle: f.path})
	}
	a.layer(modelspec.MediaTypeModelCodeRaw[:len(modelspec.MediaTypeModelCodeRaw)-3]+"tar", []byte("tar"), nil)
	_, m := a.decode(t)
	for _, c := range []struct {
		s    Selection
		want string
	}{
		{Selection{}, "0-6"},
		{Selection{Include: []string{"*.safetensors"}}, "0"},
		{Selection{Include: []string{"*.onnx"}}, ""},
		{Selection{Include: []string{"**/*.onnx", "config.json"}}, "1-2"},
		{Selection{Include: []string{"onnx"}}, "1,3"},
		{Selection{Include: []string{"onnx", "!**/*.md"}}, "1"},
		{Selection{Exclude: []string{"onnx/"}}, "0,2,4-6"},
		{Selection{Exclude: []string{"*", "!onnx"}}, "1,3"},
		{Selection{Include: []string{"onnx"}, Exclude: []string{"**/*.md"}}, "1"},
		{Selection{Kinds: []string{"weight"}}, "0-1,4-5"},
		{Selection{Kinds: []string{"config", "doc"}}, "2-3"},
		{Selection{Kinds: []string{"weight.config"}}, "2"},
		{Selection{Kinds: []string{"code"}}, "6"},
		{Selection{Kinds: []string{"weight"}, Exclude: []string{"*.gguf"}}, "0-1"},
		{Selection{Kinds: []string{"dataset"}}, ""},
	} {
		set, err := c.s.choose(m)
		var none *SelectionError
		if c.want == "" && !errors.As(err, &none) || c.want != "" && (err != nil || set.String() != c.want) {
			t.Errorf("%+v picks %q, %v; want %q", c.s, set, err, c.want)
		}
	}
	for _, s := range []Selection{{Kinds: []string{"weights"}}, {Include: []string{"[a"}}, {Exclude: []string{"[a"}}} {
		var option *OptionError
		if err := s.Check(); !errors.As(err, &option) {
			t.Errorf("%+v: %v, want an OptionError", s, err)
		}
	}
}

// TestSelectionHasNoComments: a pattern is not a file's.
func TestSelectionHasNoComments(t *testing.T) {
	a := newArtifact()
	a.file("#a", []byte("1"))
	a.file("b", []byte("2"))
	_, m := a.decode(t)
	for want, s := range map[string]Selection{"0": {Include: []string{"#a"}}, "1": {Exclude: []string{"#a"}}} {
		if set, err := s.choose(m); err != nil || set.String() != want {
			t.Errorf("%+v picks %q, %v", s, set, err)
		}
	}
}

func TestLayerSetIsReadAsItWasWrittenAndNotOtherwise(t *testing.T) {
	a := newArtifact()
	for i := range 9 {
		a.file(string(rune('a'+i)), []byte{byte(i)})
	}
	_, m := a.decode(t)
	for n := range 1 << 9 {
		set := make(layerSet, 9)
		for i := range set {
			set[i] = n>>i&1 == 1
		}
		got, err := parseLayerSet(set.String(), m)
		if n > 0 && (err != nil || got.String() != set.String()) {
			t.Errorf("%s becomes %s, %v", set, got, err)
		}
	}
	for _, bad := range []string{"", "9", "0-9", "3-1", "1,1", "2,1", "-1", "0-", "x", "0,,1", "99999999999999999999"} {
		if set, err := parseLayerSet(bad, m); err == nil {
			t.Errorf("%q is read as %s", bad, set)
		}
	}
}

// unpackSelected unpacks what s picks of a.
func unpackSelected(t *testing.T, a *artifact, dst string, s Selection) (UnpackResult, *fetcher) {
	t.Helper()
	v, m := a.decode(t)
	f := a.fetcher()
	res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{Select: s})
	if err != nil {
		t.Fatal(err)
	}
	return res, f
}

func TestUnpackFetchesOnlyWhatIsSelectedAndLaterTheRest(t *testing.T) {
	for _, where := range []string{"missing", "empty"} {
		dst := filepath.Join(t.TempDir(), "m")
		if where == "empty" {
			mkdir(t, dst)
		}
		a := sample()
		hello := Selection{Include: []string{"sub dir/späße.txt"}}
		res, f := unpackSelected(t, a, dst, hello)
		if !res.Partial || res.Files != 1 || res.BytesFetched != 5 || f.bytes != 5 {
			t.Errorf("%s: %+v, %d bytes", where, res, f.bytes)
		}
		wantOnly(t, dst, ".aegis", "sub dir")
		// Once more is one verification.
		if res, f = unpackSelected(t, a, dst, hello); !res.AlreadyThere || !res.Partial || res.BytesReused != 5 || len(f.calls) != 0 {
			t.Errorf("again: %+v", res)
		}
		res, f = unpackSelected(t, a, dst, Selection{Kinds: []string{"code"}})
		if !res.Partial || res.Files != 2 || res.BytesFetched != 10 || res.BytesReused != 5 || f.bytes != 10 {
			t.Errorf("another part: %+v, %d bytes", res, f.bytes)
		}
		res, f = unpackSelected(t, a, dst, Selection{})
		if res.Partial || res.Files != 5 || res.BytesFetched != 2<<20+17 || res.BytesReused != 15 || f.bytes != 2<<20+17 {
			t.Errorf("the rest: %+v, %d bytes", res, f.bytes)
		}
		v, _ := a.decode(t)
		i, err := OpenInstalled(dst)
		must(t, err)
		if got, err := i.Check(t.Context(), v, CheckOptions{}); err != nil || got.Files != 5 || got.Partial {
			t.Errorf("check: %+v, %v", got, err)
		}
		for name, want := range sampleNames() {
			if got := names(t, dst)[name]; got != want {
				t.Errorf("%q differs", name)
			}
		}
		// A part of what is there whole is there.
		if res, f = unpackSelected(t, a, dst, hello); !res.AlreadyThere || res.Partial || len(f.calls) != 0 {
			t.Errorf("a part of the whole: %+v", res)
		}
	}
}

func TestASelectionThatPicksNothingLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	a := sample()
	v, m := a.decode(t)
	_, err := Unpack(t.Context(), a.fetcher(), v, m, filepath.Join(parent, "x", "m"), UnpackOptions{Select: Selection{Include: []string{"*.gguf"}}})
	var none *SelectionError
	if !errors.As(err, &none) || none.Layers != 5 {
		t.Errorf("error %v", err)
	}
	wantOnly(t, parent)
}

func TestCheckHoldsAPartToWhatWasAskedFor(t *testing.T) {
	a := sample()
	v, _ := a.decode(t)
	sub := Selection{Include: []string{"sub dir"}}
	part := func(t *testing.T) string {
		dst := filepath.Join(t.TempDir(), "m")
		unpackSelected(t, a, dst, sub)
		return dst
	}
	check := func(dst string, o CheckOptions) (Checked, error) {
		i, err := OpenInstalled(dst)
		if err != nil {
			return Checked{}, err
		}
		return i.Check(t.Context(), v, o)
	}
	dst := part(t)
	for _, o := range []CheckOptions{{Select: sub}, {AsRecorded: true}, {Select: Selection{Include: []string{"sub dir/empty"}}}} {
		if got, err := check(dst, o); err != nil || got != (Checked{Files: 2, Size: 5, Partial: true}) {
			t.Errorf("%+v: %+v, %v", o, got, err)
		}
	}
	var partial *PartialError
	if _, err := check(dst, CheckOptions{}); !errors.As(err, &partial) || partial.Missing != "model.onnx" || partial.MissingLayers != 3 || partial.Layers != 2 || partial.Of != 5 {
		t.Errorf("the whole model: %v", err)
	}
	if _, err := check(dst, CheckOptions{Select: Selection{Kinds: []string{"code"}}}); !errors.As(err, &partial) || partial.Missing != "run.sh" {
		t.Errorf("another part: %v", err)
	}
	for what, damage := range map[string]func(dst string){
		"missing":  func(dst string) { must(t, os.Remove(filepath.Join(dst, "sub dir/empty"))) },
		"changed":  func(dst string) { writeFile(t, filepath.Join(dst, "sub dir/empty"), "x") },
		"extra":    func(dst string) { writeFile(t, filepath.Join(dst, "x"), "x") },
		"unpicked": func(dst string) { writeFile(t, filepath.Join(dst, "run.sh"), "#!/bin/sh\n") },
	} {
		dst := part(t)
		damage(dst)
		var diff *DirError
		for _, o := range []CheckOptions{{Select: sub}, {AsRecorded: true}} {
			if _, err := check(dst, o); !errors.As(err, &diff) {
				t.Errorf("%s: %v, want a DirError", what, err)
			}
		}
	}
}

// Who can write the volume takes a file away and makes the receipt say so.
func TestARewrittenReceiptDoesNotMakeAPartPassForTheWhole(t *testing.T) {
	a := sample()
	v, m := a.decode(t)
	dst := filepath.Join(t.TempDir(), "m")
	install(t, a, dst)
	must(t, os.Remove(filepath.Join(dst, "run.sh")))
	p := filepath.Join(dst, filepath.FromSlash(receiptName))
	data, err := os.ReadFile(p)
	must(t, err)
	writeFile(t, p, strings.Replace(string(data), `"files"`, `"layers": "0-3", "files"`, 1))
	i, err := OpenInstalled(dst)
	must(t, err)
	var partial *PartialError
	if _, err := i.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &partial) || partial.Missing != "run.sh" {
		t.Errorf("error %v, want a PartialError", err)
	}
	// A pull of the whole brings it back.
	f := a.fetcher()
	res, err := Unpack(t.Context(), f, v, m, dst, UnpackOptions{})
	if err != nil || res.BytesFetched != 10 || f.bytes != 10 || res.Partial {
		t.Errorf("%+v, %v", res, err)
	}
	writeFile(t, p, strings.Replace(string(data), `"files"`, `"layers": "0-9", "files"`, 1))
	i, err = OpenInstalled(dst)
	must(t, err)
	var not *NotInstalledError
	if _, err := i.Check(t.Context(), v, CheckOptions{}); !errors.As(err, &not) {
		t.Errorf("layers that are not there: %v", err)
	}
}

// A run that is killed while it adds layers leaves what was there, and the next
// run of this or of another part finishes or forgets it.
func TestAHalfDoneExtensionLosesNothing(t *testing.T) {
	for moved := 0; moved <= 3; moved++ {
		for _, next := range []Selection{{}, {Include: []string{"sub dir"}}} {
			dst := filepath.Join(t.TempDir(), "m")
			a := sample()
			unpackSelected(t, a, dst, Selection{Include: []string{"sub dir"}})
			halfExtended(t, a, dst, moved)
			res, f := unpackSelected(t, a, dst, next)
			if next.IsZero() && (f.bytes != 0 || res.Files != 5 || res.Partial) {
				t.Errorf("%d moved: %+v, %d bytes fetched again", moved, res, f.bytes)
			}
			if !next.IsZero() && (len(f.calls) != 0 || !res.AlreadyThere || res.Files != 2) {
				t.Errorf("%d moved, and the part: %+v", moved, res)
			}
			v, _ := a.decode(t)
			i, err := OpenInstalled(dst)
			must(t, err)
			if _, err := i.Check(t.Context(), v, CheckOptions{Select: next}); err != nil {
				t.Errorf("%d moved: %v", moved, err)
			}
			if exists(filepath.Join(dst, stagingName)) {
				t.Error("staging is left")
			}
		}
	}
}

// halfExtended does what extend does up to a kill after some renames.
func halfExtended(t *testing.T, a *artifact, dst string, moved int) {
	t.Helper()
	v, m := a.decode(t)
	u := newUnpacking(a.fetcher(), v, m, dst, UnpackOptions{})
	must(t, u.acceptLayers())
	s, err := openSite(t.Context(), dst, silent)
	must(t, err)
	found, err := u.survey(t.Context(), s)
	if err != nil || found != foundPart {
		t.Fatalf("%v, %v", found, err)
	}
	must(t, s.begin(m.subject.Digest()), u.fetchAll(t.Context(), s, u.blobs(), nil))
	tree, err := u.assemble(t.Context(), s)
	must(t, err)
	j := journal{Digest: m.subject.Digest(), State: stateExtending, New: tree.names, Layers: u.receiptLayers()}
	must(t, s.writeJournal(j))
	j.New = j.New[:moved]
	must(t, u.placeEach(s, tree, j))
	s.leave(false)
}
