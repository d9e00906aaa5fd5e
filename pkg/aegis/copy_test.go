// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

func copied(t testing.TB, o aegis.CopyOptions) aegis.CopyResult {
	t.Helper()
	r, err := newClient(t).Copy(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func verified(t testing.TB, ref aegis.Reference, key signature.Key) aegis.VerifyResult {
	t.Helper()
	r, err := newClient(t).Verify(t.Context(), ref, requirement(key))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCopyCarriesEverySignature goes from either kind of registry through a
// directory and a tar to the other kind: the Sigstore and the classic signature hold
// everywhere, and what is attached to a signature comes along.
func TestCopyCarriesEverySignature(t *testing.T) {
	t.Parallel()
	stack := servertest.SharedStack(t).Registry
	distribution, _ := servertest.Distribution(t)
	for _, way := range []struct{ name, from, to string }{{"to-the-tag-schema", stack, distribution}, {"to-the-api", distribution, stack}} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			key, dir := ecdsaKey(t), modelDir(t, 41)
			from, site := refTo(t, way.from, "v1"), t.TempDir()
			to := parse(t, way.to+"/"+name(t)+"-site:v1")
			mustPush(t, newClient(t), from, dir, key)
			if _, err := newClient(t).Sign(t.Context(), from, aegis.Signing{Signer: key, Formats: []signature.Format{signature.CosignTag}}); err != nil {
				t.Fatal(err)
			}
			attachToSignature(t, from)

			out := layout.Reference{Path: filepath.Join(site, "layout"), Tag: "v1"}
			file := layout.Reference{Path: filepath.Join(site, "model.tar"), Tag: "v1"}
			steps := []aegis.CopyOptions{{From: from, To: out}, {From: out, To: file}, {From: file, To: to, Tags: []string{"stable"}}}
			for _, o := range steps {
				if r := copied(t, o); r.Referrers != 3 || len(r.Skipped) > 0 || r.Manifests != 3 {
					t.Errorf("%s: %+v", o.To, r)
				}
				if got := verified(t, o.To, key.Public(t)); len(got.Signatures) == 0 || got.Digest != resolve(t, from).Subject().Digest() {
					t.Errorf("%s: %+v", o.To, got)
				}
				seen, err := newClient(t).Inspect(t.Context(), o.To, []signature.Key{key.Public(t)})
				if err != nil || len(seen.Signatures) != 2 || seen.Signatures[0].Status != "accepted" || seen.Signatures[1].Status != "accepted" {
					t.Errorf("%s: %v %+v", o.To, err, seen.Signatures)
				}
				dst := filepath.Join(t.TempDir(), "model")
				if _, err := newClient(t).Pull(t.Context(), aegis.PullOptions{Ref: o.To, Dir: dst}, requirement(key.Public(t))); err != nil {
					t.Fatal(err)
				}
				sameModel(t, dir, dst)
			}
			if again := copied(t, aegis.CopyOptions{From: from, To: to}); again.BytesCopied != 0 {
				t.Errorf("the second copy sends %d bytes", again.BytesCopied)
			}
			if resolve(t, parse(t, to.Name()+":stable")).Subject().Digest() != resolve(t, from).Subject().Digest() {
				t.Error("the further tag is another manifest")
			}
		})
	}
}

// attachToSignature attaches something to the first referrer of ref.
func attachToSignature(t testing.TB, ref registry.Reference) {
	t.Helper()
	repo := repository(t, ref)
	for desc, err := range repo.Referrers(t.Context(), resolve(t, ref).Subject()) {
		if err != nil {
			t.Fatal(err)
		}
		signed := resolve(t, byDigest(ref, desc.Digest)).Subject()
		pushReferrer(t, repo, signed, "application/vnd.example.note", []byte("seen"), nil)
		return
	}
	t.Fatal("there is no signature")
}

// TestCopyRefusedWritesNothing: no request that writes reaches a registry, and no
// name appears on disk.
func TestCopyRefusedWritesNothing(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		from := refTo(t, host, "v1")
		mustPush(t, newClient(t), from, modelDir(t, 42), ecdsaKey(t))
		proxy := servertest.FaultProxy(t, host)
		var seen sequence
		seen.watch("dst", proxy)
		site := t.TempDir()
		req := requirement(ecdsaKey(t).Public(t))
		for _, to := range []aegis.Reference{
			via(proxy, parse(t, host+"/"+name(t)+"-refused:v1")),
			layout.Reference{Path: filepath.Join(site, "dir"), Tag: "v1"}, layout.Reference{Path: filepath.Join(site, "file.tar"), Tag: "v1"},
		} {
			_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: from, To: to, Requirement: &req})
			wantErr[*verify.RejectedError](t, err)
		}
		if lines := seen.all(); len(lines) > 0 {
			t.Errorf("the destination was asked: %v", lines)
		}
		nothingIn(t, site)
	})
}

