// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

var keyTypes = []signature.KeyType{
	signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521,
	signature.RSA2048, signature.RSA3072, signature.RSA4096, signature.Ed25519,
}

func TestRoundTripForEveryTransitKeyType(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	for _, typ := range keyTypes {
		t.Run(string(typ), func(t *testing.T) {
			t.Parallel()
			key := name(t)
			srv.TransitKey(t, key, string(typ))
			public, err := signature.ParsePublicKeys("key.pem", srv.PublicKeyPEM(t, key, 0))
			if err != nil {
				t.Fatal(err)
			}
			onBothRegistries(t, func(t *testing.T, host string) { roundTrip(t, host, key, public) })
		})
	}
}

// roundTrip pushes with a token that may only sign, and verifies with one that
// may only verify and with the public key alone.
func roundTrip(t *testing.T, host, key string, public signature.Key) {
	srv := servertest.SharedStack(t)
	c, ref, dir := newClient(t), refTo(t, host, "v1"), modelDir(t, 1)
	pushed, err := c.Push(t.Context(), aegis.PushOptions{
		Ref: ref, Tags: []string{"stable"}, Paths: []string{dir},
		Signing: &aegis.Signing{
			Signer: signOnly(t, srv.VaultAddr, key), SelfVerify: public, Expiry: time.Hour,
			Annotations: map[string]string{"stage": "prod"}, Builder: map[string]string{"run": "7"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	made := pushed.Signatures
	if len(made) != 1 || !made[0].SelfVerified || made[0].KeyVersion != 1 || made[0].Key != transit(key).String() || made[0].VaultRequestID == "" {
		t.Fatalf("signatures made: %+v", made)
	}
	if pushed.Digest != resolve(t, ref).Subject().Digest() || !slices.Equal(pushed.Tags, []string{"v1", "stable"}) {
		t.Fatalf("pushed %+v", pushed)
	}

	asked, _ := verifyOnly(t, key)
	for _, k := range []signature.Key{asked, public} {
		dst := filepath.Join(t.TempDir(), "model")
		pulled, err := c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: dst}, requirement(k))
		if err != nil {
			t.Fatalf("pull with %s: %v", k.ID().Name, err)
		}
		sameModel(t, dir, dst)
		if !pulled.Verified || pulled.Digest != pushed.Digest || pulled.Policy != "test" || pulled.Files != 3 || pulled.BytesReused != 0 {
			t.Errorf("pulled %+v", pulled)
		}
		if len(pulled.Signatures) != 1 || pulled.Signatures[0].Digest != made[0].Digest || pulled.Signatures[0].Key != k.ID().Name {
			t.Fatalf("signatures counted: %+v", pulled.Signatures)
		}
		claims := pulled.Signatures[0].Claims
		if claims.Repository != ref.Name() || claims.Tag != "v1" || claims.Annotations["stage"] != "prod" || claims.Builder["run"] != "7" ||
			!claims.Expires.Equal(claims.SignedAt.Add(time.Hour)) {
			t.Errorf("claims: %+v", claims)
		}
		checked, err := aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dst, Digest: pushed.Digest, Reference: ref.String()}, requirement(k))
		if err != nil {
			t.Fatalf("verify the directory with %s: %v", k.ID().Name, err)
		}
		if checked.Files != 3 || checked.Size != pulled.Size || checked.Reference != ref.String() {
			t.Errorf("checked %+v", checked)
		}
	}
}

