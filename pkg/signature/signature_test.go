// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"encoding/asn1"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

func TestSubjectOfHashesTheBytes(t *testing.T) {
	t.Parallel()
	s, err := signature.SubjectOf(manifestType, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Digest().String(); got != "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" {
		t.Errorf("digest = %s", got)
	}
	if s.Size() != 2 || s.MediaType() != manifestType || s.IsZero() || s.IsIndex() {
		t.Errorf("subject = %+v", s)
	}
	if !(signature.Subject{}).IsZero() {
		t.Error("the zero Subject names something")
	}
}

func TestSubjectOfRefusesWhatTwoReadersTakeForTwoThings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ mediaType, body string }{
		"own media type differs":      {manifestType, `{"mediaType":"` + indexType + `"}`},
		"media type is null and more": {manifestType, `{"mediaType":7}`},
		"manifests and layers":        {indexType, `{"manifests":[],"layers":[]}`},
		"an index with layers":        {indexType, `{"layers":[]}`},
		"a manifest with manifests":   {manifestType, `{"manifests":[]}`},
		"duplicate key":               {manifestType, `{"config":{},"config":{}}`},
		"duplicate key, deep":         {manifestType, `{"config":{"digest":"a","digest":"b"}}`},
		"case variant":                {manifestType, `{"layers":[],"Layers":[]}`},
		"long s for s":                {manifestType, `{"layers":[],"layer\u017f":[]}`},
		"two values":                  {manifestType, `{}{}`},
		"an array":                    {manifestType, `[]`},
		"nothing":                     {manifestType, ``},
		"no manifest type":            {"application/json", `{}`},
		"deeper than anybody needs":   {manifestType, strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100)},
		"too large":                   {manifestType, `{"a":"` + strings.Repeat("x", signature.MaxManifestSize) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := signature.SubjectOf(c.mediaType, []byte(c.body))
			var bad *signature.ManifestError
			if !errors.As(err, &bad) || !s.IsZero() {
				t.Errorf("SubjectOf = %v, %v, want a ManifestError", s, err)
			}
		})
	}
}

func TestPublicKeysOfARotatedKeyAreOneSigner(t *testing.T) {
	t.Parallel()
	old, current, stranger := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.Ed25519), testkey.New(t, signature.ECDSAP256)
	keys, err := signature.ParsePublicKeys("release.pub", append(old.PEM(), current.PEM()...))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  *testkey.Key
		want error
	}{{old, nil}, {current, nil}, {stranger, signature.ErrInvalid}} {
		p, err := c.key.Sign(context.Background(), []signature.Message{{Format: signature.Sigstore, Bytes: []byte("m")}})
		if err != nil {
			t.Fatal(err)
		}
		v := keys.Check(context.Background(), []signature.Check{
			{Format: signature.Sigstore, Message: []byte("m"), Signature: p[0].Signature},
			{Format: signature.Sigstore, Message: []byte("other"), Signature: p[0].Signature},
		})
		if !errors.Is(v[0].Err, c.want) || !errors.Is(v[1].Err, signature.ErrInvalid) {
			t.Errorf("%s: %v, %v", c.key.ID().Type, v[0].Err, v[1].Err)
		}
	}
}

func TestParsePublicKeysRefuses(t *testing.T) {
	t.Parallel()
	good := testkey.New(t, signature.ECDSAP256).PEM()
	for name, data := range map[string][]byte{
		"empty":               nil,
		"text":                []byte("hello"),
		"cut short":           good[:len(good)-10],
		"text after a block":  append(bytes.Clone(good), "oops"...),
		"a private key":       pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}}),
		"garbage in a block":  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1, 2, 3}}),
		"second block is bad": append(bytes.Clone(good), pem.EncodeToMemory(&pem.Block{Type: "MESSAGE", Bytes: []byte{1}})...),
		"too many":            bytes.Repeat(good, 65),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bad *signature.KeyFileError
			if k, err := signature.ParsePublicKeys("f", data); !errors.As(err, &bad) || k != nil {
				t.Errorf("= %v, %v, want a KeyFileError", k, err)
			}
		})
	}
}

