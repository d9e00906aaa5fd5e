// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package simplesigning_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

const dgst = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func subject(t testing.TB) signature.Subject {
	t.Helper()
	s, err := signature.SubjectOf("application/vnd.oci.image.manifest.v1+json", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signed signs payload as it stands.
func signed(t testing.TB, k *testkey.Key, payload string) map[string]string {
	t.Helper()
	p, err := k.Sign(context.Background(), []signature.Message{{Format: signature.CosignTag, Bytes: []byte(payload)}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{simplesigning.AnnotationSignature: base64.StdEncoding.EncodeToString(p[0].Signature)}
}

func open(t testing.TB, k signature.Key, env *signature.Envelope) signature.Opened {
	t.Helper()
	return signature.Open(context.Background(), k, []*signature.Envelope{env})[0]
}

func TestRoundTripForEveryKeyType(t *testing.T) {
	t.Parallel()
	at := time.Now().UTC().Truncate(time.Second)
	c := signature.Claims{SignedAt: at, Expires: at.Add(time.Hour), Repository: "r.example.com/m", Tag: "v1",
		Builder: map[string]string{"ref": "main"}, Annotations: map[string]string{"env": "prod"}}
	for _, typ := range []signature.KeyType{signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521, signature.RSA2048, signature.Ed25519} {
		k := testkey.New(t, typ)
		d, err := simplesigning.Prepare(subject(t), c)
		if err != nil {
			t.Fatal(err)
		}
		made, err := signature.Sign(context.Background(), k, d)
		if err != nil {
			t.Fatal(err)
		}
		env, err := simplesigning.Parse(made[0].Envelope, made[0].LayerAnnotations)
		if err != nil {
			t.Fatal(err)
		}
		got := open(t, k.Public(t), env)
		g := got.Statement.Claims
		if got.Err != nil || got.Statement.Digest != dgst || !g.SignedAt.Equal(at) || !g.Expires.Equal(c.Expires) ||
			g.Repository != c.Repository || g.Tag != "v1" || g.Builder["ref"] != "main" || len(g.Annotations) != 1 || g.Annotations["env"] != "prod" {
			t.Errorf("%s: %+v", typ, got)
		}
	}
}

// What cosign writes, verbatim, and what others put into optional.
func TestCosignsPayloads(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	critical := `{"critical":{"identity":{"docker-reference":"r.example.com/m"},"image":{"docker-manifest-digest":"` + dgst + `"},"type":"cosign container image signature"},"optional":`
	for _, optional := range []string{`null}`, `{}}`, `{"creator":"x","timestamp":1700000000,"nested":{"a":[1]}}}`} {
		payload := critical + optional
		env, err := simplesigning.Parse([]byte(payload), signed(t, k, payload))
		if err != nil {
			t.Fatal(err)
		}
		if got := open(t, k.Public(t), env); got.Err != nil || got.Statement.Digest != dgst {
			t.Errorf("%s: %+v", optional, got)
		}
	}
}

// Every one of these is properly signed: what is refused is what it says.
func TestOpenRefusesPayloads(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	good := `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"` + dgst + `"},"type":"cosign container image signature"},"optional":{}}`
	for name, payload := range map[string]string{
		"another type":       strings.Replace(good, "cosign container image", "atomic container", 1),
		"no digest":          strings.Replace(good, dgst, "", 1),
		"another algorithm":  strings.Replace(good, dgst, "sha512:"+strings.Repeat("0", 128), 1),
		"duplicate digest":   strings.Replace(good, `"image":{`, `"image":{"docker-manifest-digest":"sha256:`+strings.Repeat("0", 64)+`",`, 1),
		"unknown field":      strings.Replace(good, `"optional"`, `"x":1,"optional"`, 1),
		"expiry is no time":  strings.Replace(good, `"optional":{}`, `"optional":{"dev.aegis-oci.claim.expires":"soon"}`, 1),
		"expiry is no text":  strings.Replace(good, `"optional":{}`, `"optional":{"dev.aegis-oci.claim.expires":1}`, 1),
		"expiry is null":     strings.Replace(good, `"optional":{}`, `"optional":{"dev.aegis-oci.claim.expires":null}`, 1),
		"unknown claim":      strings.Replace(good, `"optional":{}`, `"optional":{"dev.aegis-oci.claim.x":"y"}`, 1),
		"two documents":      good + good,
		"an in-toto payload": `{"_type":"https://in-toto.io/Statement/v1"}`,
	} {
		env, err := simplesigning.Parse([]byte(payload), signed(t, k, payload))
		if err != nil {
			t.Fatal(err)
		}
		var bad *signature.StatementError
		if got := open(t, k.Public(t), env); !errors.As(got.Err, &bad) || got.Statement.Digest != "" {
			t.Errorf("%s: %+v, want a StatementError", name, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		payload string
		sig     string
	}{
		"no payload":         {"", "AAAA"},
		"a large payload":    {strings.Repeat("x", 1<<20), "AAAA"},
		"no signature":       {"{}", ""},
		"not base64":         {"{}", "!!!"},
		"a line in base64":   {"{}", "AA\nAA"},
		"base64 of URLs":     {"{}", "-_-_"},
		"loose padding bits": {"{}", "AAB="},
	} {
		var bad *simplesigning.ParseError
		if env, err := simplesigning.Parse([]byte(c.payload), map[string]string{simplesigning.AnnotationSignature: c.sig}); !errors.As(err, &bad) || env != nil {
			t.Errorf("%s: %v, %v", name, env, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := testkey.New(f, signature.Ed25519)
	for _, seed := range []string{`{}`, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"` + dgst + `"},"type":"cosign container image signature"},"optional":{"a":"b"}}`} {
		f.Add([]byte(seed))
	}
	for _, v := range vectors.Load(f, vectors.Dir(f)) {
		for _, envelope := range v.Envelopes(f) {
			f.Add(envelope)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		env, err := simplesigning.Parse(payload, signed(t, k, string(payload)))
		if err != nil {
			return
		}
		got := open(t, k.Public(t), env)
		if got.Err == nil && got.Statement.Digest.Validate() != nil {
			t.Errorf("a statement without a digest: %+v", got)
		}
	})
}