func TestSignLaterAndVerify(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		c, ref, key := newClient(t), refTo(t, host, "v1"), ecdsaKey(t)
		pushed := mustPush(t, c, ref, modelDir(t, 1), nil)
		signed, err := c.Sign(t.Context(), byDigest(ref, pushed.Digest), aegis.Signing{Signer: key})
		if err != nil {
			t.Fatal(err)
		}
		if signed.Digest != pushed.Digest || signed.Reference != pushed.Reference || !signed.Signatures[0].SelfVerified {
			t.Errorf("signed %+v", signed)
		}
		got, err := c.Verify(t.Context(), ref, requirement(key.Public(t)))
		if err != nil {
			t.Fatal(err)
		}
		if !got.Verified || got.Digest != pushed.Digest || got.Reference != pushed.Reference || got.Signatures[0].Claims.Tag != "" {
			t.Errorf("verified %+v", got)
		}
	})
}

func TestSignOnlyTokenWithoutPublicKeyIsReportedUnchecked(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	var warned []string
	c := newClient(t, func(o *aegis.Options) { o.Warn = func(s string) { warned = append(warned, s) } })
	r := mustPush(t, c, refTo(t, srv.Registry, "v1"), modelDir(t, 1), signOnly(t, srv.VaultAddr, key))
	if r.Signatures[0].SelfVerified || len(warned) != 1 || !strings.Contains(warned[0], "--public-key") {
		t.Errorf("selfVerified %v, warnings %q", r.Signatures[0].SelfVerified, warned)
	}
}

// What a request of a push is for.
var pushSteps = []struct {
	class   string
	pattern *regexp.Regexp
}{
	{"upload", regexp.MustCompile(`^registry (POST|PATCH|PUT) .*/blobs/uploads/`)},
	{"look", regexp.MustCompile(`^registry HEAD .*/blobs/`)},
	{"sign", regexp.MustCompile(`^vault \S+ /v1/transit/sign/`)},
	{"list", regexp.MustCompile(`/referrers/sha256:|/manifests/sha256-`)},
	{"manifest", regexp.MustCompile(`^registry PUT .*/manifests/sha256:`)},
	{"tag", regexp.MustCompile(`^registry PUT .*/manifests/[a-z]`)},
}

// steps classifies the requests, with repeats of one class in a row left out.
func steps(lines []string) []string {
	var out []string
	for _, l := range lines {
		class := "other: " + l
		for _, s := range pushSteps {
			if s.pattern.MatchString(l) {
				class = s.class
				break
			}
		}
		if class != "look" && (len(out) == 0 || out[len(out)-1] != class) {
			out = append(out, class)
		}
	}
	return out
}

func TestPushMovesTheTagLast(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		srv := servertest.SharedStack(t)
		key := name(t)
		srv.TransitKey(t, key, "ecdsa-p256")
		var seq sequence
		proxy, vaultProxy := servertest.FaultProxy(t, host), servertest.FaultProxy(t, srv.VaultAddr)
		signer := signOnly(t, vaultProxy.URL, key)
		seq.watch("registry", proxy)
		seq.watch("vault", vaultProxy)

		r := mustPush(t, newClient(t), via(proxy, refTo(t, host, "v1")), modelDir(t, 1), signer)

		// Whether it can be listed is asked before it is made.
		want := []string{"upload", "manifest", "list", "sign", "upload", "manifest", "list", "tag"}
		if got := steps(seq.all()); !slices.Equal(got, want) {
			t.Fatalf("steps %q, want %q:\n%s", got, want, strings.Join(seq.all(), "\n"))
		}
		if a, b := seq.first(t, "PUT /v2/"+name(t)+"/manifests/"+r.Digest.String()), seq.first(t, "PUT /v2/"+name(t)+"/manifests/"+r.Signatures[0].Digest.String()); a > b {
			t.Error("the signature went before its subject")
		}
		if n := seq.count("/transit/sign/"); n != 1 {
			t.Errorf("%d requests to transit/sign", n)
		}
		if n := seq.count("PUT /v2/" + name(t) + "/manifests/v1"); n != 1 {
			t.Errorf("the tag was written %d times", n)
		}
		// What was asked before Vault signed is not asked again.
		if n := seq.count("/referrers/"); n > 2 {
			t.Errorf("%d requests for referrers", n)
		}
	})
}
