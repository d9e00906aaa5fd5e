// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
)

const version = `{"imageLayoutVersion":"1.0.0"}`

func manifest(artifactType string) (ocispec.Descriptor, []byte) {
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{},"layers":[]}`, ocispec.MediaTypeImageManifest, artifactType)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw
}

func opener(content []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
}

func wantKind(t *testing.T, err error, kind layout.Kind) {
	t.Helper()
	var e *layout.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v, want a layout.Error of kind %q", err, kind)
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tarOf writes members in order: name, content.
func tarOf(t *testing.T, members ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layout.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: members[i], Mode: 0o644, Size: int64(len(members[i+1]))}
		if strings.HasSuffix(members[i], "/") {
			h.Typeflag = tar.TypeDir
		}
		if target, link := strings.CutPrefix(members[i+1], "-> "); link {
			h = &tar.Header{Typeflag: tar.TypeSymlink, Name: members[i], Linkname: target}
			members[i+1] = ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, members[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseReference(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	for in, want := range map[string]layout.Reference{
		"dir:v1":                  {Path: "dir", Tag: "v1"},
		"./a:b/dir:v1":            {Path: "./a:b/dir", Tag: "v1"},
		"a:b/dir":                 {Path: "a:b/dir"},
		"m.tar@" + d.String():     {Path: "m.tar", Digest: d},
		"m.tar:v1@" + d.String():  {Path: "m.tar", Tag: "v1", Digest: d},
		"job@2/vad.tar:v1":        {Path: "job@2/vad.tar", Tag: "v1"},
		"/ws/job@2/vad":           {Path: "/ws/job@2/vad"},
		"job@2/m@" + d.String():   {Path: "job@2/m", Digest: d},
		"a@b.tar@" + d.String():   {Path: "a@b.tar", Digest: d},
		"a@b/:v1":                 {Path: "a@b/", Tag: "v1"},
		"/abs/with space/dir:1.0": {Path: "/abs/with space/dir", Tag: "1.0"},
	} {
		got, err := layout.ParseReference(in)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", in, got, err)
		}
		if back, err := layout.ParseReference(got.String()); err != nil || back != got {
			t.Errorf("%q does not come back: %+v %v", in, back, err)
		}
	}
	for _, in := range []string{"", ":v1", "a@b.tar:v1", "dir:", "dir:-x", "dir@sha256:0", "job@2/vad@2", "dir@sha512:" + strings.Repeat("0", 128), "@" + d.String()} {
		var bad *layout.ReferenceError
		if _, err := layout.ParseReference(in); !errors.As(err, &bad) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestParseReferences(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"dir:v1":         {"dir:v1"},
		"dir:v1,v2,v1":   {"dir:v1", "dir:v2"},
		"a,b/m.tar:1,2":  {"a,b/m.tar:1", "a,b/m.tar:2"},
		"a,b":            {"a,b"},
		"job:1,2/layout": {"job:1,2/layout"},
	} {
		refs, err := layout.ParseReferences(in)
		var got []string
		for _, ref := range refs {
			got = append(got, ref.String())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"dir:v1,", "dir:,v1", "dir:v1,-x", "dir:v1,v2@" + digest.FromString("x").String(), "dir@" + digest.FromString("x").String() + ",v1"} {
		var bad *layout.ReferenceError
		if refs, err := layout.ParseReferences(in); !errors.As(err, &bad) {
			t.Errorf("%q: %v %v", in, refs, err)
		}
	}
}

// TestNothingAppearsUnderAWrongDigest covers a directory and a tar: longer, shorter,
// changed and broken off content.
func TestNothingAppearsUnderAWrongDigest(t *testing.T) {
	t.Parallel()
	right := bytes.Repeat([]byte("weights"), 100_000)
	changed := bytes.Clone(right)
	changed[len(changed)-1] ^= 1
	desc := ocispec.Descriptor{Digest: digest.FromBytes(right), Size: int64(len(right))}
	for _, name := range []string{"dir", "file.tar"} {
		t.Run(name, func(t *testing.T) {
			l, err := layout.Create(filepath.Join(t.TempDir(), name))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for _, wrong := range [][]byte{changed, right[:len(right)-1], append(bytes.Clone(right), 0), nil} {
				_, err := l.PushBlob(t.Context(), desc, opener(wrong))
				wantKind(t, err, layout.Corrupt)
				if there, err := l.BlobExists(t.Context(), desc); err != nil || there {
					t.Fatalf("after wrong content the blob is there: %v", err)
				}
			}
			if sent, err := l.PushBlob(t.Context(), desc, opener(right)); err != nil || !sent {
				t.Fatal(sent, err)
			}
			if sent, err := l.PushBlob(t.Context(), desc, opener(right)); err != nil || sent {
				t.Fatal("sent again", err)
			}
			if got, err := l.FetchBlob(t.Context(), desc, desc.Size); err != nil || !bytes.Equal(got, right) {
				t.Fatal("it does not come back", err)
			}
		})
	}
}

// TestATarAppearsWholeOrNotAtAll: before Commit there is no such name, after a Close
// without it nothing is left, and a file that is there is not replaced.
func TestATarAppearsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "model.tar")
	desc, raw := manifest("application/vnd.example")
	for _, commit := range []bool{false, true} {
		l, err := layout.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.PushManifest(t.Context(), desc.MediaType, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.TagManifest(t.Context(), p, "v1"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Fatal("it is there before it is whole")
		}
		if commit {
			if err := l.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || (len(entries) == 1) != commit {
			t.Fatalf("left: %v %v", entries, err)
		}
	}
	_, err := layout.Create(path)
	wantKind(t, err, layout.ReadOnly)
	l, err := layout.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err := l.Resolve(t.Context(), layout.Reference{Path: path, Tag: "v1"}); err != nil || p.Subject().Digest() != desc.Digest {
		t.Fatal(p, err)
	}
	_, err = l.PushBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("new"), Size: 3}, opener([]byte("new")))
	wantKind(t, err, layout.ReadOnly)
}

// TestCreateRefusesALinkThatLeadsToNothing before anything is written.
func TestCreateRefusesALinkThatLeadsToNothing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"m.tar", "dir"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.Symlink(filepath.Join(t.TempDir(), "nothing"), path); err != nil {
			t.Fatal(err)
		}
		l, err := layout.Create(path)
		var bad *layout.ReferenceError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %+v %v", name, l, err)
		}
	}
}

func TestOpenRefusesWhatIsNoLayout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		kind layout.Kind
	}{
		"nothing":          {filepath.Join(t.TempDir(), "nothing"), layout.NotFound},
		"an empty dir":     {t.TempDir(), layout.NotFound},
		"no tar":           {tarFile(t, "no tar, and longer than one block of it"+strings.Repeat("x", 600)), layout.Malformed},
		"a member twice":   {tarOf(t, "oci-layout", version, "index.json", "{}", "./index.json", "{}"), layout.Malformed},
		"a linked member":  {tarOf(t, "oci-layout", version, "index.json", "-> /etc/passwd"), layout.Malformed},
		"a path that goes": {tarOf(t, "oci-layout", version, "blobs/sha256/../../x", "y"), layout.Malformed},
		"another version":  {tarOf(t, "oci-layout", `{"imageLayoutVersion":"2.0.0"}`), layout.Malformed},
		"a large version":  {tarOf(t, "oci-layout", version+strings.Repeat(" ", 5000)), layout.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := layout.Open(c.path)
			wantKind(t, err, c.kind)
		})
	}
}

func tarFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestATarMayHaveDirectories: other programs leave some beside the blobs.
func TestATarMayHaveDirectories(t *testing.T) {
	t.Parallel()
	l, err := layout.Open(tarOf(t, "./", "", "./oci-layout", version, "./index.json", "{}", "./blobs/sha256/", "", "./blobs/sha256/@eaDir/", ""))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestACompressedTarIsSaidToBeOne(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(strings.Repeat("x", 600))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := layout.Open(tarFile(t, b.String()))
	if wantKind(t, err, layout.Malformed); !strings.Contains(err.Error(), "it is compressed") {
		t.Error(err)
	}
}

// TestATarIsWrittenBelowNewDirectories, as a directory is.
func TestATarIsWrittenBelowNewDirectories(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "er", "m.tar")
	l, err := layout.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	blob := []byte("blob")
	if _, err := l.PushBlob(t.Context(), descOf(blob), opener(blob)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Commit(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	desc, raw := manifest("application/vnd.example")
	other, rawOther := manifest("application/vnd.other")
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, filepath.Dir(secret), map[string]string{"secret": string(raw)})
	blob := func(d ocispec.Descriptor) string { return "blobs/sha256/" + d.Digest.Encoded() }
	tagged := func(d ocispec.Descriptor) string {
		b, _ := json.Marshal(ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: map[string]string{ocispec.AnnotationRefName: "v1"}})
		return string(b)
	}
	list := func(entries ...string) string {
		return `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
	}
	for name, c := range map[string]struct {
		files map[string]string
		link  bool
		kind  layout.Kind
	}{
		"no such tag":       {map[string]string{"index.json": list()}, false, layout.NotFound},
		"a tag of two":      {map[string]string{"index.json": list(tagged(desc), tagged(other)), blob(desc): string(raw), blob(other): string(rawOther)}, false, layout.Malformed},
		"a missing blob":    {map[string]string{"index.json": list(tagged(desc))}, false, layout.NotFound},
		"a changed blob":    {map[string]string{"index.json": list(tagged(desc)), blob(desc): string(rawOther)}, false, layout.Corrupt},
		"a blob that leads": {map[string]string{"index.json": list(tagged(desc)), "blobs/sha256/x": ""}, true, layout.Malformed},
		"a wrong type":      {map[string]string{"index.json": list(strings.Replace(tagged(desc), "image.manifest", "image.index", 1)), blob(desc): string(raw)}, false, layout.Malformed},
		"an index of text":  {map[string]string{"index.json": "text"}, false, layout.Malformed},
		"too many entries":  {map[string]string{"index.json": list(strings.Repeat(tagged(desc)+",", 10_000) + tagged(desc))}, false, layout.TooLarge},
		"a large index":     {map[string]string{"index.json": list() + strings.Repeat(" ", 17<<20)}, false, layout.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.files["oci-layout"] = version
			write(t, dir, c.files)
			if c.link {
				if err := os.Symlink(secret, filepath.Join(dir, blob(desc))); err != nil {
					t.Fatal(err)
				}
			}
			l, err := layout.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_, err = l.Resolve(t.Context(), layout.Reference{Path: dir, Tag: "v1"})
			wantKind(t, err, c.kind)
		})
	}
}

