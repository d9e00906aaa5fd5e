// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// failing is one way in which signing fails after the upload.
type failing struct {
	name string
	// arrange spoils something and says how to sign.
	arrange func(t *testing.T, p *servertest.Proxy) aegis.Signing
	check   func(t *testing.T, err error)
	// hidden: the signature is there and the registry does not list it.
	hidden bool
}

var failings = []failing{
	{
		name: "vault denies",
		arrange: func(t *testing.T, _ *servertest.Proxy) aegis.Signing {
			srv, key := servertest.SharedStack(t), name(t)
			srv.TransitKey(t, key, "ecdsa-p256")
			srv.Policy(t, key, hcl("transit/sign/"+key, "update"))
			token := srv.Token(t, map[string]any{"policies": []string{key}, "no_default_policy": true, "ttl": "10m"})
			signer, err := openVault(t, srv.VaultAddr, token).Signer(t.Context(), transit(key))
			if err != nil {
				t.Fatal(err)
			}
			srv.Policy(t, key, hcl("transit/sign/"+key, "deny"))
			return aegis.Signing{Signer: signer}
		},
		check: func(t *testing.T, err error) {
			if e := wantErr[*vault.Error](t, err); e.Kind != vault.Denied || e.Capability != "update" {
				t.Errorf("error %+v", e)
			}
		},
	},
	{
		name: "registry refuses the referrer",
		arrange: func(t *testing.T, p *servertest.Proxy) aegis.Signing {
			p.Fail(servertest.Fault{Method: http.MethodPut, Path: "/manifests/sha256:", Skip: 1, Status: http.StatusForbidden})
			return aegis.Signing{Signer: ecdsaKey(t)}
		},
		check: func(t *testing.T, err error) { wantRegistryErr(t, err, registry.Denied) },
	},
	{
		name: "registry fails at the referrer",
		arrange: func(t *testing.T, p *servertest.Proxy) aegis.Signing {
			p.Fail(servertest.Fault{Method: http.MethodPut, Path: "/manifests/sha256:", Skip: 1, Status: http.StatusServiceUnavailable})
			return aegis.Signing{Signer: ecdsaKey(t)}
		},
		check: func(t *testing.T, err error) { wantRegistryErr(t, err, registry.Unavailable) },
	},
	{
		name: "self-verification refuses",
		arrange: func(t *testing.T, _ *servertest.Proxy) aegis.Signing {
			return aegis.Signing{Signer: ecdsaKey(t), SelfVerify: ecdsaKey(t).Public(t)}
		},
		check: selfVerifyRefused,
	},
	{
		name: "self-verification with a key of another type refuses",
		arrange: func(t *testing.T, _ *servertest.Proxy) aegis.Signing {
			return aegis.Signing{Signer: ecdsaKey(t), SelfVerify: testkey.New(t, signature.Ed25519).Public(t)}
		},
		check: selfVerifyRefused,
	},
	{
		name: "the signer signs something else",
		arrange: func(t *testing.T, _ *servertest.Proxy) aegis.Signing {
			return aegis.Signing{Signer: garbling{ecdsaKey(t)}}
		},
		check: selfVerifyRefused,
	},
	{
		name: "the listing never shows it",
		arrange: func(t *testing.T, p *servertest.Proxy) aegis.Signing {
			p.Fail(servertest.Fault{Method: http.MethodGet, Path: "/referrers/", Replace: emptyIndex, Header: http.Header{"Link": nil}})
			p.Fail(servertest.Fault{Method: http.MethodGet, Path: "/manifests/sha256-", Status: http.StatusNotFound})
			return aegis.Signing{Signer: ecdsaKey(t)}
		},
		check:  func(t *testing.T, err error) { wantRegistryErr(t, err, registry.NotListed) },
		hidden: true,
	},
}

func selfVerifyRefused(t *testing.T, err error) {
	wantErr[*aegis.SelfVerifyError](t, err)
	if !errors.Is(err, signature.ErrInvalid) {
		t.Errorf("not a refusal by the key: %v", err)
	}
}

// emptyIndex empties a list of referrers, and leaves a 404 page alone.
func emptyIndex(body []byte) []byte {
	var index ocispec.Index
	if json.Unmarshal(body, &index) != nil || index.MediaType != ocispec.MediaTypeImageIndex {
		return body
	}
	index.Manifests = []ocispec.Descriptor{}
	out, _ := json.Marshal(index)
	return out
}

// garbling signs other bytes than those it was given, as a Vault that lies does.
type garbling struct{ *testkey.Key }

func (g garbling) Sign(ctx context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	other := make([]signature.Message, len(msgs))
	for i, m := range msgs {
		other[i] = signature.Message{Format: m.Format, Bytes: append([]byte("x"), m.Bytes...)}
	}
	return g.Key.Sign(ctx, other)
}

