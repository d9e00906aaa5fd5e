// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
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
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// scene is a model in a registry behind a proxy, and what pulls it.
type scene struct {
	c      *aegis.Client
	ref    registry.Reference // through the proxy
	direct registry.Reference
	dir    string
	key    *testkey.Key
	proxy  *servertest.Proxy
	pushed aegis.PushResult

	pull aegis.PullOptions
	req  verify.Requirement
}

// refusal is one way in which what is pulled is not what was signed.
type refusal struct {
	name string
	// unsigned leaves the signature to arrange.
	unsigned bool
	arrange  func(t *testing.T, s *scene)
	check    func(t *testing.T, s *scene, err error)
	// fetches: layers are asked for before the refusal.
	fetches bool
}

func wantRejected(t *testing.T, s *scene, err error, reason any) {
	t.Helper()
	e := wantErr[*verify.RejectedError](t, err)
	if len(e.Reasons) != 1 || !errors.As(e.Reasons[0], reason) {
		t.Errorf("reasons %v, want one %T", e.Reasons, reason)
	}
	if r := wantErr[*aegis.SubjectRefusal](t, err); r.Reference != s.pushed.Reference && r.Reference != via(s.proxy, s.direct).Name()+"@"+s.pushed.Digest.String() {
		t.Errorf("the refusal is about %s", r.Reference)
	}
}

var refusals = []refusal{
	{name: "unsigned", unsigned: true, arrange: func(*testing.T, *scene) {},
		check: func(t *testing.T, _ *scene, err error) { wantErr[*verify.NoSignatureError](t, err) }},
	{name: "signed by another key", arrange: func(t *testing.T, s *scene) { s.req = requirement(ecdsaKey(t).Public(t)) },
		check: func(t *testing.T, _ *scene, err error) {
			if wantErr[*verify.RejectedError](t, err); !errors.Is(err, signature.ErrInvalid) {
				t.Errorf("error %v", err)
			}
		}},
	{name: "expired", unsigned: true,
		arrange: func(t *testing.T, s *scene) {
			past := newClient(t, func(o *aegis.Options) { o.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) } })
			if _, err := past.Sign(t.Context(), s.direct, aegis.Signing{Signer: s.key, Expiry: time.Hour}); err != nil {
				t.Fatal(err)
			}
		},
		check: func(t *testing.T, s *scene, err error) { wantRejected(t, s, err, new(*verify.ExpiredError)) }},
	{name: "manifest tampered under its digest",
		arrange: func(t *testing.T, s *scene) {
			s.pull.Ref = byDigest(s.ref, s.pushed.Digest)
			s.proxy.Fail(tamperedManifest(s.pushed.Digest.String()))
		},
		check: func(t *testing.T, _ *scene, err error) { wantRegistryErr(t, err, registry.Corrupt) }},
	{name: "manifest tampered under its tag",
		arrange: func(t *testing.T, s *scene) { s.proxy.Fail(tamperedManifest("v1")) },
		// It is another manifest, and nobody signed that.
		check: func(t *testing.T, _ *scene, err error) { wantErr[*verify.NoSignatureError](t, err) }},
	{name: "layer tampered at the same size, on the retry too", fetches: true,
		arrange: func(t *testing.T, s *scene) { s.proxy.Fail(servertest.Fault{Path: s.layer(t), Replace: flipped}) },
		check: func(t *testing.T, s *scene, err error) {
			e := wantErr[*model.ContentError](t, err)
			if want := blobOf(t, s.dir, "weights/part-1.bin"); e.Want != want || e.Got == "" || e.Got == want {
				t.Errorf("error %+v", e)
			}
			if n := s.proxy.Count(s.layer(t)); n != 2 {
				t.Errorf("the layer was asked for %d times, want twice", n)
			}
		}},
	{name: "layer truncated", fetches: true,
		arrange: func(t *testing.T, s *scene) {
			s.proxy.Fail(servertest.Fault{Path: s.layer(t), Replace: func(b []byte) []byte { return b[:len(b)-1] }})
		},
		check: func(t *testing.T, _ *scene, err error) {
			if e := wantErr[*model.ContentError](t, err); !strings.Contains(e.Reason, fmt.Sprint(64<<10-1)) {
				t.Errorf("error %+v", e)
			}
		}},
	{name: "layer truncated without a length", fetches: true,
		arrange: func(t *testing.T, s *scene) { s.shortened(t, http.Header{"Content-Range": {"bytes */1000"}}) },
		check: func(t *testing.T, _ *scene, err error) {
			if e := wantErr[*model.ContentError](t, err); !strings.Contains(e.Reason, "has 1000 bytes, its descriptor says 65536") {
				t.Errorf("error %+v", e)
			}
		}},
	{name: "layer truncated without a length or ranges", fetches: true,
		arrange: func(t *testing.T, s *scene) { s.shortened(t, nil) },
		check: func(t *testing.T, _ *scene, err error) {
			if e := wantErr[*model.ShortError](t, err); !strings.Contains(e.Error(), "1000 of 65536") {
				t.Errorf("error %+v", e)
			}
		}},
	{name: "layer longer than signed", fetches: true,
		arrange: func(t *testing.T, s *scene) {
			s.proxy.Fail(servertest.Fault{Path: s.layer(t), Replace: func(b []byte) []byte { return append(b, 'x') }})
		},
		check: func(t *testing.T, _ *scene, err error) { wantErr[*model.ContentError](t, err) }},
	{name: "listed signature is about another subject", unsigned: true,
		arrange: func(t *testing.T, s *scene) { s.listAs(t, s.signOther(t)) },
		check:   func(t *testing.T, s *scene, err error) { wantRejected(t, s, err, new(*verify.SubjectError)) }},
	{name: "signature moved from another digest", unsigned: true,
		arrange: func(t *testing.T, s *scene) {
			other := s.signOther(t)
			moved := map[string]string{sigstore.AnnotationContent: "dsse-envelope", sigstore.AnnotationPredicateType: sigstore.PredicateType}
			pushReferrer(t, repository(t, s.direct), resolve(t, s.direct).Subject(), sigstore.MediaType, other.Envelope, moved)
		},
		check: func(t *testing.T, s *scene, err error) { wantRejected(t, s, err, new(*verify.SubjectError)) }},
	{name: "signature tampered", unsigned: true,
		arrange: func(t *testing.T, s *scene) {
			made, err := s.c.Sign(t.Context(), s.direct, aegis.Signing{Signer: s.key})
			if err != nil {
				t.Fatal(err)
			}
			s.proxy.Fail(servertest.Fault{Path: digest.FromBytes(made.Signatures[0].Envelope).String(), Replace: flipped})
		},
		// The registry does not give what it lists: that may pass, and accepts nothing.
		check: func(t *testing.T, _ *scene, err error) {
			wantErr[*verify.UndecidedError](t, err)
			wantRegistryErr(t, err, registry.Corrupt)
		}},
}

