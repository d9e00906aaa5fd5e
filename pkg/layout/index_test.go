// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
)

// TestATagStandsForWhatWasWritten, whatever another tool's index had under it, and what
// else that tool wrote stays.
func TestATagStandsForWhatWasWritten(t *testing.T) {
	t.Parallel()
	desc, raw := manifest("application/vnd.model")
	const tagged = `"annotations":{"org.opencontainers.image.ref.name":"v1"}`
	entry := func(d digest.Digest, size int64, mediaType, rest string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,%s}`, mediaType, d, size, rest)
	}
	other, is := digest.FromString("other"), desc.MediaType
	right := entry(desc.Digest, desc.Size, is, tagged)
	for name, c := range map[string]struct{ before, after []string }{
		"twice, the right one last": {
			[]string{entry(other, 5, is, tagged+`,"x-other":[1]`), right},
			[]string{entry(other, 5, is, `"annotations":{},"x-other":[1]`), right},
		},
		"twice, both right": {
			[]string{right, right},
			[]string{right, entry(desc.Digest, desc.Size, is, `"annotations":{}`)},
		},
		"of another size and type": {
			[]string{entry(desc.Digest, 7, "application/vnd.oci.image.index.v1+json", tagged+`,"x-other":"kept","data":"eA=="`)},
			[]string{entry(desc.Digest, desc.Size, is, tagged+`,"x-other":"kept"`)},
		},
		"of no size": {
			[]string{entry(desc.Digest, -1, is, tagged)},
			[]string{right},
		},
		"without a tag": {
			[]string{entry(desc.Digest, desc.Size, is, `"artifactType":"application/vnd.model","x-other":{"a":"b"}`)},
			[]string{entry(desc.Digest, desc.Size, is, tagged+`,"artifactType":"application/vnd.model","x-other":{"a":"b"}`)},
		},
		"under a second tag of a wrong size": {
			[]string{entry(desc.Digest, 7, is, `"annotations":{"org.opencontainers.image.ref.name":"v2","k":"v"}`)},
			[]string{entry(desc.Digest, desc.Size, is, `"annotations":{"org.opencontainers.image.ref.name":"v2","k":"v"}`), right},
		},
		"moved from another": {
			[]string{entry(other, 5, is, `"Annotations":{"org.opencontainers.image.ref.name":"v1","k":"v"},"x-other":true`)},
			[]string{entry(other, 5, is, `"annotations":{"k":"v"},"x-other":true`), right},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, map[string]string{"oci-layout": version, "index.json": `{"schemaVersion":2,"manifests":[` + strings.Join(c.before, ",") + `]}`})
			l, err := layout.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			p, err := l.PushManifest(t.Context(), desc.MediaType, raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.TagManifest(t.Context(), p, "v1"); err != nil {
				t.Fatal(err)
			}
			if got, err := l.Resolve(t.Context(), layout.Reference{Path: dir, Tag: "v1"}); err != nil || got.Subject() != p.Subject() {
				t.Errorf("v1 is %s, %v", got.Subject(), err)
			}
			if _, err := l.FetchManifest(t.Context(), p.Subject().Descriptor()); err != nil {
				t.Error(err)
			}
			sameEntries(t, dir, c.after)
		})
	}
}

func sameEntries(t *testing.T, dir string, want []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var a, b struct{ Manifests []any }
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"manifests":[`+strings.Join(want, ",")+`]}`), &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("the index is %s, want %s", raw, want)
	}
}

// TestAnErrorNamesWhatTheLayoutHas: some of it, and nothing that moves a cursor or that
// nobody would name.
func TestAnErrorNamesWhatTheLayoutHas(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	many := strings.Split("a b c d e f g h i j k", " ")
	for want, names := range map[string][]string{
		"; it has v1, v2": {"v1", "v2", "v1", "sha256-" + d.Encoded(), "sha256-" + d.Encoded() + ".sig", ""},
		"; it has a, b, c, d, e, f, g, h, i, j, ...":                     many,
		"; it has @" + d.String() + " (registry.example.com/[31mvad:v1)": {"registry.example.com/\u001b[31mvad:v1"},
		"; it has no tags: name a digest":                                {""},
	} {
		var entries []string
		for _, name := range names {
			entries = append(entries, fmt.Sprintf(`{"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":"%s"}}`, d, strings.ReplaceAll(name, "\u001b", `\u001b`)))
		}
		dir := t.TempDir()
		write(t, dir, map[string]string{"oci-layout": version, "index.json": `{"manifests":[` + strings.Join(entries, ",") + `]}`})
		l, err := layout.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, ref := range []layout.Reference{{Path: dir}, {Path: dir, Tag: "nothing"}} {
			if _, err := l.Resolve(t.Context(), ref); err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
}