// TestAChildIsWhatItsIndexCallsIt, where it does not say so itself: it can be named by its
// digest as it can in a registry.
func TestAChildIsWhatItsIndexCallsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := []byte(`{"schemaVersion":2,"config":{},"layers":[]}`)
	d, alone := digest.FromBytes(child), []byte(`{"schemaVersion":2,"config":{},"layers":[{}]}`)
	files := map[string]string{"oci-layout": version, "blobs/sha256/" + d.Encoded(): string(child), "blobs/sha256/" + digest.FromBytes(alone).Encoded(): string(alone)}
	indexOf := func(mediaType string, d digest.Digest, size int) (string, digest.Digest) {
		raw := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, mediaType, d, size)
		files["blobs/sha256/"+digest.FromString(raw).Encoded()] = raw
		return raw, digest.FromString(raw)
	}
	inner, of := indexOf(ocispec.MediaTypeImageManifest, d, len(child))
	outer, of := indexOf(ocispec.MediaTypeImageIndex, of, len(inner))
	files["index.json"], _ = indexOf(ocispec.MediaTypeImageIndex, of, len(outer))
	write(t, dir, files)
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := l.Resolve(t.Context(), layout.Reference{Path: dir, Digest: d})
	if err != nil || p.Subject().MediaType() != ocispec.MediaTypeImageManifest {
		t.Errorf("%q %v", p.Subject().MediaType(), err)
	}
	_, err = l.Resolve(t.Context(), layout.Reference{Path: dir, Digest: digest.FromBytes(alone)})
	wantKind(t, err, layout.Malformed)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = l.Resolve(over, layout.Reference{Path: dir, Digest: d}); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up looking has found out nothing: %v", err)
	}
}