// TestCopyRefusesChangedContent changes a blob in a layout, not its size: neither a
// registry nor a layout gets it, no tag appears, and no tar is left.
func TestCopyRefusesChangedContent(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		key, dir, from := ecdsaKey(t), modelDir(t, 43), refTo(t, host, "v1")
		mustPush(t, newClient(t), from, dir, key)
		bad := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
		copied(t, aegis.CopyOptions{From: from, To: bad})
		blob := blobOf(t, dir, "weights/part-1.bin")
		spoil(t, bad, blob)

		_, err := newClient(t).Pull(t.Context(), aegis.PullOptions{Ref: bad, Dir: filepath.Join(t.TempDir(), "model")}, requirement(key.Public(t)))
		wantErr[*model.ContentError](t, err)
		site, to := t.TempDir(), parse(t, host+"/"+name(t)+"-spoilt:v1")
		for _, o := range []aegis.Reference{to, layout.Reference{Path: filepath.Join(site, "file.tar"), Tag: "v1"}} {
			_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: bad, To: o})
			if e := wantErr[*model.ContentError](t, err); e.Want != blob {
				t.Errorf("another blob: %v", e)
			}
		}
		nothingIn(t, site)
		_, err = repository(t, to).Resolve(t.Context())
		wantRegistryErr(t, err, registry.NotFound)
	})
}

func spoil(t testing.TB, ref layout.Reference, d digest.Digest) {
	t.Helper()
	file := filepath.Join(ref.Path, "blobs", "sha256", d.Encoded())
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyCannotTellWithASpoiltSignature: a signature that the medium changed
// might have been the one that counts.
func TestVerifyCannotTellWithASpoiltSignature(t *testing.T) {
	t.Parallel()
	key, from := ecdsaKey(t), refTo(t, servertest.SharedStack(t).Registry, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 44), key)
	out := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: out})
	spoil(t, out, pushed.Signatures[0].Digest)
	_, err := newClient(t).Verify(t.Context(), out, requirement(key.Public(t)))
	wantErr[*verify.UndecidedError](t, err)
}

// TestCopyWithinARegistryMounts: no byte of a blob flows.
func TestCopyWithinARegistryMounts(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		key, from := ecdsaKey(t), refTo(t, host, "v1")
		pushed := mustPush(t, newClient(t), from, modelDir(t, 45), key)
		to := parse(t, host+"/"+name(t)+"-mounted:v1")
		r := copied(t, aegis.CopyOptions{From: from, To: to})
		if r.BytesMounted < 64<<10 || r.BytesCopied != 0 {
			t.Errorf("of %d bytes %d were mounted and %d sent", pushed.Size, r.BytesMounted, r.BytesCopied)
		}
		verified(t, to, key.Public(t))
	})
}

// TestCopyWritesTagsLast: when the last referrer cannot be attached, the
// destination's tag stays away.
func TestCopyWritesTagsLast(t *testing.T) {
	t.Parallel()
	host := servertest.SharedStack(t).Registry
	from := refTo(t, host, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 46), ecdsaKey(t))
	proxy := servertest.FaultProxy(t, host)
	signed := resolve(t, from).Subject().Digest().String()
	proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		refuse := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && !strings.HasSuffix(r.URL.Path, signed)
		if refuse {
			w.WriteHeader(http.StatusForbidden)
		}
		return refuse
	})
	to := parse(t, host+"/"+name(t)+"-last:v1")
	_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: from, To: via(proxy, to)})
	wantRegistryErr(t, err, registry.Denied)
	_, err = repository(t, to).Resolve(t.Context())
	wantRegistryErr(t, err, registry.NotFound)
}

// TestCopiesIntoOneLayoutAtOnce: nobody's tag and nobody's signature is lost.
func TestCopiesIntoOneLayoutAtOnce(t *testing.T) {
	t.Parallel()
	host, key, site := servertest.SharedStack(t).Registry, ecdsaKey(t), filepath.Join(t.TempDir(), "layout")
	tags := []string{"a", "b", "c", "d", "e", "f"}
	for i, tag := range tags {
		mustPush(t, newClient(t), refTo(t, host, tag), modelDir(t, uint64(50+i/2)), key)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(tags))
	for i, tag := range tags {
		wg.Go(func() {
			_, errs[i] = newClient(t).Copy(t.Context(), aegis.CopyOptions{From: refTo(t, host, tag), To: layout.Reference{Path: site, Tag: tag}})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		verified(t, layout.Reference{Path: site, Tag: tag}, key.Public(t))
	}
}

// TestCopyLeavesOutAClassicSignatureThatIsSpoilt: what anybody can write under cosign's
// tag keeps neither the model nor the other signatures from being copied.
func TestCopyLeavesOutAClassicSignatureThatIsSpoilt(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		first, second, dir, from := ecdsaKey(t), ecdsaKey(t), modelDir(t, 47), refTo(t, host, "v1")
		mustPush(t, newClient(t), from, dir, first)
		for i, key := range []*testkey.Key{first, second} {
			o := aegis.Signing{Signer: key, Formats: []signature.Format{signature.CosignTag}, Annotations: map[string]string{"n": strconv.Itoa(i)}}
			if _, err := newClient(t).Sign(t.Context(), from, o); err != nil {
				t.Fatal(err)
			}
		}
		bad := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
		copied(t, aegis.CopyOptions{From: from, To: bad})
		layers := classicLayers(t, from)
		if err := os.Remove(filepath.Join(bad.Path, "blobs", "sha256", layers[0].Digest.Encoded())); err != nil {
			t.Fatal(err)
		}
		to := parse(t, host+"/"+name(t)+"-copy:v1")
		r := copied(t, aegis.CopyOptions{From: bad, To: to})
		if !slices.Equal(r.Skipped, []string{layers[0].Digest.String()}) || r.Referrers != 2 {
			t.Errorf("skipped %q, %d referrers", r.Skipped, r.Referrers)
		}
		if got := classicLayers(t, to); len(got) != 1 || got[0].Digest != layers[1].Digest {
			t.Errorf("the copy has %v", got)
		}
		verified(t, to, first.Public(t))
		verified(t, to, second.Public(t))
	})
}

