// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// What whoever can push to the source may do there must neither end a copy nor take a
// good signature out of it unsaid.

// encoded is a manifest and its descriptor.
type encoded struct {
	ocispec.Descriptor
	raw []byte
}

func encode(t testing.TB, mediaType string, v any) encoded {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return encoded{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw}
}

func indexOf(t testing.TB, subject *ocispec.Descriptor, parts ...ocispec.Descriptor) encoded {
	return encode(t, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: parts, Subject: subject})
}

// noteOn is a note with annotations, whose blobs are in ref's repository.
func noteOn(t testing.TB, ref registry.Reference, subject *ocispec.Descriptor, annotations map[string]string) encoded {
	t.Helper()
	pushContent(t, repository(t, ref), note, []byte("note"))
	pushContent(t, repository(t, ref), ocispec.DescriptorEmptyJSON, []byte("{}"))
	empty := ocispec.DescriptorEmptyJSON
	empty.Data = nil
	return encode(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: note.MediaType, Config: empty, Layers: []ocispec.Descriptor{note}, Subject: subject, Annotations: annotations})
}

// put stores a manifest under its digest or a tag, whatever the tag means to others.
func put(t testing.TB, ref registry.Reference, name string, m encoded) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+ref.Registry+"/v2/"+ref.Repository+"/manifests/"+name, bytes.NewReader(m.raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", m.MediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s %s", name, resp.Status, text)
	}
}

func attach(t testing.TB, ref registry.Reference, subject ocispec.Descriptor, m encoded) {
	t.Helper()
	s := resolve(t, byDigest(ref, subject.Digest)).Subject()
	if _, err := repository(t, ref).Attach(t.Context(), s, m.MediaType, m.raw); err != nil {
		t.Fatal(err)
	}
}

// TestCopyOfWhatListsOneAnother: A is attached to the model and has C as its part, and B is
// attached to C and has A, or the model, as its part.
func TestCopyOfWhatListsOneAnother(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		key, from := ecdsaKey(t), refTo(t, host, "v1")
		mustPush(t, newClient(t), from, modelDir(t, 60), key)
		m := resolve(t, from).Subject().Descriptor()
		c := noteOn(t, from, nil, nil)
		put(t, from, c.Digest.String(), c)
		a := indexOf(t, &m, c.Descriptor)
		attach(t, from, m, a)
		attach(t, from, c.Descriptor, indexOf(t, &c.Descriptor, a.Descriptor))
		to := parse(t, host+"/"+name(t)+"-copy:v1")
		if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.Referrers != 3 || len(r.Skipped) > 0 {
			t.Errorf("%+v", r)
		}
		verified(t, to, key.Public(t))
		if got := listedFor(t, byDigest(to, c.Digest)); len(got) != 1 {
			t.Errorf("to the part is attached: %q", got)
		}

		root := indexOf(t, nil, c.Descriptor)
		put(t, from, "list", root)
		attach(t, from, c.Descriptor, indexOf(t, &c.Descriptor, root.Descriptor))
		to = parse(t, host+"/"+name(t)+"-list:v1")
		if r := copied(t, aegis.CopyOptions{From: parse(t, from.Name()+":list"), To: to}); r.Referrers != 2 {
			t.Errorf("%+v", r)
		}
	})
}

// TestCopyLeavesOutWhatIsAttachedTooDeep, and nothing that is not.
func TestCopyLeavesOutWhatIsAttachedTooDeep(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 61), nil)
	at := resolve(t, from).Subject().Descriptor()
	for range 9 {
		next := noteOn(t, from, &at, nil)
		attach(t, from, at, next)
		at = next.Descriptor
	}
	if _, err := newClient(t).Sign(t.Context(), from, aegis.Signing{Signer: key}); err != nil {
		t.Fatal(err)
	}
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.Referrers != 9 || !slices.Equal(r.Skipped, []string{at.Digest.String()}) {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
}