// TestWritersShareAnIndex: each through a Layout of its own, as processes would.
func TestWritersShareAnIndex(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	const writers = 12
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			errs[i] = func() error {
				l, err := layout.Create(dir)
				if err != nil {
					return err
				}
				defer l.Close()
				desc, raw := manifest(fmt.Sprintf("application/vnd.example.%d", i))
				p, err := l.PushManifest(t.Context(), desc.MediaType, raw)
				if err != nil {
					return err
				}
				return l.TagManifest(t.Context(), p, fmt.Sprintf("v%d", i))
			}()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range writers {
		if _, err := l.Resolve(t.Context(), layout.Reference{Path: dir, Tag: fmt.Sprintf("v%d", i)}); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".aegis-ingest-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestAMovedTagKeepsWhatItLeft: the manifest that lost its tag is listed, and other
// tools' fields stay.
func TestAMovedTagKeepsWhatItLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"oci-layout": version, "index.json": `{"schemaVersion":2,"annotations":{"made.by":"another"},"manifests":[]}`})
	l, err := layout.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all []ocispec.Descriptor
	for _, typ := range []string{"application/vnd.first", "application/vnd.second"} {
		desc, raw := manifest(typ)
		all = append(all, desc)
		p, err := l.PushManifest(t.Context(), desc.MediaType, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.TagManifest(t.Context(), p, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Annotations["made.by"] != "another" ||
		index.Manifests[0].Digest != all[0].Digest || index.Manifests[0].Annotations[ocispec.AnnotationRefName] != "" ||
		index.Manifests[1].Digest != all[1].Digest || index.Manifests[1].Annotations[ocispec.AnnotationRefName] != "v1" {
		t.Errorf("%s", raw)
	}
}

func descOf(content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// TestTwoTarsThatEndTogether: one gets the name, and the other one says that it did not.
func TestTwoTarsThatEndTogether(t *testing.T) {
	t.Parallel()
	for range 10 {
		file := filepath.Join(t.TempDir(), "m.tar")
		begin := make(chan struct{})
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range errs {
			l, err := layout.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			content := []byte(fmt.Sprintf("blob %d", i))
			if _, err := l.PushBlob(t.Context(), descOf(content), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				<-begin
				errs[i] = errors.Join(l.Commit(), l.Close())
			})
		}
		close(begin)
		wg.Wait()
		done := 0
		for i, err := range errs {
			var refused *layout.Error
			switch {
			case err == nil:
				done++
				l, err := layout.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				if rc, err := l.OpenBlob(t.Context(), descOf([]byte(fmt.Sprintf("blob %d", i))), 0); err != nil {
					t.Errorf("the one that ended well is another: %v", err)
				} else {
					rc.Close()
				}
				l.Close()
			case !errors.As(err, &refused) || refused.Kind != layout.ReadOnly:
				t.Error(err)
			}
		}
		if left, err := os.ReadDir(filepath.Dir(file)); done != 1 || err != nil || len(left) != 1 {
			t.Fatalf("%d ended well, left: %v, %v", done, left, err)
		}
	}
}

// TestWhatAKilledCopyLeftIsRemoved by the next one, or a day later where locks do not
// tell, and what another one writes now is not.
func TestWhatAKilledCopyLeftIsRemoved(t *testing.T) {
	t.Parallel()
	for _, tar := range []bool{false, true} {
		dir := t.TempDir()
		at := dir
		if tar {
			at = filepath.Join(dir, "m.tar")
		}
		old, young, other := filepath.Join(dir, ".aegis-ingest-old"), filepath.Join(dir, ".aegis-ingest-young"), filepath.Join(dir, "mine")
		held, idle := filepath.Join(dir, ".aegis-ingest-held"), filepath.Join(dir, ".aegis-ingest-idle")
		for _, name := range []string{old, young, held, idle, other} {
			if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for name, age := range map[string]time.Duration{old: 25 * time.Hour, other: 25 * time.Hour, held: time.Hour, idle: 6 * time.Minute} {
			if err := os.Chtimes(name, time.Time{}, time.Now().Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
		writer := flock.New(held)
		if err := writer.Lock(); err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		if !tar {
			if err := os.Remove(other); err != nil { // a layout is made in no directory that holds others' files
				t.Fatal(err)
			}
		}
		l, err := layout.Create(at)
		if err != nil {
			t.Fatal(err)
		}
		content := []byte("blob")
		if _, err := l.PushBlob(t.Context(), descOf(content), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.Commit(), l.Close()); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{old: false, young: true, held: true, idle: runtime.GOOS == "windows", other: tar} {
			if _, err := os.Lstat(name); (err == nil) != want {
				t.Errorf("tar %v: %s: %v", tar, filepath.Base(name), err)
			}
		}
	}
}

// TestABlobThatIsBeingWrittenIsLeftAlone by another copy that begins meanwhile.
func TestABlobThatIsBeingWrittenIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, at := range []string{filepath.Join(dir, "layout"), filepath.Join(dir, "first.tar")} {
		l, err := layout.Create(at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		first, second := []byte("first"), []byte("second")
		_, err = l.PushBlob(t.Context(), descOf(first), func() (io.ReadCloser, error) {
			other, err := layout.Create(strings.Replace(at, "first", "second", 1))
			if err != nil {
				return nil, err
			}
			if _, err := other.PushBlob(t.Context(), descOf(second), opener(second)); err != nil {
				return nil, err
			}
			return io.NopCloser(bytes.NewReader(first)), errors.Join(other.Commit(), other.Close())
		})
		if err := errors.Join(err, l.Commit()); err != nil {
			t.Fatal(err)
		}
		if there, err := l.BlobExists(t.Context(), descOf(first)); err != nil || !there {
			t.Errorf("%s: %v", at, err)
		}
	}
}