// classicLayers are the signatures under cosign's tag for ref.
func classicLayers(t testing.TB, ref registry.Reference) []ocispec.Descriptor {
	t.Helper()
	repo := repository(t, ref)
	desc, found, err := repo.Classic(t.Context(), resolve(t, ref).Subject())
	if err != nil || !found {
		t.Fatal(found, err)
	}
	raw, err := repo.FetchManifest(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers
}

// TestCopyLeavesOutWhatCannotBeNamed: a descriptor that somebody made up is no reason
// not to copy the rest.
func TestCopyLeavesOutWhatCannotBeNamed(t *testing.T) {
	t.Parallel()
	key, from := ecdsaKey(t), refTo(t, servertest.SharedStack(t).Registry, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 48), key)
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	subject := resolve(t, from).Subject()
	copied(t, aegis.CopyOptions{From: from, To: site})
	l, err := layout.Open(site.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var odd []string
	for _, d := range []string{"sha256:x\x1b[2J", "sha512:" + strings.Repeat("0", 128), ""} {
		raw, _ := referrer(t, subject.Descriptor(), "application/vnd.example.note", []byte("x"), nil)
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		m["layers"].([]any)[0].(map[string]any)["digest"] = d
		if raw, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		p, err := l.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			t.Fatal(err)
		}
		odd = append(odd, p.Subject().Digest().String())
	}
	to := parse(t, servertest.SharedStack(t).Registry+"/"+name(t)+"-copy:v1")
	r := copied(t, aegis.CopyOptions{From: site, To: to})
	slices.Sort(odd)
	if slices.Sort(r.Skipped); !slices.Equal(r.Skipped, odd) {
		t.Errorf("skipped %q, want %q", r.Skipped, odd)
	}
	verified(t, to, key.Public(t))
}

// TestCopyIntoALayoutReadsWhatIsThere: a blob that the medium has spoilt, without a
// change of its size, is replaced; a right one is not sent again.
func TestCopyIntoALayoutReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	key, dir, from := ecdsaKey(t), modelDir(t, 49), refTo(t, servertest.SharedStack(t).Registry, "v1")
	mustPush(t, newClient(t), from, dir, key)
	to := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: to})
	spoil(t, to, blobOf(t, dir, "weights/part-1.bin"))
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.BytesCopied < 30<<10 || r.BytesCopied > 64<<10 {
		t.Errorf("%d bytes were copied", r.BytesCopied)
	}
	if r := copied(t, aegis.CopyOptions{From: from, To: to}); r.BytesCopied != 0 {
		t.Errorf("%d bytes were copied again", r.BytesCopied)
	}
	dst := filepath.Join(t.TempDir(), "model")
	if _, err := newClient(t).Pull(t.Context(), aegis.PullOptions{Ref: to, Dir: dst}, requirement(key.Public(t))); err != nil {
		t.Fatal(err)
	}
	sameModel(t, dir, dst)
}

// TestCopyIsNotMisledAboutASignature: what somebody lists where it does not belong is
// left out there, and not where it belongs.
func TestCopyIsNotMisledAboutASignature(t *testing.T) {
	t.Parallel()
	key, from := ecdsaKey(t), refTo(t, servertest.SharedStack(t).Registry, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 46), key)
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: site, NoReferrers: true})
	l, err := layout.Open(site.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	subject := resolve(t, from).Subject()
	put := func(raw []byte) layout.Pinned {
		t.Helper()
		p, err := l.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, content := range [][]byte{[]byte("{}"), []byte("note")} {
		desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
		if _, err := l.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
			t.Fatal(err)
		}
	}
	// A note, listed before the signature, under whose classic tag the signature's
	// manifest passes for a layer, of another size.
	raw, _ := referrer(t, subject.Descriptor(), "application/vnd.example.note", []byte("note"), nil)
	note := put(raw)
	copied(t, aegis.CopyOptions{From: from, To: site})
	raw, _ = referrer(t, subject.Descriptor(), "", []byte("note"), nil)
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "subject")
	layer := m["layers"].([]any)[0].(map[string]any)
	layer["digest"], layer["size"] = pushed.Signatures[0].Digest, 7
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := l.TagManifest(t.Context(), put(raw), strings.Replace(note.Subject().Digest().String(), ":", "-", 1)+".sig"); err != nil {
		t.Fatal(err)
	}
	to := parse(t, servertest.SharedStack(t).Registry+"/"+name(t)+"-copy:v1")
	r := copied(t, aegis.CopyOptions{From: site, To: to})
	if !slices.Equal(r.Skipped, []string{pushed.Signatures[0].Digest.String()}) {
		t.Errorf("left out: %q", r.Skipped)
	}
	verified(t, to, key.Public(t))
}