// shortened has the layer end after 1000 bytes, without a length, and ranges refused with
// a header.
func (s *scene) shortened(t *testing.T, refusal http.Header) {
	t.Helper()
	s.proxy.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, s.layer(t)) {
			return false
		}
		if r.Header.Get("Range") != "" {
			maps.Copy(w.Header(), refusal)
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}
		_ = http.NewResponseController(w).Flush() // chunked from here on
		_, _ = w.Write(weights(1, 64<<10)[:1000])
		return true
	})
}

func (s *scene) layer(t testing.TB) string {
	return "/blobs/" + blobOf(t, s.dir, "weights/part-1.bin").String()
}

// signOther signs another model in the same repository with the same key.
func (s *scene) signOther(t testing.TB) aegis.SignatureMade {
	other := s.direct
	other.Tag = "other"
	return mustPush(t, s.c, other, modelDir(t, 99), s.key).Signatures[0]
}

// listAs makes the registry list sig as a referrer of the scene's model, by the
// API and by the tag.
func (s *scene) listAs(t testing.TB, sig aegis.SignatureMade) {
	t.Helper()
	raw, err := repository(t, byDigest(s.direct, sig.Digest)).Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entry := raw.Subject().Descriptor()
	entry.ArtifactType = sigstore.MediaType
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/referrers/" + s.pushed.Digest.String(), "/manifests/sha256-" + s.pushed.Digest.Encoded()} {
		s.proxy.Fail(servertest.Fault{Path: path, Status: http.StatusOK, Body: string(index), Header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}}})
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

// tamperedManifest lets a manifest name another weight, and removes the header
// that would tell.
func tamperedManifest(name string) servertest.Fault {
	return servertest.Fault{Path: "/manifests/" + name, Header: http.Header{"Docker-Content-Digest": nil}, Replace: func(b []byte) []byte {
		return bytes.Replace(b, []byte("part-1.bin"), []byte("part-2.bin"), -1)
	}}
}

func TestPullRefuses(t *testing.T) {
	t.Parallel()
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			onBothRegistries(t, func(t *testing.T, host string) {
				parent, s := t.TempDir(), newScene(t, host, !r.unsigned)
				s.pull = aegis.PullOptions{Ref: s.ref, Dir: filepath.Join(parent, "new", "model")}
				s.req = requirement(s.key.Public(t))
				r.arrange(t, s)
				got, err := s.c.Pull(t.Context(), s.pull, s.req)
				if err == nil {
					t.Fatalf("pulled: %+v", got)
				}
				r.check(t, s, err)
				nothingIn(t, parent)
				if n := s.proxy.Count(s.layer(t)); !r.fetches && n > 0 {
					t.Errorf("the layer was asked for %d times before the refusal", n)
				}
			})
		})
	}
}

func newScene(t *testing.T, host string, signed bool) *scene {
	t.Helper()
	s := &scene{c: newClient(t), direct: refTo(t, host, "v1"), dir: modelDir(t, 1), key: ecdsaKey(t), proxy: servertest.FaultProxy(t, host)}
	s.ref = via(s.proxy, s.direct)
	if signed {
		s.pushed = mustPush(t, s.c, s.direct, s.dir, s.key)
	} else {
		s.pushed = mustPush(t, s.c, s.direct, s.dir, nil)
	}
	return s
}

// A layer that one transfer damaged is fetched again, and the second time counts.
func TestPullFetchesADamagedLayerAgain(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		s := newScene(t, host, true)
		s.proxy.Fail(servertest.Fault{Path: s.layer(t), Replace: flipped, Times: 1})
		dst := filepath.Join(t.TempDir(), "model")
		got, err := s.c.Pull(t.Context(), aegis.PullOptions{Ref: s.ref, Dir: dst}, requirement(s.key.Public(t)))
		if err != nil || !got.Verified {
			t.Fatalf("%+v, %v", got, err)
		}
		sameModel(t, s.dir, dst)
		if n := s.proxy.Count(s.layer(t)); n != 2 {
			t.Errorf("the layer was asked for %d times, want twice", n)
		}
	})
}
