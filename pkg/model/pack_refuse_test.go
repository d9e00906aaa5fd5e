// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPackNeedsAFile(t *testing.T) {
	empty := t.TempDir()
	ignored := packTree(t, map[string]string{".git/HEAD": "x", "a.swp": "x", ".aegisignore": "*.bin\n", "b.bin": "x"})
	for name, paths := range map[string][]string{"no argument": nil, "an empty directory": {empty}, "all ignored": {ignored}} {
		_, err := Pack(t.Context(), paths, PackOptions{})
		var ee *EmptyError
		if !errors.As(err, &ee) {
			t.Errorf("%s: %v, want an *EmptyError", name, err)
		} else if (ee.Ignored > 0) != (name == "all ignored") {
			t.Errorf("%s: %d ignored", name, ee.Ignored)
		}
	}
}

func TestPackRefusesArguments(t *testing.T) {
	dir := packTree(t, map[string]string{"a/x": "1", "b/x": "2", "b/X": "3", "c": "4"})
	packLink(t, "nowhere", filepath.Join(dir, "gone"))
	join := func(name string) string { return filepath.Join(dir, name) }
	for name, paths := range map[string][]string{
		"missing": {join("nothing")}, "dangling": {join("gone")},
		"two directories": {join("a"), join("b")}, "a directory and a file": {join("c"), join("a")},
	} {
		var se *SourceError
		if _, err := Pack(t.Context(), paths, PackOptions{}); !errors.As(err, &se) || se.Path == "" {
			t.Errorf("%s: %v, want a *SourceError", name, err)
		}
	}
	for name, paths := range map[string][]string{
		"one name": {join("a/x"), join("b/x")}, "but for case": {join("a/x"), join("b/X")}, "twice": {join("c"), join("c")},
	} {
		_, err := Pack(t.Context(), paths, PackOptions{})
		var ce *CollisionError
		if !errors.As(err, &ce) || ce.First != paths[0] || ce.Second != paths[1] {
			t.Errorf("%s: %v, want a *CollisionError that names both", name, err)
		}
	}
}

// started counts the files whose hashing began.
type started struct{ files int }

func (s *started) Start(string, int64) { s.files++ }
func (s *started) Add(string, int64)   {}
func (s *started) Done(string)         {}

func TestPackRefusesLargeFilesBeforeHashing(t *testing.T) {
	dir := packTree(t, map[string]string{"a": "12345", "b": "1234"})
	begun := &started{}
	_, err := Pack(t.Context(), []string{dir}, PackOptions{MaxFileSize: 4, Concurrency: 1, Progress: begun})
	var fe *FileSizeError
	if !errors.As(err, &fe) || fe.Path != "a" || fe.Size != 5 || fe.Max != 4 || begun.files != 0 {
		t.Errorf("%v after hashing %d files", err, begun.files)
	}
	if _, err := Pack(t.Context(), []string{dir}, PackOptions{MaxFileSize: 5}); err != nil {
		t.Errorf("a file of the very limit: %v", err)
	}
}

func TestPackRefusesOptions(t *testing.T) {
	dir := packTree(t, map[string]string{"a": "1"})
	bad := packTree(t, map[string]string{"a": "1", ".aegisignore": "[a\n"})
	huge := packTree(t, map[string]string{"a": "1", ".aegisignore": strings.Repeat("# comment\n", maxIgnoreFile/10+1)})
	for name, c := range map[string]struct {
		dir string
		o   PackOptions
	}{
		"annotation without a name": {dir, PackOptions{Annotations: map[string]string{"": "x"}}},
		"annotation not UTF-8":      {dir, PackOptions{Annotations: map[string]string{"k": "\xff"}}},
		"name not UTF-8":            {dir, PackOptions{Name: "\xff"}},
		"parameter size":            {dir, PackOptions{Details: Details{ParamSize: "7 billion"}}},
		"exclude pattern":           {dir, PackOptions{Exclude: []string{"[x"}}},
		"exclude of nothing":        {dir, PackOptions{Exclude: []string{"!"}}},
		"ignore file's pattern":     {bad, PackOptions{}},
		"ignore file's size":        {huge, PackOptions{}},
	} {
		var oe *OptionError
		if _, err := Pack(t.Context(), []string{c.dir}, c.o); !errors.As(err, &oe) {
			t.Errorf("%s: %v, want an *OptionError", name, err)
		}
	}
}

