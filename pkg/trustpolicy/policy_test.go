// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// policyOf makes one statement for each scope, named by its scope, in the order
// given.
func policyOf(t *testing.T, scopes ...string) Policy {
	t.Helper()
	var b strings.Builder
	b.WriteString("version: 1\npolicies:\n")
	for _, s := range scopes {
		fmt.Fprintf(&b, "- {name: %q, scopes: [%q], keys: [{name: k, key: \"hashivault://k\"}]}\n", s, s)
	}
	p, err := Parse([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMatchTakesTheMostSpecificScope(t *testing.T) {
	scopes := []string{
		"*", "r.io/**", "r.io/*", "r.io/a/**", "r.io/a/*", "r.io/a/b", "r.io/a/b/**",
		"[::1]:5000/**", "localhost/x", "host:5000/a/**",
	}
	backwards := slices.Clone(scopes)
	slices.Reverse(backwards)
	rows := map[string]string{
		"r.io/a":            "r.io/*",      // a/** and a/* begin below a
		"r.io/ab":           "r.io/*",      // a prefix ends at a slash
		"r.io/ab/c":         "r.io/**",     // the same, one level down
		"r.io/a/b":          "r.io/a/b",    // exact
		"r.io/a/bc":         "r.io/a/*",    // one component beats any number of them
		"r.io/a/bc/d":       "r.io/a/**",   // * is one component
		"r.io/a/b/c":        "r.io/a/b/**", // the longer prefix
		"r.io/a/b/c/d":      "r.io/a/b/**",
		"R.IO/a/b":          "r.io/a/b", // a host has no case
		"r.io:443/a/b":      "*",        // a port is part of the registry
		"sub.r.io/a/b":      "*",
		"r.io.evil.com/a/b": "*",
		"[::1]:5000/a":      "[::1]:5000/**",
		"[::1]:5001/a":      "*",
		"localhost/x":       "localhost/x",
		"LOCALHOST/x":       "localhost/x",
		"host:5000/a/b":     "host:5000/a/**",
		"HOST:5000/a/b":     "host:5000/a/**",
	}
	for _, order := range [][]string{scopes, backwards} {
		p := policyOf(t, order...)
		for repository, want := range rows {
			got, err := p.Match(repository)
			if err != nil || got.Name != want {
				t.Errorf("Match(%s) = %q, %v, want %q", repository, got.Name, err, want)
			}
		}
	}
}

func TestMatchAllowsNothingByDefault(t *testing.T) {
	p := policyOf(t, "r.io/a", "r.io/b/*", "r.io/c/**")
	for _, repository := range []string{
		"r.io/x", "r.io/aa", "r.io/a/b", "r.io/b", "r.io/b/c/d", "r.io/c", "r.io/cc/d", "s.io/a", "r.io:5000/a",
	} {
		noMatch(t, p, repository, false)
		noMatch(t, Policy{}, repository, false)
	}
}

// What is no repository is covered by no scope, the widest included: a caller
// that passes on a tag or half a name must not be let through.
func TestMatchRefusesWhatIsNoRepository(t *testing.T) {
	p := policyOf(t, "*", "r.io/**")
	for _, repository := range []string{
		"", "*", "/", "r.io", "r.io/", "r.io//a", "r.io/a/", "r.io/a:v1", "r.io/a@sha256:00", "r.io/A", "r.io/../a",
		"r.io/a/**", "https://r.io/a", "models/a", "r.io:0/a", "r.io:99999/a", "r.io:/a", "r.io:05/a", "[::1/a", "[::1]x/a",
		"[127.0.0.1]/a", "-r.io/a", "r.io/a b", "r.io/a\n", "\u212a.io/a", "r.io/" + strings.Repeat("a", 256),
	} {
		noMatch(t, p, repository, true)
	}
}

func noMatch(t *testing.T, p Policy, repository string, malformed bool) {
	t.Helper()
	s, err := p.Match(repository)
	var none *NoMatchError
	if !errors.As(err, &none) || none.Repository != repository || (none.Reason != "") != malformed {
		t.Errorf("Match(%q) = %v, want a NoMatchError (malformed: %t)", repository, err, malformed)
	}
	if s.Name != "" || s.Keys != nil {
		t.Errorf("Match(%q) left a statement: %+v", repository, s)
	}
}

func TestParseScopeRefuses(t *testing.T) {
	for _, s := range []string{
		"**", "***", "/**", "/*", "r.io", "r.io/", "r.io//**", "r.io/a/", "r.io/a//b", "r.io/a*", "r.io/*/b", "r.io/**/b", "r.io/**/*",
		"*/a", "*.io/a", "*.io/**", "r.io*/**", "models/**", "models/*", "library/nginx", "r.io/a:v1", "r.io/a@sha256:00", "r.io/Models/**",
		"r.io/../**", "r.io/./a", "https://r.io/**", "r.io:x/**", "r.io:/**", "\u212a.io/**", " r.io/a", "r.io/a ", "r.io/\u00e9/**", "r.io/?", "r.io/[ab]",
	} {
		if sc, reason := parseScope(s); reason == "" {
			t.Errorf("parseScope(%q) = %+v, want a refusal", s, sc)
		} else if (sc != scope{}) {
			t.Errorf("parseScope(%q) left %+v", s, sc)
		}
	}
}

func TestMatchHandsOutCopies(t *testing.T) {
	p, err := Parse([]byte(goodYAML))
	if err != nil {
		t.Fatal(err)
	}
	const repository = "registry.example.com/tools/loader"
	first, err := p.Match(repository)
	if err != nil {
		t.Fatal(err)
	}
	first.Keys[1].PublicKey[40] ^= 1
	first.Keys[0] = Key{Name: "mine", Transit: "hashivault://mine"}
	p.Statements()[0].Name = "mine"

	fresh, err := Parse([]byte(goodYAML))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, fresh) {
		t.Errorf("the policy changed with what it handed out: %+v", p)
	}
}