// TestCopyFailsWhereTheDestinationRefuses: a signature that could be copied is not left
// out because its destination will not have it.
func TestCopyFailsWhereTheDestinationRefuses(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 45), key)
	raw, err := repository(t, from).FetchManifest(t.Context(), resolve(t, byDigest(from, pushed.Signatures[0].Digest)).Subject().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for status, kind := range map[int]registry.Kind{413: registry.TooLarge, 404: registry.Unavailable} {
		proxy := servertest.FaultProxy(t, host)
		proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			refuse := r.Method == http.MethodPut && strings.Contains(r.URL.RawQuery, m.Layers[0].Digest.Encoded())
			if refuse {
				w.WriteHeader(status)
			}
			return refuse
		})
		to := parse(t, host+"/"+name(t)+"-"+strconv.Itoa(status)+":v1")
		_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: from, To: via(proxy, to)})
		wantRegistryErr(t, err, kind)
		_, err = repository(t, to).Resolve(t.Context())
		wantRegistryErr(t, err, registry.NotFound)
	}
}

// TestCopyPrintsNoTitleThatMovesTheCursor: a title is somebody's text.
func TestCopyPrintsNoTitleThatMovesTheCursor(t *testing.T) {
	t.Parallel()
	key, from := ecdsaKey(t), refTo(t, servertest.SharedStack(t).Registry, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 44), key)
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: site})
	l, err := layout.Open(site.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, note := referrer(t, resolve(t, from).Subject().Descriptor(), "application/vnd.example.note", []byte("note"), nil)
	raw = bytes.Replace(raw, []byte(`"size":4}`), []byte(`"size":4,"annotations":{"org.opencontainers.image.title":"a\u001b[2Jb\nc"}}`), 1)
	if _, err := l.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(site.Path, "blobs", "sha256", note.Digest.Encoded()), []byte("nope"), 0o600); err != nil {
		t.Fatal(err)
	}
	var warned []string
	c := newClient(t, func(o *aegis.Options) { o.Warn = func(s string) { warned = append(warned, s) } })
	r, err := c.Copy(t.Context(), aegis.CopyOptions{From: site, To: parse(t, servertest.SharedStack(t).Registry+"/"+name(t)+"-copy:v1")})
	if err != nil || len(r.Skipped) != 1 || len(warned) != 1 {
		t.Fatalf("%v, skipped %q, warned %q", err, r.Skipped, warned)
	}
	if strings.ContainsAny(warned[0], "\x1b\n") || !strings.Contains(warned[0], note.Digest.Encoded()[:12]) {
		t.Errorf("warned %q", warned[0])
	}
}

// TestCopyAttachesWhatAnIndexListsToo: who lists a signature as a part of an index does
// not keep it from being attached, where attaching is more than a push.
func TestCopyAttachesWhatAnIndexListsToo(t *testing.T) {
	t.Parallel()
	key, from := ecdsaKey(t), refTo(t, servertest.SharedStack(t).Registry, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 50), key)
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: site, NoReferrers: true})
	l, err := layout.Open(site.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	subject := resolve(t, from).Subject().Descriptor()
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: "application/vnd.example.list",
		Manifests: []ocispec.Descriptor{resolve(t, byDigest(from, pushed.Signatures[0].Digest)).Subject().Descriptor()}, Subject: &subject,
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := l.PushManifest(t.Context(), ocispec.MediaTypeImageIndex, raw)
	if err != nil {
		t.Fatal(err)
	}
	copied(t, aegis.CopyOptions{From: from, To: site})
	distribution, _ := servertest.Distribution(t)
	to := parse(t, distribution+"/"+name(t)+":v1")
	if r := copied(t, aegis.CopyOptions{From: site, To: to}); len(r.Skipped) > 0 || r.Referrers != 2 || r.Manifests != 3 {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
	listed := listedFor(t, to)
	if slices.Sort(listed); !slices.Equal(listed, slices.Sorted(slices.Values([]string{list.Subject().Digest().String(), pushed.Signatures[0].Digest.String()}))) {
		t.Errorf("the copy lists %q", listed)
	}
}

// listedFor are the digests of what refers to ref.
func listedFor(t testing.TB, ref registry.Reference) []string {
	t.Helper()
	var all []string
	for desc, err := range repository(t, ref).Referrers(t.Context(), resolve(t, ref).Subject()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, desc.Digest.String())
	}
	return all
}

// TestCopyTakesAReferrerWithoutAMediaType, which a manifest need not have.
func TestCopyTakesAReferrerWithoutAMediaType(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		key, from := ecdsaKey(t), refTo(t, host, "v1")
		mustPush(t, newClient(t), from, modelDir(t, 51), key)
		site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
		copied(t, aegis.CopyOptions{From: from, To: site})
		l, err := layout.Open(site.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := l.PushBlob(t.Context(), note, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("note")), nil }); err != nil {
			t.Fatal(err)
		}
		raw := changedNote(t, from, func(m map[string]any) { delete(m, "mediaType") })
		p, err := l.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			t.Fatal(err)
		}
		to := parse(t, host+"/"+name(t)+"-copy:v1")
		for _, out := range []aegis.Reference{layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}, to} {
			if r := copied(t, aegis.CopyOptions{From: site, To: out}); len(r.Skipped) > 0 || r.Referrers != 2 {
				t.Errorf("%s: %+v", out, r)
			}
			verified(t, out, key.Public(t))
		}
		if listed := listedFor(t, to); !slices.Contains(listed, p.Subject().Digest().String()) || len(listed) != 2 {
			t.Errorf("the copy lists %q", listed)
		}
	})
}

