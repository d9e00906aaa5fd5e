// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// certified is a key with a self-signed certificate.
func certified(t testing.TB, typ signature.KeyType) (*testkey.Key, []*x509.Certificate) {
	t.Helper()
	k := testkey.New(t, typ)
	return k, []*x509.Certificate{k.Issue(t, testkey.Leaf(time.Now(), "models"), nil, nil)}
}

// Each format alone is enough to pull, and to judge the directory afterwards.
func TestRoundTripForEveryFormat(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		k, chain := certified(t, signature.ECDSAP256)
		stranger := ecdsaKey(t)
		for _, f := range signature.Formats() {
			t.Run(string(f), func(t *testing.T) {
				c, ref, dir := newClient(t), refTo(t, host, "v1"), modelDir(t, 3)
				r, err := c.Push(t.Context(), aegis.PushOptions{Ref: ref, Paths: []string{dir}, Signing: &aegis.Signing{
					Signer: k, Formats: []signature.Format{f}, Certificates: chain, Agent: "test/1", Expiry: time.Hour,
					Annotations: map[string]string{"stage": "prod"}, Builder: map[string]string{"run": "7"},
				}})
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Signatures) != 1 || r.Signatures[0].Format != f || !r.Signatures[0].SelfVerified {
					t.Fatalf("made %+v", r.Signatures)
				}
				dst := filepath.Join(t.TempDir(), "model")
				pulled, err := c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: dst}, requirement(stranger.Public(t), k.Public(t)))
				if err != nil {
					t.Fatal(err)
				}
				sameModel(t, dir, dst)
				s := pulled.Signatures
				if len(s) != 1 || s[0].Format != f || s[0].Digest != r.Signatures[0].Digest {
					t.Fatalf("counted %+v", s)
				}
				if cl := s[0].Claims; cl.Repository != ref.Name() || cl.Tag != "v1" || cl.Annotations["stage"] != "prod" || cl.Builder["run"] != "7" ||
					!cl.Expires.Equal(cl.SignedAt.Add(time.Hour)) {
					t.Errorf("claims %+v", cl)
				}
				checked, err := aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dst}, requirement(k.Public(t)))
				if err != nil || checked.Signatures[0].Format != f {
					t.Errorf("the directory: %+v, %v", checked.Signatures, err)
				}
				empty := t.TempDir()
				_, err = c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: filepath.Join(empty, "m")}, requirement(stranger.Public(t)))
				wantErr[*verify.RejectedError](t, err)
				nothingIn(t, empty)
			})
		}
	})
}

// One call of the signer for all formats, each of which inspect then finds.
func TestAllFormatsInOneCall(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		k, chain := certified(t, signature.ECDSAP256)
		c, ref := newClient(t), refTo(t, host, "v1")
		mustPush(t, c, ref, modelDir(t, 4), nil)
		proxy := servertest.FaultProxy(t, host)
		r, err := c.Sign(t.Context(), via(proxy, ref), aegis.Signing{Signer: k, Formats: signature.Formats(), Certificates: chain})
		if err != nil {
			t.Fatal(err)
		}
		writesEachListOnce(t, proxy)
		if k.Calls != 1 || len(r.Signatures) != len(signature.Formats()) {
			t.Errorf("%d calls, %d signatures", k.Calls, len(r.Signatures))
		}
		seen, err := c.Inspect(t.Context(), ref, []signature.Key{k.Public(t)})
		if err != nil {
			t.Fatal(err)
		}
		var found []signature.Format
		for _, s := range seen.Signatures {
			if s.Status != "accepted" {
				t.Errorf("%s: %s %v", s.Format, s.Status, s.Reasons)
			}
			found = append(found, s.Format)
		}
		for _, f := range signature.Formats() {
			if !slices.Contains(found, f) {
				t.Errorf("%s is not found among %v", f, found)
			}
		}
	})
}