func TestPackRefusesNames(t *testing.T) {
	for _, names := range [][]string{
		{".aegis/receipt.json"}, {"sub/.aegis/x"}, {".aegis-staging/x"}, {".AEGIS/x"},
		{"con.json"}, {`a\b`}, {"a:b"}, {"line\nbreak"}, {"bad\xff"}, {"dot."}, {"space "},
		{"README", "readme"}, {"caf\u00e9", "cafe\u0301"}, {"Dir/x", "dir/y"},
	} {
		files := make(map[string]string)
		for _, n := range names {
			files[n] = "x"
		}
		_, err := Pack(t.Context(), []string{packTree(t, files)}, PackOptions{})
		var pe *PathError
		if !errors.As(err, &pe) || pe.Reason == "" {
			t.Errorf("%q: %v, want a *PathError", names, err)
		}
	}
}

func TestPackSaysWhatDotAegisIs(t *testing.T) {
	dir := packTree(t, map[string]string{".aegis/receipt.json": "{}", "model.bin": "x"})
	_, err := Pack(t.Context(), []string{dir}, PackOptions{})
	var pe *PathError
	if !errors.As(err, &pe) || pe.Path != ".aegis" || !strings.Contains(pe.Reason, "installed model") {
		t.Fatalf("%v, want a *PathError that says what .aegis is", err)
	}
	wantPaths(t, mustPack(t, PackOptions{Exclude: []string{".aegis"}}, dir), "model.bin")
}

// packRewrite changes a file in a way that keeps its size and, if asked, its time.
func packRewrite(t *testing.T, file, content string, keepTime bool) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	at := info.ModTime()
	if !keepTime {
		at = at.Add(time.Second)
	}
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

// changeOnAdd changes the file once hashing has begun.
type changeOnAdd struct {
	noProgress
	change func()
}

func (c *changeOnAdd) Add(string, int64) {
	if c.change != nil {
		c.change()
		c.change = nil
	}
}

func TestPackNoticesAChangeWhileHashing(t *testing.T) {
	content := strings.Repeat("x", 2*hashBuffer)
	for name, change := range map[string]func(t *testing.T, file string){
		"grown":     func(t *testing.T, file string) { packRewrite(t, file, content+"y", true) },
		"shrunk":    func(t *testing.T, file string) { packRewrite(t, file, content[:hashBuffer+10], true) },
		"same size": func(t *testing.T, file string) { packRewrite(t, file, strings.Repeat("y", len(content)), false) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := packTree(t, map[string]string{"a.bin": content})
			_, err := Pack(t.Context(), []string{dir}, PackOptions{Progress: &changeOnAdd{change: func() { change(t, filepath.Join(dir, "a.bin")) }}})
			var ce *ChangedError
			if !errors.As(err, &ce) || ce.Path != "a.bin" {
				t.Errorf("%v, want a *ChangedError for a.bin", err)
			}
		})
	}
}

func TestBlobNoticesAChangeAfterPacking(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, file string){
		"removed":  func(t *testing.T, file string) { os.Remove(file) },
		"touched":  func(t *testing.T, file string) { packRewrite(t, file, "y", false) },
		"grown":    func(t *testing.T, file string) { packRewrite(t, file, "xx", true) },
		"replaced": func(t *testing.T, file string) { packReplace(t, file, "y") },
		"linked": func(t *testing.T, file string) {
			os.Remove(file)
			packLink(t, os.Args[0], file)
		},
		"made a directory": func(t *testing.T, file string) {
			os.Remove(file)
			os.Mkdir(file, 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := packTree(t, map[string]string{"a.bin": "x"})
			p := mustPack(t, PackOptions{}, dir)
			change(t, filepath.Join(dir, "a.bin"))
			_, err := p.Blobs()[1].Open()
			var ce *ChangedError
			if !errors.As(err, &ce) || ce.Path != "a.bin" {
				t.Errorf("%v, want a *ChangedError for a.bin", err)
			}
		})
	}
}

// packReplace puts a file of the same size and time, but another inode, in place.
func packReplace(t *testing.T, file, content string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file+".new", info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestBlobNoticesAChangeWhileSending(t *testing.T) {
	for name, content := range map[string]string{"grown": "xxxy", "shrunk": "x", "rewritten": "yyy"} {
		t.Run(name, func(t *testing.T) {
			dir := packTree(t, map[string]string{"a.bin": "xxx"})
			r, err := mustPack(t, PackOptions{}, dir).Blobs()[1].Open()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			packRewrite(t, filepath.Join(dir, "a.bin"), content, false)
			_, err = io.ReadAll(r)
			var ce *ChangedError
			if !errors.As(err, &ce) {
				t.Errorf("%v, want a *ChangedError", err)
			}
		})
	}
}