// changedNote is the manifest of a note on ref with a change.
func changedNote(t testing.TB, ref registry.Reference, change func(m map[string]any)) []byte {
	t.Helper()
	raw, _ := referrer(t, resolve(t, ref).Subject().Descriptor(), note.MediaType, []byte("note"), nil)
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestCopyLeavesOutAReferrerWithOddAnnotations: registries differ in what they take and
// list.
func TestCopyLeavesOutAReferrerWithOddAnnotations(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 53), key)
	raw := changedNote(t, from, func(m map[string]any) { m["annotations"] = map[string]any{"n": 1} })
	pushContent(t, repository(t, from), note, []byte("note"))
	odd := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	list, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{odd, resolve(t, byDigest(from, pushed.Signatures[0].Digest)).Subject().Descriptor()},
	})
	if err != nil {
		t.Fatal(err)
	}
	proxy := servertest.FaultProxy(t, host)
	proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/referrers/"+pushed.Digest.String()):
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_, _ = w.Write(list)
		case strings.HasSuffix(r.URL.Path, "/manifests/"+odd.Digest.String()):
			w.Header().Set("Content-Type", odd.MediaType)
			_, _ = w.Write(raw)
		default:
			return false
		}
		return true
	})
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: via(proxy, from), To: to}); !slices.Equal(r.Skipped, []string{odd.Digest.String()}) || r.Referrers != 1 {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
}

// TestCopyLeavesOutAReferrerThatLacksALayer, also while another one of its layers is
// being sent.
func TestCopyLeavesOutAReferrerThatLacksALayer(t *testing.T) {
	t.Parallel()
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 54), key)
	gone := ocispec.Descriptor{MediaType: note.MediaType, Digest: digest.FromString("gone"), Size: 4}
	for content, desc := range map[string]ocispec.Descriptor{"note": note, "gone": gone, "{}": ocispec.DescriptorEmptyJSON} {
		pushContent(t, repository(t, from), desc, []byte(content))
	}
	raw := changedNote(t, from, func(m map[string]any) { m["layers"] = []any{note, gone} })
	desc, err := repository(t, from).Attach(t.Context(), resolve(t, from).Subject(), ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	source := servertest.FaultProxy(t, host)
	source.Fail(servertest.Fault{Method: http.MethodGet, Path: gone.Digest.String(), Status: http.StatusNotFound, Body: `{"errors":[{"code":"BLOB_UNKNOWN"}]}`})
	proxy := servertest.FaultProxy(t, host)
	sending := make(chan struct{})
	proxy.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		switch sent := r.URL.Query().Get("digest"); {
		case r.Method == http.MethodPut && sent == note.Digest.String():
			close(sending)
			<-r.Context().Done()
		case r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, gone.Digest.String()):
			<-sending
		}
		return false
	})
	to := parse(t, host+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: via(source, from), To: via(proxy, to)}); !slices.Equal(r.Skipped, []string{desc.Digest.String()}) || r.Referrers != 1 {
		t.Errorf("%+v", r)
	}
	verified(t, to, key.Public(t))
}

// note is a blob.
var note = ocispec.Descriptor{MediaType: "application/vnd.example.note", Digest: digest.FromString("note"), Size: 4}

// TestCopyLeavesOutASizeThatIsNotTrue, of a blob that the destination has, or takes over
// from the source's repository, and where the source announces no length.
func TestCopyLeavesOutASizeThatIsNotTrue(t *testing.T) {
	t.Parallel()
	distribution, _ := servertest.Distribution(t)
	for _, way := range []string{"there", "mounted", "no-length"} {
		for _, size := range []int64{0, note.Size - 1, note.Size + 1} {
			t.Run(way+"/"+strconv.FormatInt(size, 10), func(t *testing.T) {
				t.Parallel()
				key, from := ecdsaKey(t), refTo(t, distribution, "v1")
				mustPush(t, newClient(t), from, modelDir(t, 52), key)
				to := parse(t, distribution+"/"+name(t)+"-copy:v1")
				pushContent(t, repository(t, from), note, []byte("note"))
				pushContent(t, repository(t, from), ocispec.DescriptorEmptyJSON, []byte("{}"))
				raw, _ := referrer(t, resolve(t, from).Subject().Descriptor(), note.MediaType, []byte("note"), nil)
				raw = bytes.Replace(raw, []byte(`"size":4}`), []byte(`"size":`+strconv.FormatInt(size, 10)+`}`), 1)
				desc, err := repository(t, from).Attach(t.Context(), resolve(t, from).Subject(), ocispec.MediaTypeImageManifest, raw)
				if err != nil {
					t.Fatal(err)
				}
				if way != "mounted" {
					pushContent(t, repository(t, to), note, []byte("note"))
					proxy := servertest.FaultProxy(t, distribution)
					if way == "no-length" {
						proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
							if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, note.Digest.String()) {
								return false
							}
							_, _ = io.WriteString(w, "no")
							_ = http.NewResponseController(w).Flush()
							_, _ = io.WriteString(w, "te")
							return true
						})
					}
					from = via(proxy, from)
				}
				r := copied(t, aegis.CopyOptions{From: from, To: to})
				if !slices.Equal(r.Skipped, []string{desc.Digest.String()}) || r.Referrers != 1 {
					t.Errorf("%+v", r)
				}
				verified(t, to, key.Public(t))
			})
		}
	}
}

