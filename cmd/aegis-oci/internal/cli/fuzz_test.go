// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// FuzzTexts reads what others hand to the programs as text: an InferenceService's
// URI and directory, notation's key id, a rate, and names that are printed.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{
		"aegis://r/m", "aegis://r.example.com/m@sha256:x", "transit/release:2", "release:0", "release?x", "hashivault://a/b?version=3&namespace=n",
		"../../etc", "20M", "1g", "9999999999G", "0", "a\x1b[31m\nb\u202e", "\xff", "",
	} {
		f.Add(s, "/mnt/models", "/mnt/models/../x")
	}
	f.Add(kserveScheme+"registry.example.com/m:v1", "/mnt/models", "/mnt/models/a")
	keys := &pluginKeys{app: &app{env: environment{}}}
	f.Fuzz(func(t *testing.T, text, dir, other string) {
		wants := func(err error) {
			t.Helper()
			var usage *usageError
			var reference *registry.ReferenceError
			if err != nil && !errors.As(err, &usage) && !errors.As(err, &reference) {
				t.Fatalf("of no type: %v (%T)", err, err)
			}
		}
		pulls, err := kservePulls([]string{text, dir, text, other})
		wants(err)
		if err == nil {
			a, b := pulls[0].Dir, pulls[1].Dir
			if a == b || a+string(filepath.Separator) == b[:min(len(b), len(a)+1)] {
				t.Fatalf("%q and %q share a directory", dir, other)
			}
		}
		ref, err := keys.keyRef(text, nil)
		wants(err)
		if err == nil {
			again, err := vault.ParseKeyRef(ref.String(), "transit")
			if err != nil || again != ref || strings.Contains(ref.SignPath(), "..") {
				t.Fatalf("%q is %s, and then %s, %v", text, ref, again, err)
			}
		}
		rate, err := parseRate(text)
		wants(err)
		if rate < 0 || err == nil && text != "" && rate == 0 {
			t.Fatalf("%q is %d bytes a second", text, rate)
		}
		if line := oneLine(text); strings.ContainsFunc(line, unicode.IsControl) {
			t.Fatalf("%q is shown as %q", text, line)
		}
	})
}