// writesEachListOnce fails when a list under a tag was written more often: each write
// has to settle.
func writesEachListOnce(t *testing.T, proxy *servertest.Proxy) {
	t.Helper()
	writes := make(map[string]int)
	for _, r := range proxy.Requests() {
		if _, tag, ok := strings.Cut(r.Path, "/manifests/sha256-"); ok && r.Method == http.MethodPut {
			if writes[tag]++; writes[tag] > 1 {
				t.Errorf("sha256-%s was written %d times", tag, writes[tag])
			}
		}
	}
	if len(writes) == 0 {
		t.Error("no list was written")
	}
}

// What one format cannot carry leaves nothing signed in any.
func TestOneUnsignableFormatSignsNothing(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		k, chain := certified(t, signature.ECDSAP256)
		ed := testkey.New(t, signature.Ed25519)
		other, _ := certified(t, signature.ECDSAP256)
		c, ref := newClient(t), refTo(t, host, "v1")
		mustPush(t, c, ref, modelDir(t, 5), nil)
		both := []signature.Format{signature.Sigstore, signature.CosignTag, signature.Notary}
		for name, tc := range map[string]struct {
			s    aegis.Signing
			want func(error) bool
		}{
			"a reserved name":         {aegis.Signing{Signer: k, Formats: both, Certificates: chain, Annotations: map[string]string{"io.cncf.notary.x": "1"}}, is[*signature.ClaimError]},
			"a name of our claims":    {aegis.Signing{Signer: k, Formats: both, Certificates: chain, Annotations: map[string]string{signature.ClaimPrefix + "tag": "v9"}}, is[*signature.ClaimError]},
			"no certificate":          {aegis.Signing{Signer: k, Formats: both}, is[*aegis.NoCertificateError]},
			"another's certificate":   {aegis.Signing{Signer: other, Formats: both, Certificates: chain}, is[*notary.ChainError]},
			"a key that it cannot do": {aegis.Signing{Signer: ed, Formats: both, Certificates: chain}, is[*aegis.FormatError]},
			"a format twice":          {aegis.Signing{Signer: k, Formats: append(both, signature.Sigstore), Certificates: chain}, is[*aegis.FormatError]},
			"an unknown format":       {aegis.Signing{Signer: k, Formats: []signature.Format{signature.Sigstore, "pgp"}}, is[*aegis.FormatError]},
			"no timestamp to be had": {aegis.Signing{Signer: k, Formats: both, Certificates: chain, Timestamper: noStamp{}}, func(err error) bool {
				return errors.Is(err, errNoStamp)
			}},
		} {
			if r, err := c.Sign(t.Context(), ref, tc.s); !tc.want(err) || len(r.Signatures) != 0 {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		}
		seen, err := c.Inspect(t.Context(), ref, nil)
		if err != nil || len(seen.Signatures)+len(seen.Referrers) != 0 {
			t.Errorf("%v: attached %+v %+v", err, seen.Signatures, seen.Referrers)
		}
	})
}

func is[T error](err error) bool {
	var want T
	return errors.As(err, &want)
}

var errNoStamp = errors.New("no stamp")

type noStamp struct{}

func (noStamp) Timestamp(context.Context, []byte, crypto.Hash) ([]byte, error) {
	return nil, errNoStamp
}

// Eight signers at once, each with a key of its own, lose none of each other's.
func TestEightClassicSignersLoseNothing(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		ref := refTo(t, host, "v1")
		mustPush(t, newClient(t), ref, modelDir(t, 6), nil)
		var wg sync.WaitGroup
		keys := make([]*testkey.Key, 8)
		errs := make([]error, len(keys))
		for i := range keys {
			keys[i] = ecdsaKey(t)
			c := waitingClient(t, nil)
			wg.Add(1)
			go func() {
				defer wg.Done()
				_, errs[i] = c.Sign(context.Background(), ref, aegis.Signing{Signer: keys[i], Formats: []signature.Format{signature.CosignTag}})
			}()
		}
		wg.Wait()
		for i, k := range keys {
			if errs[i] != nil {
				t.Fatalf("signer %d: %v", i, errs[i])
			}
			if _, err := newClient(t).Verify(t.Context(), ref, requirement(k.Public(t))); err != nil {
				t.Errorf("the signature of signer %d is lost: %v", i, err)
			}
		}
	})
}