// TestALayoutListsOfWhatTypeSomethingIs, for tools that read no more than the index.
func TestALayoutListsOfWhatTypeSomethingIs(t *testing.T) {
	t.Parallel()
	from, key := refTo(t, servertest.SharedStack(t).Registry, "v1"), ecdsaKey(t)
	mustPush(t, newClient(t), from, modelDir(t, 58), key)
	to := layout.Reference{Path: filepath.Join(t.TempDir(), "stick"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: to})
	if _, err := newClient(t).Sign(t.Context(), to, aegis.Signing{Signer: ecdsaKey(t)}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(to.Path, ocispec.ImageIndexFile))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	signatures := 0
	for _, e := range index.Manifests {
		if strings.Contains(e.ArtifactType, "sigstore") {
			signatures++
		}
	}
	if len(index.Manifests) != 3 || signatures != 2 {
		t.Errorf("%s", raw)
	}
}

// TestCopyWritesEachListOnce, where what is attached is under a tag.
func TestCopyWritesEachListOnce(t *testing.T) {
	t.Parallel()
	const notes = 20
	host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
	from := refTo(t, host, "v1")
	mustPush(t, newClient(t), from, modelDir(t, 56), key)
	subject := resolve(t, from).Subject()
	for i := range notes {
		attached := pushReferrer(t, repository(t, from), subject, note.MediaType, []byte("note"), map[string]string{"n": strconv.Itoa(i)})
		if i > 0 {
			continue
		}
		raw, err := repository(t, from).FetchManifest(t.Context(), attached)
		if err != nil {
			t.Fatal(err)
		}
		first, err := signature.SubjectOf(attached.MediaType, raw)
		if err != nil {
			t.Fatal(err)
		}
		for j := range notes {
			pushReferrer(t, repository(t, from), first, note.MediaType, []byte("note"), map[string]string{"of": "a note", "n": strconv.Itoa(j)})
		}
	}
	distribution, _ := servertest.Distribution(t)
	proxy := servertest.FaultProxy(t, distribution)
	to := parse(t, distribution+"/"+name(t)+"-copy:v1")
	if r := copied(t, aegis.CopyOptions{From: from, To: via(proxy, to)}); r.Referrers != 2*notes+1 || len(r.Skipped) > 0 {
		t.Errorf("%+v", r)
	}
	writesEachListOnce(t, proxy)
	if n := proxy.Count("/manifests/sha256-" + subject.Digest().Encoded()); n < 2 {
		t.Errorf("the list was asked for %d times, and was to be read again", n)
	}
	entries := 0
	for _, err := range repository(t, to).Referrers(t.Context(), subject) {
		if entries++; err != nil {
			t.Fatal(err)
		}
	}
	if entries != notes+1 {
		t.Errorf("%d are attached, want %d", entries, notes+1)
	}
	verified(t, to, key.Public(t))
}

// TestCopyListsSignaturesBeforeWhatIsRefused: somebody attaches what the destination does
// not take, as a manifest or in a list. The copy ends, and the signature is there.
func TestCopyListsSignaturesBeforeWhatIsRefused(t *testing.T) {
	t.Parallel()
	distribution, _ := servertest.Distribution(t)
	for _, refused := range []string{"manifest", "entry"} {
		t.Run(refused, func(t *testing.T) {
			t.Parallel()
			host, key := servertest.SharedStack(t).Registry, ecdsaKey(t)
			from := refTo(t, host, "v1")
			mustPush(t, newClient(t), from, modelDir(t, 57), key)
			subject := resolve(t, from).Subject()
			var junk []string
			for i := range 5 {
				junk = append(junk, pushReferrer(t, repository(t, from), subject, note.MediaType, []byte("note"), map[string]string{"n": strconv.Itoa(i)}).Digest.String())
			}
			proxy := servertest.FaultProxy(t, distribution)
			proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				if refused == "manifest" && strings.HasSuffix(r.URL.Path, junk[2]) || refused == "entry" && strings.Contains(string(body), junk[2]) {
					w.WriteHeader(http.StatusForbidden)
					return true
				}
				return false
			})
			to := parse(t, distribution+"/"+name(t)+"-copy:v1")
			_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: from, To: via(proxy, to)})
			var e *registry.Error
			if !errors.As(err, &e) || e.Status != http.StatusForbidden {
				t.Fatalf("error %v", err)
			}
			if _, err := newClient(t).Verify(t.Context(), to, requirement(key.Public(t))); err == nil {
				t.Error("the tag was written")
			}
			to.Tag, to.Digest = "", subject.Digest()
			verified(t, to, key.Public(t))
		})
	}
}