func TestFailedSigningMovesNoTag(t *testing.T) {
	t.Parallel()
	for _, f := range failings {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			onBothRegistries(t, func(t *testing.T, host string) { pushFails(t, host, f) })
		})
	}
}

func pushFails(t *testing.T, host string, f failing) {
	c, ref, good := newClient(t), refTo(t, host, "v1"), ecdsaKey(t)
	old := mustPush(t, c, ref, modelDir(t, 1), good)
	proxy := servertest.FaultProxy(t, host)
	signing := f.arrange(t, proxy)
	dir := modelDir(t, 2)

	_, err := c.Push(t.Context(), aegis.PushOptions{Ref: via(proxy, ref), Tags: []string{"new"}, Paths: []string{dir}, Signing: &signing})
	if err == nil {
		t.Fatal("the push succeeded")
	}
	f.check(t, err)

	repo := repository(t, ref)
	if now, ok, err := repo.ResolveTag(t.Context(), "v1"); err != nil || !ok || now != old.Digest {
		t.Errorf("the tag names %s (%v, %v), want the old %s", now, ok, err, old.Digest)
	}
	if now, ok, err := repo.ResolveTag(t.Context(), "new"); err != nil || ok {
		t.Errorf("the new tag exists: %s (%v)", now, err)
	}
	if _, err := c.Verify(t.Context(), ref, requirement(good.Public(t))); err != nil {
		t.Errorf("the old model no longer verifies: %v", err)
	}
	uploaded, err := c.Inspect(t.Context(), byDigest(ref, digestOf(t, dir)), nil)
	if err != nil {
		t.Fatalf("the manifest was not uploaded, so signing was not what failed: %v", err)
	}
	if attached := len(uploaded.Signatures) + len(uploaded.Referrers); attached > 0 && !f.hidden {
		t.Errorf("%d referrers are attached", attached)
	}
}

// digestOf is the digest that a push of dir has.
func digestOf(t testing.TB, dir string) digest.Digest {
	t.Helper()
	p, err := model.Pack(t.Context(), []string{dir}, model.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Subject().Digest()
}

// What is known to be wrong beforehand fails before the first request.
func TestPushRefusesBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	proxy := servertest.FaultProxy(t, servertest.SharedStack(t).Registry)
	ref, key := refTo(t, proxy.Addr, "v1"), ecdsaKey(t)
	dir := modelDir(t, 1)
	reserved := writeModel(t, map[string]string{"a.bin": "x", ".aegis/receipt.json": "{}"})
	tests := []struct {
		name  string
		opts  aegis.PushOptions
		check func(t *testing.T, err error)
	}{
		{"unknown format", aegis.PushOptions{Ref: ref, Paths: []string{dir}, Signing: &aegis.Signing{Signer: key, Formats: []signature.Format{"pgp"}}},
			func(t *testing.T, err error) { wantErr[*aegis.FormatError](t, err) }},
		{"no signer", aegis.PushOptions{Ref: ref, Paths: []string{dir}, Signing: &aegis.Signing{}},
			func(t *testing.T, err error) { wantErr[*aegis.OptionError](t, err) }},
		{"malformed tag", aegis.PushOptions{Ref: ref, Tags: []string{"a/b"}, Paths: []string{dir}, Signing: &aegis.Signing{Signer: key}},
			func(t *testing.T, err error) { wantErr[*registry.ReferenceError](t, err) }},
		{"a digest", aegis.PushOptions{Ref: byDigest(ref, digest.FromString("x")), Paths: []string{dir}},
			func(t *testing.T, err error) { wantErr[*registry.ReferenceError](t, err) }},
		{"reserved name", aegis.PushOptions{Ref: ref, Paths: []string{reserved}, Signing: &aegis.Signing{Signer: key}},
			func(t *testing.T, err error) {
				wantErr[*aegis.PackError](t, err)
				wantErr[*model.PathError](t, err)
			}},
		{"missing directory", aegis.PushOptions{Ref: ref, Paths: []string{filepath.Join(dir, "nothing")}},
			func(t *testing.T, err error) {
				wantErr[*aegis.PackError](t, err)
				if !errors.Is(err, os.ErrNotExist) {
					t.Errorf("error %v", err)
				}
			}},
		{"layer over the registry's limit", aegis.PushOptions{Ref: parse(t, "ghcr.io/a/b:v1"), Paths: []string{sparse(t, 10_000_000_001)}},
			func(t *testing.T, err error) {
				if e := wantErr[*aegis.LayerLimitError](t, err); e.Path != "large.bin" || e.Limit != 10_000_000_000 {
					t.Errorf("error %+v", e)
				}
			}},
		{"empty file where none is taken", aegis.PushOptions{Ref: parse(t, "europe-docker.pkg.dev/a/b:v1"), Paths: []string{sparse(t, 0)}},
			func(t *testing.T, err error) {
				if e := wantErr[*aegis.EmptyLayerError](t, err); e.Path != "large.bin" || e.Registry != "Google Artifact Registry" {
					t.Errorf("error %+v", e)
				}
			}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			proxy.Reset()
			_, err := newClient(t).Push(t.Context(), tc.opts)
			tc.check(t, err)
			if got := proxy.Requests(); len(got) > 0 {
				t.Errorf("%d requests were sent, first %s %s", len(got), got[0].Method, got[0].Path)
			}
		})
	}
	if key.Calls > 0 {
		t.Errorf("the key signed %d times", key.Calls)
	}
}

func TestSignAndTagRefuseBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	proxy := servertest.FaultProxy(t, servertest.SharedStack(t).Registry)
	c, ref, key := newClient(t), refTo(t, proxy.Addr, "v1"), ecdsaKey(t)
	for name, s := range map[string]aegis.Signing{"no signer": {}, "negative expiry": {Signer: key, Expiry: -time.Hour}} {
		_, err := c.Sign(t.Context(), ref, s)
		if wantErr[*aegis.OptionError](t, err); key.Calls > 0 {
			t.Errorf("%s: the key signed", name)
		}
	}
	_, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: key, Formats: []signature.Format{"pgp"}})
	wantErr[*aegis.FormatError](t, err)
	// The first tag is good: nothing may be written before the second is refused.
	_, err = c.Tag(t.Context(), ref, []string{"good", "not/good"})
	wantErr[*registry.ReferenceError](t, err)
	if got := proxy.Requests(); len(got) > 0 {
		t.Errorf("%d requests were sent, first %s %s", len(got), got[0].Method, got[0].Path)
	}
}

func sparse(t testing.TB, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large.bin"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "large.bin"), size); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIndexIsSignedAndVerifiedAndNotPulled(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		c, ref, key := newClient(t), refTo(t, host, "v1"), ecdsaKey(t)
		child := resolve(t, byDigest(ref, mustPush(t, c, ref, modelDir(t, 1), nil).Digest))
		raw, err := json.Marshal(ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{child.Subject().Descriptor()},
		})
		if err != nil {
			t.Fatal(err)
		}
		repo := repository(t, ref)
		pinned, err := repo.PushManifest(t.Context(), ocispec.MediaTypeImageIndex, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := repo.TagManifest(t.Context(), pinned, "all"); err != nil {
			t.Fatal(err)
		}
		all := refTo(t, host, "all")
		if _, err := c.Sign(t.Context(), all, aegis.Signing{Signer: key}); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Verify(t.Context(), all, requirement(key.Public(t))); err != nil || got.Digest != pinned.Subject().Digest() {
			t.Fatalf("verify: %+v, %v", got, err)
		}
		shown, err := c.Inspect(t.Context(), all, []signature.Key{key.Public(t)})
		if err != nil || shown.MediaType != ocispec.MediaTypeImageIndex || len(shown.Files) != 0 || shown.Signatures[0].Status != "accepted" {
			t.Errorf("inspect: %+v, %v", shown, err)
		}
		parent := t.TempDir()
		_, err = c.Pull(t.Context(), aegis.PullOptions{Ref: all, Dir: filepath.Join(parent, "model")}, requirement(key.Public(t)))
		if e := wantErr[*aegis.IndexError](t, err); e.Reference != pinned.Reference() {
			t.Errorf("error %+v", e)
		}
		nothingIn(t, parent)
	})
}

// A tag that moves while Tag runs is not followed, and neither is one that moves
// while Sign runs.
func TestTagWritesWhatItResolved(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		c, ref, key := newClient(t), refTo(t, host, "v1"), ecdsaKey(t)
		first := mustPush(t, c, ref, modelDir(t, 1), key)
		got, err := c.Tag(t.Context(), ref, []string{"prod", "canary"})
		if err != nil {
			t.Fatal(err)
		}
		second := mustPush(t, c, ref, modelDir(t, 2), key)
		if got.Digest != first.Digest || second.Digest == first.Digest {
			t.Fatalf("tagged %+v", got)
		}
		for _, tag := range got.Tags {
			if d := resolve(t, refTo(t, host, tag)).Subject().Digest(); d != first.Digest {
				t.Errorf("%s names %s, want %s", tag, d, first.Digest)
			}
		}
		if _, err := c.Verify(t.Context(), refTo(t, host, "prod"), requirement(key.Public(t))); err != nil {
			t.Errorf("a signature must serve every tag of the digest: %v", err)
		}
		if _, err := c.Tag(t.Context(), ref, []string{"sha256-" + first.Digest.Encoded()}); err == nil {
			t.Error("a tag that lists referrers was written")
		}
	})
}