// TestCopyLooksIntoWhatIsNearFirst: somebody who lists an SBOM as a deep part of an index
// does not keep its signature from being copied.
func TestCopyLooksIntoWhatIsNearFirst(t *testing.T) {
	t.Parallel()
	host := servertest.SharedStack(t).Registry
	from := refTo(t, host, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 70), nil)
	m := resolve(t, from).Subject().Descriptor()
	sbom := noteOn(t, from, &m, map[string]string{"what": "an SBOM"})
	put(t, from, sbom.Digest.String(), sbom)
	deep := indexOf(t, nil, sbom.Descriptor)
	put(t, from, deep.Digest.String(), deep)
	for range 5 {
		deep = indexOf(t, nil, deep.Descriptor)
		put(t, from, deep.Digest.String(), deep)
	}
	attach(t, from, m, indexOf(t, &m, deep.Descriptor))
	attach(t, from, m, sbom)
	attach(t, from, sbom.Descriptor, noteOn(t, from, &sbom.Descriptor, map[string]string{"what": "its signature"}))
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); len(r.Skipped) > 0 || r.Referrers != 3 {
		t.Errorf("%+v", r)
	}
	if got := listedFor(t, byDigest(to, sbom.Digest)); len(got) != 1 {
		t.Errorf("to the SBOM is attached: %q", got)
	}
}

// TestCopyLeavesOutWhatAListHasNoRoomFor: not the signature, though it is listed last.
func TestCopyLeavesOutWhatAListHasNoRoomFor(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	key, from := ecdsaKey(t), refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 71), key)
	m := resolve(t, from).Subject().Descriptor()
	var listed, last []ocispec.Descriptor
	for desc, err := range repository(t, from).Referrers(t.Context(), resolve(t, from).Subject()) {
		if err != nil {
			t.Fatal(err)
		}
		last = append(last, desc)
	}
	for i := range 120 {
		size := 62000
		switch {
		case i >= 100:
			size = 1
		case i >= 60:
			size = 1000 // in what room is left
		}
		n := noteOn(t, from, &m, map[string]string{"a": strings.Repeat("x", size), "n": strconv.Itoa(i)})
		put(t, from, n.Digest.String(), n)
		listed = append(listed, n.Descriptor)
	}
	put(t, from, "sha256-"+pushed.Digest.Encoded(), indexOf(t, nil, append(listed, last...)...))
	// To a layout: the same bounds, and no half second for each.
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "model.tar"), Tag: "v1"}
	if r := copied(t, aegis.CopyOptions{From: from, To: site}); len(r.Skipped) < 5 || r.Referrers+len(r.Skipped) != 121 {
		t.Errorf("%d attached, %d skipped", r.Referrers, len(r.Skipped))
	}
	verified(t, site, key.Public(t))
}

// TestCopyLeavesOutAListThatIsNone of what is attached to a signature.
func TestCopyLeavesOutAListThatIsNone(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	key, from := ecdsaKey(t), refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 62), key)
	tag := "sha256-" + pushed.Signatures[0].Digest.Encoded()
	put(t, from, tag, noteOn(t, from, nil, nil))
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.Referrers != 1 || !slices.Equal(r.Skipped, []string{tag}) {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
	// The model's own list is another matter: it may have listed the signature.
	put(t, from, "sha256-"+pushed.Digest.Encoded(), noteOn(t, from, nil, nil))
	_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: from, To: parse(t, host+"/"+name(t)+"-none:v1")})
	wantErr[*registry.FallbackError](t, err)
}

// TestCopyLeavesOutAnEntryThatIsTooLarge for a list: two of them would end the copy.
func TestCopyLeavesOutAnEntryThatIsTooLarge(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	key, from := ecdsaKey(t), refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 63), key)
	m := resolve(t, from).Subject().Descriptor()
	var listed []ocispec.Descriptor
	var large []string
	for _, c := range []string{"x", "y"} {
		n := noteOn(t, from, &m, map[string]string{"a": strings.Repeat(c, 2200000)})
		put(t, from, n.Digest.String(), n)
		listed, large = append(listed, n.Descriptor), append(large, n.Digest.String())
	}
	listed = append(listed, resolve(t, byDigest(from, pushed.Signatures[0].Digest)).Subject().Descriptor())
	put(t, from, "sha256-"+pushed.Digest.Encoded(), indexOf(t, nil, listed...))
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.Referrers != 1 || !slices.Equal(r.Skipped, large) {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
}