// TestCopyAsksOnceForABlob that is not there, and once for one that is.
func TestCopyAsksOnceForABlob(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		from, dir := refTo(t, host, "v1"), modelDir(t, 55)
		mustPush(t, newClient(t), from, dir, ecdsaKey(t))
		blob := blobOf(t, dir, "weights/part-1.bin").String()
		proxy := servertest.FaultProxy(t, host)
		var asked sequence
		asked.watch("", proxy)
		to := via(proxy, parse(t, host+"/"+name(t)+"-copy:v1"))
		for n := 1; n <= 2; n++ {
			copied(t, aegis.CopyOptions{From: from, To: to})
			if got := asked.count("HEAD /v2/" + to.Repository + "/blobs/" + blob); got != n {
				t.Errorf("copy %d: asked %d times", n, got)
			}
		}
	})
}

// TestALayoutThatCannotBeWrittenIsNotSigned: what Vault signs is in its audit log, and
// must then be somewhere else, too.
func TestALayoutThatCannotBeWrittenIsNotSigned(t *testing.T) {
	t.Parallel()
	from, site := refTo(t, servertest.SharedStack(t).Registry, "v1"), t.TempDir()
	mustPush(t, newClient(t), from, modelDir(t, 61), nil)
	file := layout.Reference{Path: filepath.Join(site, "model.tar"), Tag: "v1"}
	dir := layout.Reference{Path: filepath.Join(site, "layout"), Tag: "v1"}
	copied(t, aegis.CopyOptions{From: from, To: file})
	copied(t, aegis.CopyOptions{From: from, To: dir})
	lock := filepath.Join(dir.Path, ".aegis.lock")
	if err := errors.Join(os.Remove(lock), os.Mkdir(lock, 0o755)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, site)

	key := ecdsaKey(t)
	for ref, kind := range map[layout.Reference]layout.Kind{file: layout.ReadOnly, dir: layout.Malformed} {
		_, err := newClient(t).Sign(t.Context(), ref, aegis.Signing{Signer: key})
		if e := wantErr[*layout.Error](t, err); e.Kind != kind {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if key.Calls != 0 {
		t.Errorf("the signer was asked %d times", key.Calls)
	}
	if after := tree(t, site); !slices.Equal(before, after) {
		t.Errorf("left behind: %q, before: %q", after, before)
	}
}

// tree names everything under dir.
func tree(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestCopyListsASignatureThatIsCopiedByItself: where there is no referrers API nobody else
// lists it, before the model is there or after.
func TestCopyListsASignatureThatIsCopiedByItself(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		key, from := ecdsaKey(t), refTo(t, host, "v1")
		signed := byDigest(from, mustPush(t, newClient(t), from, modelDir(t, 62), key).Signatures[0].Digest)
		for _, first := range []string{"model", "signature"} {
			to := parse(t, host+"/"+name(t)+"-"+first+":v1")
			bare := to
			bare.Tag = ""
			steps := []aegis.CopyOptions{{From: from, To: to, NoReferrers: true}, {From: signed, To: bare, NoReferrers: true}}
			if first == "signature" {
				slices.Reverse(steps)
			}
			for _, o := range steps {
				copied(t, o)
			}
			verified(t, to, key.Public(t))
			if listed := listedFor(t, to); !slices.Equal(listed, []string{signed.Digest.String()}) {
				t.Errorf("%s first: the copy lists %q", first, listed)
			}
		}
	})
}

// TestCopyListsThePartsOfAnIndex that refer to one another, and none for what is elsewhere:
// whoever made the index would choose for what.
func TestCopyListsThePartsOfAnIndex(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	key, from := ecdsaKey(t), refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 63), key)
	model := resolve(t, from).Subject().Descriptor()
	gone := ocispec.Descriptor{MediaType: model.MediaType, Digest: digest.FromString("gone"), Size: 4}
	stray := noteOn(t, from, &gone, nil)
	put(t, from, stray.Digest.String(), stray)
	signed := resolve(t, byDigest(from, pushed.Signatures[0].Digest)).Subject().Descriptor()
	prod := parse(t, host+"/"+name(t)+"-site:prod")
	elsewhere := byDigest(prod, mustPush(t, newClient(t), prod, modelDir(t, 66), nil).Digest)
	other := resolve(t, elsewhere).Subject().Descriptor()
	far := noteOn(t, from, &other, nil)
	put(t, from, far.Digest.String(), far)
	put(t, from, "all", indexOf(t, nil, signed, stray.Descriptor, far.Descriptor, model))

	var warned []string
	c := newClient(t, func(o *aegis.Options) { o.Warn = func(s string) { warned = append(warned, s) } })
	to := parse(t, host+"/"+name(t)+"-site:all")
	if _, err := c.Copy(t.Context(), aegis.CopyOptions{From: parse(t, from.Name()+":all"), To: to, NoReferrers: true}); err != nil {
		t.Fatal(err)
	}
	verified(t, byDigest(to, model.Digest), key.Public(t))
	if listed := listedFor(t, prod); len(listed) > 0 || len(warned) > 0 {
		t.Errorf("another model lists %q; warnings: %q", listed, warned)
	}
}

