// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// manyTags pushes one manifest under n tags and returns their names, sorted.
func manyTags(t *testing.T, host string, n int) (*registry.Repository, []string) {
	t.Helper()
	r := newRepo(t, host+"/many/tags", registry.Options{})
	config, layer := pushBlob(t, r, []byte("{}")), pushBlob(t, r, []byte("layer"))
	pinned, err := r.PushManifest(t.Context(), "application/vnd.oci.image.manifest.v1+json", image(config, layer, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("v%04d", i))
		if err := r.TagManifest(t.Context(), pinned, names[i]); err != nil {
			t.Fatal(err)
		}
	}
	return r, names
}

func tags(t *testing.T, r *registry.Repository) ([]string, error) {
	t.Helper()
	var all []string
	for tag, err := range r.Tags(t.Context()) {
		if err != nil {
			return all, err
		}
		all = append(all, tag)
	}
	slices.Sort(all)
	return all, nil
}

func TestTagsFollowsEveryPage(t *testing.T) {
	t.Parallel()
	real, _ := servertest.Distribution(t)
	for name, test := range map[string]struct {
		host string
		n    int
	}{
		"pages of two":       {memRegistry(t, &ociserver.Options{MaxListPageSize: 2}), 7},
		"one page":           {memRegistry(t, nil), 7},
		"none":               {memRegistry(t, nil), 0},
		"distribution":       {real, 510},
		"stack of the tests": {servertest.SharedStack(t).Registry, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, want := manyTags(t, test.host, test.n)
			got, err := tags(t, r)
			if test.n == 0 && err != nil {
				// Some registries do not know a repository without tags.
				var e *registry.Error
				if !errors.As(err, &e) || e.Kind != registry.NotFound {
					t.Fatal(err)
				}
				return
			}
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%d tags, want %d: %v", len(got), len(want), err)
			}
		})
	}
}

func TestTagsRefusesListsThatNeverEnd(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]func(page int) string{
		"circle":       func(int) string { return "/v2/many/tags/tags/list?n=500&last=a" },
		"endless":      func(page int) string { return fmt.Sprintf("/v2/many/tags/tags/list?n=500&last=%d", page) },
		"another host": func(int) string { return "https://elsewhere.example.com/v2/many/tags/tags/list" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pages := 0
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				pages++
				w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", link(pages)))
				_, _ = fmt.Fprint(w, `{"name":"many/tags","tags":["a","not a tag","../b"]}`)
			}))
			got, err := tags(t, newRepo(t, host+"/many/tags", registry.Options{}))
			var e *registry.Error
			if !errors.As(err, &e) || (e.Kind != registry.Protocol && e.Kind != registry.TooLarge) {
				t.Fatalf("%v", err)
			}
			if slices.ContainsFunc(got, func(s string) bool { return s != "a" }) || pages > 1000 {
				t.Errorf("%d pages, tags %v", pages, got[:min(3, len(got))])
			}
		})
	}
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>") }))
	var e *registry.Error
	if _, err := tags(t, newRepo(t, host+"/many/tags", registry.Options{})); !errors.As(err, &e) || e.Kind != registry.Protocol {
		t.Errorf("%v", err)
	}
}

func TestFallbackSubjectKnowsOnlyLists(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0a", 32)
	if d, ok := registry.FallbackSubject("sha256-" + hex); !ok || d.String() != "sha256:"+hex {
		t.Errorf("%s %v", d, ok)
	}
	for _, tag := range []string{"v1", "sha256-" + hex + ".sig", "sha256-" + hex[1:], "sha256-" + strings.ToUpper(hex), "sha512-" + hex} {
		if d, ok := registry.FallbackSubject(tag); ok {
			t.Errorf("%s is taken for %s", tag, d)
		}
	}
}