// TestCopyWritesAClassicListOnce, in its order, whatever its length; one of more than is
// copied is left out.
func TestCopyWritesAClassicListOnce(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	key, from := ecdsaKey(t), refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 64), key)
	list := func(n int) encoded {
		var m ocispec.Manifest
		if err := json.Unmarshal(noteOn(t, from, nil, nil).raw, &m); err != nil {
			t.Fatal(err)
		}
		m.Layers = nil
		for i := range n {
			l := note
			l.Annotations = map[string]string{"n": strconv.Itoa(n - i)}
			m.Layers = append(m.Layers, l)
		}
		return encode(t, ocispec.MediaTypeImageManifest, m)
	}
	tag := "sha256-" + pushed.Digest.Encoded() + ".sig"
	put(t, from, tag, list(40))
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	proxy := servertest.FaultProxy(t, host)
	for _, out := range []aegis.Reference{site, via(proxy, to)} {
		if r := copied(t, aegis.CopyOptions{From: from, To: out}); r.Referrers != 41 {
			t.Errorf("%s: %+v", out, r)
		}
	}
	written := 0
	for _, r := range proxy.Requests() {
		if r.Method == http.MethodPut && strings.HasSuffix(r.Path, tag) {
			written++
		}
	}
	if written != 1 {
		t.Errorf("the list was written %d times", written)
	}
	for i, l := range classicLayers(t, to) {
		if l.Annotations["n"] != strconv.Itoa(40-i) {
			t.Fatalf("layer %d has %v", i, l.Annotations)
		}
	}
	files := 0
	err := filepath.WalkDir(site.Path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
		}
		return err
	})
	if err != nil || files > 20 {
		t.Errorf("the layout has %d files, %v", files, err)
	}

	many := list(1001)
	put(t, from, tag, many)
	to = parse(t, host+"/"+name(t)+"-many:v1")
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.Referrers != 1 || !slices.Equal(r.Skipped, []string{many.Digest.String()}) {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
}

// inLayout changes the index of a layout.
func inLayout(t testing.TB, site layout.Reference, change func(*ocispec.Index)) {
	t.Helper()
	file := filepath.Join(site.Path, "index.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var x ocispec.Index
	if err := json.Unmarshal(text, &x); err != nil {
		t.Fatal(err)
	}
	change(&x)
	if text, err = json.Marshal(x); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCopyFromALayoutWhoseListsAreOdd: one entry, of the tag's list or of the index, hides
// no other.
func TestCopyFromALayoutWhoseListsAreOdd(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	key, from := ecdsaKey(t), refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 65), key)
	sig := resolve(t, byDigest(from, pushed.Signatures[0].Digest)).Subject().Descriptor()
	for what, change := range map[string]func(*ocispec.Index){
		"a list": func(x *ocispec.Index) {
			// As tools leave it: a list under the tag, and what it lists in no index.
			x.Manifests = slices.DeleteFunc(x.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == sig.Digest })
		},
		"the index": func(x *ocispec.Index) {
			wrong := sig
			wrong.Size++
			x.Manifests = append([]ocispec.Descriptor{wrong}, x.Manifests...)
		},
	} {
		t.Run(what, func(t *testing.T) {
			site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
			copied(t, aegis.CopyOptions{From: from, To: site})
			list := encode(t, ocispec.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []any{
				map[string]any{"mediaType": sig.MediaType, "digest": digest.FromString("z"), "size": 3, "annotations": map[string]any{"n": 1}}, sig,
			}})
			if err := os.WriteFile(filepath.Join(site.Path, "blobs", "sha256", list.Digest.Encoded()), list.raw, 0o600); err != nil {
				t.Fatal(err)
			}
			inLayout(t, site, func(x *ocispec.Index) {
				change(x)
				if what == "a list" {
					list.Annotations = map[string]string{ocispec.AnnotationRefName: "sha256-" + pushed.Digest.Encoded()}
					x.Manifests = append(x.Manifests, list.Descriptor)
				}
			})
			to := parse(t, host+"/"+name(t)+"-copy:v1")
			if r := copied(t, aegis.CopyOptions{From: site, To: to}); r.Referrers != 1 {
				t.Errorf("%+v", r)
			}
			verified(t, to, key.Public(t))
			if what == "a list" {
				verified(t, site, key.Public(t))
			}
		})
	}
}