// TestACopiedSignatureThatCannotBeListed is copied all the same: its model is elsewhere, or
// somebody took the tag of the list.
func TestACopiedSignatureThatCannotBeListed(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	from := refTo(t, host, "v1")
	pushed := mustPush(t, newClient(t), from, modelDir(t, 67), ecdsaKey(t))
	signed := byDigest(from, pushed.Signatures[0].Digest)
	var warned []string
	c := newClient(t, func(o *aegis.Options) { o.Warn = func(s string) { warned = append(warned, s) } })
	to := parse(t, host+"/"+name(t)+"-site:sig")
	model := resolve(t, from).Subject().Descriptor()
	put(t, to, strings.Replace(pushed.Digest.String(), ":", "-", 1), noteOn(t, to, &model, nil))
	if _, err := c.Copy(t.Context(), aegis.CopyOptions{From: signed, To: to, NoReferrers: true}); err != nil {
		t.Fatal(err)
	}
	if resolve(t, to).Subject().Digest() != signed.Digest {
		t.Error("the tag has not moved")
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "not listed as attached: "+signed.Digest.String()) {
		t.Errorf("warnings: %q", warned)
	}

	// A registry with the API lists by itself, and not what it does not have.
	began := time.Now()
	api := servertest.SharedStack(t).Registry
	if _, err := c.Copy(t.Context(), aegis.CopyOptions{From: signed, To: parse(t, api+"/"+name(t)+":sig"), NoReferrers: true}); err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// TestCopyListsNoPartOfSomethingAttached for what is elsewhere: whoever can attach would
// choose to what.
func TestCopyListsNoPartOfSomethingAttached(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t)
	from, other := refTo(t, host, "v1"), refTo(t, host, "other")
	mustPush(t, newClient(t), from, modelDir(t, 64), nil)
	mustPush(t, newClient(t), other, modelDir(t, 65), nil)
	to := parse(t, host+"/"+name(t)+"-site:v1")
	copied(t, aegis.CopyOptions{From: other, To: parse(t, to.Name()+":other")})

	model, elsewhere := resolve(t, from).Subject().Descriptor(), resolve(t, other).Subject().Descriptor()
	near, far := noteOn(t, from, &model, map[string]string{"n": "near"}), noteOn(t, from, &elsewhere, map[string]string{"n": "far"})
	put(t, from, near.Digest.String(), near)
	put(t, from, far.Digest.String(), far)
	list := indexOf(t, &model, near.Descriptor, far.Descriptor)
	attach(t, from, model, list)
	copied(t, aegis.CopyOptions{From: from, To: to})
	listed := listedFor(t, to)
	if slices.Sort(listed); !slices.Equal(listed, slices.Sorted(slices.Values([]string{near.Digest.String(), list.Digest.String()}))) {
		t.Errorf("the model lists %q", listed)
	}
	if listed := listedFor(t, parse(t, to.Name()+":other")); len(listed) > 0 {
		t.Errorf("another lists %q", listed)
	}
}

// TestCopyLeavesOutForeignLayers that the source need not have, and does not. Where URLs
// or the media type are missing it has to.
func TestCopyLeavesOutForeignLayers(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t, "validation:\n  manifests:\n    urls:\n      allow:\n        - ^https://example\\.com/\n")
	site := layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}
	l, err := layout.Create(site.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	push := func(mediaType, content string) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
		if _, err := l.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }); err != nil {
			t.Fatal(err)
		}
		return desc
	}
	config := push(ocispec.MediaTypeImageConfig, "{}")
	const docker, oci = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	urls := []string{"https://example.com/layer"}
	for i, c := range []struct {
		mediaType string
		urls      []string
		have      bool
		left      bool
	}{
		{mediaType: docker, urls: urls, left: true},
		{mediaType: oci, urls: urls, left: true},
		{mediaType: oci, urls: urls, have: true},
		{mediaType: oci},
		{mediaType: ocispec.MediaTypeImageLayerGzip, urls: urls},
	} {
		content := "layer of " + strconv.Itoa(i)
		layer := ocispec.Descriptor{MediaType: c.mediaType, Digest: digest.FromString(content), Size: int64(len(content)), URLs: c.urls}
		if c.have {
			push(c.mediaType, content)
		}
		is := ocispec.MediaTypeImageManifest
		if c.mediaType == docker {
			is = "application/vnd.docker.distribution.manifest.v2+json"
		}
		image := encode(t, is, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: is, Config: config, Layers: []ocispec.Descriptor{layer}})
		p, err := l.PushManifest(t.Context(), image.MediaType, image.raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.TagManifest(t.Context(), p, "v1"); err != nil {
			t.Fatal(err)
		}
		for _, to := range []aegis.Reference{
			layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"},
			layout.Reference{Path: filepath.Join(t.TempDir(), "image.tar"), Tag: "v1"},
			parse(t, host+"/"+name(t)+"-"+strconv.Itoa(i)+":v1"),
		} {
			_, err := newClient(t).Copy(t.Context(), aegis.CopyOptions{From: site, To: to})
			if c.have || c.left {
				if err != nil {
					t.Errorf("%s into %s: %v", c.mediaType, to, err)
				}
				continue
			}
			if e := wantErr[*layout.Error](t, err); e.Kind != layout.NotFound {
				t.Errorf("%s into %s: %v", c.mediaType, to, err)
			}
		}
		_ = os.Remove(filepath.Join(site.Path, "blobs", "sha256", layer.Digest.Encoded()))
	}
	// Out of a registry, which has the first one.
	from := parse(t, host+"/"+name(t)+"-0:v1")
	copied(t, aegis.CopyOptions{From: from, To: layout.Reference{Path: filepath.Join(t.TempDir(), "layout"), Tag: "v1"}})
}
