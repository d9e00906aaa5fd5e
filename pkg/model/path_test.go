// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCheckPathAcceptsOrdinaryNames(t *testing.T) {
	for _, p := range []string{
		"model.safetensors", "a/b/c.bin", "with space.txt", "naïve/模型.gguf", ".gitattributes",
		"..weights", "a..b", "console.txt", "comma", "com.json", "aegis", "aegis-1", "x.aegis", "aegis~x",
		strings.Repeat("n", 255),
	} {
		if err := checkPath(p); err != nil {
			t.Errorf("checkPath(%q) = %v", p, err)
		}
	}
}

func TestCheckPathRefuses(t *testing.T) {
	for _, p := range []string{
		"", "/etc/passwd", "..", "../x", "a/../b", "a/./b", "./a", "a//b", "a/", ".",
		`a\b`, `..\x`, `C:\x`, "C:x", "a:stream", "a\x00b", "a\nb", "a\x7f", "a\u0085b", "a\xffb",
		"NUL", "nul.txt", "a/Con.json", "AUX .c", "com1", "LPT9.x", "com¹", "CONIN$",
		"a.", "a ", "d./x", "...",
		".aegis", ".aegis/receipt.json", "a/.aegis/x", ".AEGIS", ".aegis-staging", ".Aegis-x/y",
		".ae\u200cgis", "AEGIS~1", "aegis~12/x",
		strings.Repeat("n", 256), strings.Repeat("d/", 3000) + "x",
	} {
		var pe *PathError
		if err := checkPath(p); !errors.As(err, &pe) {
			t.Errorf("checkPath(%q) = %v, want a *PathError", p, err)
		} else if pe.Reason == "" {
			t.Errorf("checkPath(%q): no reason", p)
		}
	}
}

func TestPathSetRefusesNamesThatSomeSystemsTakeForOne(t *testing.T) {
	for _, pair := range [][2]string{
		{"a", "a"},
		{"README", "readme"},
		{"stra\u00dfe", "STRASSE"},
		{"caf\u00e9", "cafe\u0301"},
		{"CAF\u00c9", "cafe\u0301"},
		{"Dir/a", "dir/b"},
		{"d", "d/x"},
		{"d/x", "d"},
		{"d", "D/x"},
		{"a/b/c", "a/b"},
	} {
		var s pathSet
		if err := s.addFile(pair[0]); err != nil {
			t.Fatal(err)
		}
		var pe *PathError
		if err := s.addFile(pair[1]); !errors.As(err, &pe) || pe.Path != pair[1] {
			t.Errorf("%q beside %q: %v, want a *PathError for the second", pair[1], pair[0], err)
		}
	}
}

func TestPathSetKeepsDirectoriesApartFromFiles(t *testing.T) {
	var s pathSet
	for _, add := range []error{s.addDir("d"), s.addDir("d"), s.addFile("d/x"), s.addDir("d/e"), s.addFile("d/e/x"), s.addFile("x")} {
		if add != nil {
			t.Error(add)
		}
	}
	var pe *PathError
	if err := s.addFile("d/e"); !errors.As(err, &pe) {
		t.Errorf("a file over a directory: %v, want a *PathError", err)
	}
	if err := s.addDir("d/x"); !errors.As(err, &pe) {
		t.Errorf("a directory over a file: %v, want a *PathError", err)
	}
}

// What a volume brings along is neither cleared nor judged as a model's file is.
func TestPathSetRefusesTheNamesOfAVolume(t *testing.T) {
	for _, p := range []string{"lost+found/x", "lost+found", ".snapshot/a/b", ".Snapshot/x"} {
		var s pathSet
		var pe *PathError
		if err := s.addFile(p); !errors.As(err, &pe) || pe.Path != p {
			t.Errorf("%q: %v, want a *PathError", p, err)
		}
	}
	var s pathSet
	for _, err := range []error{s.addDir("lost+found"), s.addFile("a/lost+found/x"), s.addFile("snapshot/x"), s.addFile("lost"), s.addFile("sub/.snapshot")} {
		if err != nil {
			t.Error(err)
		}
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, p := range []string{"a/b", "../a", "C:x", "nul", ".aegis", "a\xff"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if checkPath(p) != nil {
			return
		}
		if !utf8.ValidString(p) || strings.ContainsAny(p, "\\:\x00") || strings.HasPrefix(p, "/") {
			t.Fatalf("accepted %q", p)
		}
		for name := range strings.SplitSeq(p, "/") {
			if name == "" || name == "." || name == ".." || strings.EqualFold(name, ".aegis") {
				t.Fatalf("accepted %q", p)
			}
		}
	})
}