// TestATokenEndpointSaysNothingAboutReferrers: its 404 does not say that there are none.
func TestATokenEndpointSaysNothingAboutReferrers(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 66), key)
	for _, status := range []int{http.StatusNotFound, http.StatusBadRequest} {
		proxy := servertest.FaultProxy(t, host)
		proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/token":
				w.WriteHeader(status)
			case strings.HasSuffix(r.URL.Path, "/referrers/"+pushed.Digest.String()):
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+proxy.URL+`/token",service="s"`)
				w.WriteHeader(http.StatusUnauthorized)
			default:
				return false
			}
			return true
		})
		to := parse(t, host+"/"+name(t)+"-"+strconv.Itoa(status)+":v1")
		_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: via(proxy, from), To: to})
		if wantRegistryErr(t, err, registry.Unauthorized); !strings.Contains(err.Error(), "answered "+strconv.Itoa(status)) {
			t.Errorf("error %v", err)
		}
		_, err = repository(t, to).Resolve(t.Context())
		wantRegistryErr(t, err, registry.NotFound)
	}
}

// TestCopyDoesNotBlameAMirrorForAnotherBlob that turns out wrong while the mirror's is
// being sent.
func TestCopyDoesNotBlameAMirrorForAnotherBlob(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 67), key)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	large := ocispec.Descriptor{MediaType: note.MediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	pushContent(t, repository(t, from), large, content)
	m := resolve(t, from).Subject().Descriptor()
	noteOn(t, from, &m, nil)
	wrong := note
	wrong.Size = 0
	raw := changedNote(t, from, func(m map[string]any) { m["layers"] = []any{large, wrong} })
	attach(t, from, m, encoded{ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest}, raw})
	mirror, dst := servertest.FaultProxy(t, host), servertest.FaultProxy(t, host)
	sending := make(chan struct{})
	var once sync.Once
	dst.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPatch:
			_, _ = io.ReadFull(r.Body, make([]byte, 1<<20))
			once.Do(func() { close(sending) })
			<-r.Context().Done()
		case r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, note.Digest.String()):
			<-sending
		}
		return false
	})
	var mu sync.Mutex
	var warned []string
	warn := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		warned = append(warned, s)
	}
	client, err := registry.NewClient(registry.Options{Sleep: noWait, Warn: warn, Mirrors: []registry.Mirror{{URL: mirror.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	r, err := aegis.New(client, aegis.Options{Warn: warn}).Copy(t.Context(), aegis.CopyOptions{From: from, To: via(dst, to)})
	if err != nil || len(r.Skipped) != 1 || r.Referrers != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if mirror.Count(large.Digest.String()) == 0 || slices.ContainsFunc(warned, func(s string) bool { return strings.Contains(s, "mirror") }) {
		t.Errorf("warned %q", warned)
	}
}

// TestCopyStoresASignatureAsWhatItIs: a signature that does not say its media type is not
// stored as what an attacker's index, which comes first, calls it.
func TestCopyStoresASignatureAsWhatItIs(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 68), key)
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: site})
	sig := resolve(t, byDigest(from, pushed.Signatures[0].Digest))
	var fields map[string]any
	if err := json.Unmarshal(sig.Manifest(), &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "mediaType")
	bare := encode(t, ocispec.MediaTypeImageManifest, fields)
	called := bare.Descriptor
	called.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
	m := resolve(t, from).Subject().Descriptor()
	// Of the same rank in the order in which they are copied.
	list := encode(t, ocispec.MediaTypeImageIndex, map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "artifactType": fields["artifactType"], "annotations": fields["annotations"],
		"manifests": []ocispec.Descriptor{called}, "subject": m,
	})
	for _, e := range []encoded{bare, list} {
		if err := os.WriteFile(filepath.Join(site.Path, "blobs", "sha256", e.Digest.Encoded()), e.raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inLayout(t, site, func(x *ocispec.Index) {
		rest := slices.DeleteFunc(x.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == sig.Subject().Digest() })
		x.Manifests = append([]ocispec.Descriptor{list.Descriptor, bare.Descriptor}, rest...)
	})
	for _, out := range []aegis.Reference{layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}, parse(t, host+"/"+name(t)+"-copy:v1")} {
		if r := copied(t, aegis.CopyOptions{From: site, To: out}); r.Referrers != 1 || !slices.Equal(r.Skipped, []string{list.Digest.String()}) {
			t.Errorf("%s: %+v", out, r)
		}
		verified(t, out, key.Public(t))
	}
	if _, err := signature.SubjectOf(called.MediaType, bare.raw); err == nil {
		t.Error("it passes for a Docker manifest")
	}
}