func TestNotarySignatureIsStamped(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		tsa := testtsa.Start(t)
		authority, err := timestamp.NewAuthority(tsa.URL, tsa.Roots(), nil)
		if err != nil {
			t.Fatal(err)
		}
		k, chain := certified(t, signature.ECDSAP384)
		c, ref := newClient(t), refTo(t, host, "v1")
		mustPush(t, c, ref, modelDir(t, 7), nil)
		r, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: k, Certificates: chain, Timestamper: authority,
			Formats: []signature.Format{signature.Notary, signature.NotaryCOSE}})
		if err != nil {
			t.Fatal(err)
		}
		for i, parse := range []func([]byte) (*signature.Envelope, error){notary.ParseJWS, notary.ParseCOSE} {
			env, err := parse(r.Signatures[i].Envelope)
			if err != nil {
				t.Fatal(err)
			}
			got := signature.Open(t.Context(), k.Public(t), []*signature.Envelope{env})[0]
			if got.Err != nil || len(got.Statement.Stamps) != 1 {
				t.Fatalf("%s: %+v", env.Format(), got)
			}
			at, err := timestamp.Verify(t.Context(), got.Statement.Stamps[0], tsa.Roots())
			if err != nil || time.Since(at.Until) > time.Minute {
				t.Errorf("%s: stamped %v, %v", env.Format(), at, err)
			}
		}
	})
}

func TestExpiredCertificateIsRejected(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		k, chain := certified(t, signature.ECDSAP256)
		c, ref := newClient(t), refTo(t, host, "v1")
		mustPush(t, c, ref, modelDir(t, 8), nil)
		if _, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: k, Certificates: chain, Formats: []signature.Format{signature.Notary}}); err != nil {
			t.Fatal(err)
		}
		later := newClient(t, func(o *aegis.Options) { o.Now = func() time.Time { return chain[0].NotAfter.Add(time.Hour) } })
		_, err := later.Verify(t.Context(), ref, requirement(k.Public(t)))
		wantErr[*verify.CertificateTimeError](t, wantErr[*verify.RejectedError](t, err))
	})
}

func localDir(t testing.TB) string {
	return writeModel(t, map[string]string{"a/x": "1", "a-b/x": "2", "config.json": "{}", ".gitignore": "*.tmp", "sub/.hidden": "h"})
}

func signLocal(t testing.TB, k signature.Signer, o aegis.LocalOptions, s aegis.Signing) []byte {
	t.Helper()
	s.Signer = k
	r, err := newClient(t).SignLocal(t.Context(), o, s)
	if err != nil {
		t.Fatal(err)
	}
	return r.Envelope
}