func TestWellFormed(t *testing.T) {
	t.Parallel()
	der := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one, big256 := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
	good := der(one, one)
	for name, c := range map[string]struct {
		sig  []byte
		typ  signature.KeyType
		want bool
	}{
		"canonical":               {good, signature.ECDSAP256, true},
		"high s":                  {der(one, new(big.Int).Sub(big256, one)), signature.ECDSAP256, true},
		"r is zero":               {der(big.NewInt(0), one), signature.ECDSAP256, false},
		"s is negative":           {der(one, big.NewInt(-1)), signature.ECDSAP256, false},
		"r larger than the curve": {der(big256, one), signature.ECDSAP256, false},
		"r fits a larger curve":   {der(big256, one), signature.ECDSAP384, true},
		"trailing byte":           {append(bytes.Clone(good), 0), signature.ECDSAP256, false},
		"long form of a length":   {[]byte{0x30, 0x81, 6, 2, 1, 1, 2, 1, 1}, signature.ECDSAP256, false},
		"zero before r":           {[]byte{0x30, 7, 2, 2, 0, 1, 2, 1, 1}, signature.ECDSAP256, false},
		"ed25519 bytes for ECDSA": {make([]byte, 64), signature.ECDSAP256, false},
		"ed25519":                 {make([]byte, 64), signature.Ed25519, true},
		"ed25519 short":           {make([]byte, 63), signature.Ed25519, false},
		"rsa":                     {make([]byte, 256), signature.RSA2048, true},
		"rsa of another size":     {make([]byte, 384), signature.RSA2048, false},
		"unknown: canonical":      {good, signature.KeyUnknown, true},
		"unknown: rsa":            {make([]byte, 512), signature.KeyUnknown, true},
		"unknown: nothing known":  {make([]byte, 100), signature.KeyUnknown, false},
		"a type that cannot sign": {good, "aes256-gcm96", false},
		"empty":                   {nil, signature.KeyUnknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := signature.WellFormed(c.sig, c.typ); got != c.want {
				t.Errorf("WellFormed = %v, want %v", got, c.want)
			}
		})
	}
}

// miscounting is a key that loses answers.
type miscounting struct{ signature.Key }

func (miscounting) Check(context.Context, []signature.Check) []signature.Verdict { return nil }

func TestAKeyThatLosesCountAcceptsNothing(t *testing.T) {
	t.Parallel()
	env := signature.NewEnvelope(signature.Sigstore, []byte("m"), []byte("s"), func() (signature.Statement, error) {
		t.Error("the payload was read")
		return signature.Statement{}, nil
	})
	for _, k := range []signature.Key{miscounting{}, signature.All("both", miscounting{}), signature.All("none")} {
		if o := signature.Open(context.Background(), k, []*signature.Envelope{env}); len(o) != 1 || o[0].Err == nil {
			t.Errorf("%T: %+v", k, o)
		}
	}
}

func TestAllNeedsEveryKey(t *testing.T) {
	t.Parallel()
	a, b := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	p, err := a.Sign(context.Background(), []signature.Message{{Format: signature.Sigstore, Bytes: []byte("m")}})
	if err != nil {
		t.Fatal(err)
	}
	checks := []signature.Check{{Format: signature.Sigstore, Message: []byte("m"), Signature: p[0].Signature}}
	for name, c := range map[string]struct {
		keys []signature.Key
		want error
	}{
		"the same twice":    {[]signature.Key{a.Public(t), a.Public(t)}, nil},
		"one of them not":   {[]signature.Key{a.Public(t), b.Public(t)}, signature.ErrInvalid},
		"the first one not": {[]signature.Key{b.Public(t), a.Public(t)}, signature.ErrInvalid},
	} {
		if v := signature.All(name, c.keys...).Check(context.Background(), checks); !errors.Is(v[0].Err, c.want) {
			t.Errorf("%s: %v, want %v", name, v[0].Err, c.want)
		}
	}
}
