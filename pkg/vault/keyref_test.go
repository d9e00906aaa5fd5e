// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"strings"
	"testing"
)

func TestParseKeyRefReadsMountNameVersionNamespace(t *testing.T) {
	for _, tc := range []struct {
		uri, mount string
		want       KeyRef
	}{
		{"hashivault://models", "", KeyRef{Mount: "transit", Name: "models"}},
		{"hashivault://models", "secret/engines/transit/", KeyRef{Mount: "secret/engines/transit", Name: "models"}},
		{"openbao://models", "", KeyRef{Mount: "transit", Name: "models"}},
		{"hashivault://a/b/c.d/models_v1", "ignored", KeyRef{Mount: "a/b/c.d", Name: "models_v1"}},
		{"hashivault://models?version=12", "", KeyRef{Mount: "transit", Name: "models", Version: 12}},
		{"hashivault://t/models?namespace=team%2Fml/&version=1", "", KeyRef{Mount: "t", Name: "models", Version: 1, Namespace: "team/ml"}},
	} {
		got, err := ParseKeyRef(tc.uri, tc.mount)
		if err != nil {
			t.Errorf("%s: %v", tc.uri, err)
			continue
		}
		if got.String() != tc.uri {
			t.Errorf("%s: prints as %s", tc.uri, got)
		}
		got.written = ""
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.uri, got, tc.want)
		}
	}
}

// What could turn one API path into another must not get as far as a request.
func TestParseKeyRefRefusesWhatIsNoKey(t *testing.T) {
	for _, uri := range []string{
		"", "models", "awskms://models", "hashivault:models", "hashivault://", "hashivault:///models",
		"hashivault://models/", "hashivault://a//models", "hashivault://../sys/seal", "hashivault://a/../b/models",
		"hashivault://./models", "hashivault://.models", "hashivault://models.", "hashivault://mo dels",
		"hashivault://models#x", "hashivault://a%2Fb/models", "hashivault://models?version=0", "hashivault://models?version=-1",
		"hashivault://models?version=01", "hashivault://models?version=+1", "hashivault://models?version=99999999999",
		"hashivault://models?version=1&version=2", "hashivault://models?namespace=", "hashivault://models?namespace=a/../b",
		"hashivault://models?namespace=a&namespace=b", "hashivault://models?ver=1", "hashivault://models?version=%zz",
		"hashivault://models\x00", "hashivault://" + strings.Repeat("a", 2000),
	} {
		ref, err := ParseKeyRef(uri, "")
		var refused *KeyRefError
		if !errors.As(err, &refused) {
			t.Errorf("%q: %v, %+v; want a *KeyRefError", uri, err, ref)
		}
	}
	if _, err := ParseKeyRef("hashivault://models", "../sys"); err == nil {
		t.Error("a default mount that leaves its place was taken")
	}
}

func FuzzParseKeyRef(f *testing.F) {
	for _, s := range []string{
		"hashivault://models", "openbao://a/b/models?version=3&namespace=team", "hashivault://../sys/seal",
		"hashivault://m?version=0", "hashivault://m?namespace=a%2Fb", "hashivault://m?;", "hashivault://m?version=1&version=1",
	} {
		f.Add(s, "")
		f.Add(s, "x/y")
	}
	f.Fuzz(func(t *testing.T, uri, mount string) {
		ref, err := ParseKeyRef(uri, mount)
		if err != nil {
			return
		}
		for _, path := range []string{ref.path("sign"), ref.Namespace} {
			if strings.Contains(path, "..") && strings.Contains("/"+path+"/", "/../") || strings.Contains(path, "//") || strings.ContainsAny(path, "?#% \x00") {
				t.Fatalf("%q: path %q", uri, path)
			}
		}
		again, err := ParseKeyRef(ref.full(), "")
		if err != nil {
			t.Fatalf("%q: its full form %q: %v", uri, ref.full(), err)
		}
		ref.written, again.written = "", ""
		if again != ref {
			t.Fatalf("%q: %+v, and by its full form %+v", uri, ref, again)
		}
	})
}