func TestLocalSignatureNamesExactlyTheFiles(t *testing.T) {
	t.Parallel()
	k := ecdsaKey(t)
	for name, tc := range map[string]struct {
		change func(dir string) error
		want   func(*model.DirError) []string
	}{
		"changed": {func(d string) error { return os.WriteFile(filepath.Join(d, "a/x"), []byte("3"), 0o644) }, func(e *model.DirError) []string { return e.Changed }},
		"missing": {func(d string) error { return os.Remove(filepath.Join(d, "a/x")) }, func(e *model.DirError) []string { return e.Missing }},
		"extra":   {func(d string) error { return os.WriteFile(filepath.Join(d, "a/y"), nil, 0o644) }, func(e *model.DirError) []string { return e.Extra }},
		"a link":  {func(d string) error { return os.Symlink("x", filepath.Join(d, "a/y")) }, func(e *model.DirError) []string { return e.Links }},
	} {
		dir := localDir(t)
		o := aegis.LocalOptions{Path: dir, Bundle: filepath.Join(dir, "model.sig")}
		bundle := signLocal(t, k, o, aegis.Signing{Expiry: time.Hour, Annotations: map[string]string{"stage": "prod"}})
		if err := os.WriteFile(o.Bundle, bundle, 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := aegis.VerifyLocal(t.Context(), o, bundle, verify.Requirement{Keys: []signature.Key{k.Public(t)}, Annotations: map[string]string{"stage": "prod"}})
		if err != nil || r.Files != 4 || r.Signatures[0].Format != signature.OMS {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if err := tc.change(dir); err != nil {
			t.Fatal(err)
		}
		r, err = aegis.VerifyLocal(t.Context(), o, bundle, verify.Requirement{Keys: []signature.Key{k.Public(t)}})
		if e := wantErr[*model.DirError](t, err); len(tc.want(e)) != 1 || r.Verified {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLocalSignatureIsRejected(t *testing.T) {
	t.Parallel()
	k, stranger := ecdsaKey(t), ecdsaKey(t)
	dir := localDir(t)
	o := aegis.LocalOptions{Path: dir, Bundle: "model.sig"}
	bundle := signLocal(t, k, o, aegis.Signing{Expiry: time.Hour})
	later := o
	later.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	keys := []signature.Key{k.Public(t)}
	verifyLocal := func(o aegis.LocalOptions, bundle []byte, keys []signature.Key, annotations map[string]string) error {
		r, err := aegis.VerifyLocal(t.Context(), o, bundle, verify.Requirement{Keys: keys, Annotations: annotations})
		if r.Verified {
			t.Error("it says verified beside an error")
		}
		return err
	}
	wantErr[*verify.RejectedError](t, verifyLocal(o, bundle, []signature.Key{stranger.Public(t)}, nil))
	wantErr[*verify.ExpiredError](t, verifyLocal(later, bundle, keys, nil))
	wantErr[*verify.AnnotationError](t, verifyLocal(o, bundle, keys, map[string]string{"stage": "prod"}))
	wantErr[*aegis.BundleError](t, verifyLocal(o, []byte("{}"), keys, nil))
	wantErr[*aegis.BundleError](t, verifyLocal(o, nil, keys, nil))
}

func TestLocalSigningRefuses(t *testing.T) {
	t.Parallel()
	dir := localDir(t)
	if err := os.Symlink("x", filepath.Join(dir, "a/y")); err != nil {
		t.Fatal(err)
	}
	k := ecdsaKey(t)
	_, err := newClient(t).SignLocal(t.Context(), aegis.LocalOptions{Path: dir, Bundle: "b"}, aegis.Signing{Signer: k})
	wantErr[*aegis.LinkError](t, err)
	_, err = newClient(t).SignLocal(t.Context(), aegis.LocalOptions{Path: dir, Bundle: "b"}, aegis.Signing{Signer: testkey.New(t, signature.RSA2048)})
	wantErr[*aegis.FormatError](t, err)
	if k.Calls != 0 {
		t.Errorf("the key was asked %d times", k.Calls)
	}
	if r, err := newClient(t).SignLocal(t.Context(), aegis.LocalOptions{Path: dir, Bundle: "b", Ignore: []string{"a/y"}}, aegis.Signing{Signer: k}); err != nil || r.Files != 4 {
		t.Errorf("with the link left out: %+v, %v", r, err)
	}
}

// A file may be another protocol's message: its bytes are never what is signed.
func TestLocalSigningNeverSignsTheBytesOfAFile(t *testing.T) {
	t.Parallel()
	k := &recorder{Key: ecdsaKey(t)}
	content := `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"type":"cosign container image signature"},"optional":null}`
	file := filepath.Join(writeModel(t, map[string]string{"payload": content}), "payload")
	bundle := signLocal(t, k, aegis.LocalOptions{Path: file, Bundle: "b"}, aegis.Signing{})
	for _, m := range k.signed {
		if string(m.Bytes) == content || m.Format != signature.OMS {
			t.Errorf("signed %q as %s", m.Bytes, m.Format)
		}
	}
	if r, err := aegis.VerifyLocal(t.Context(), aegis.LocalOptions{Path: file, Bundle: "b"}, bundle, verify.Requirement{Keys: []signature.Key{k.Public(t)}}); err != nil || r.Files != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

type recorder struct {
	*testkey.Key
	signed []signature.Message
}

func (r *recorder) Sign(ctx context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	r.signed = append(r.signed, msgs...)
	return r.Key.Sign(ctx, msgs)
}
