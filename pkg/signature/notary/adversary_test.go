// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// resigned is a good JWS with another signature: sign gets the signing input.
func resigned(t *testing.T, k *testkey.Key, chain []*x509.Certificate, sign func(input []byte) []byte) []byte {
	t.Helper()
	made := signJWS(t, k, chain)
	var e map[string]json.RawMessage
	if err := json.Unmarshal(made, &e); err != nil {
		t.Fatal(err)
	}
	part := func(name string) string {
		var s string
		if err := json.Unmarshal(e[name], &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	raw := sign([]byte(part("protected") + "." + part("payload")))
	e["signature"], _ = json.Marshal(base64.RawURLEncoding.EncodeToString(raw))
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func signJWS(t *testing.T, k *testkey.Key, chain []*x509.Certificate) []byte {
	return sign(t, signature.Notary, k, claims(), notary.Options{Chain: chain}).Envelope
}

// Signatures by the right key in a way that is not the format's.
func TestSignaturesOfAnotherKindAreRefused(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.RSA2048)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	sum := func(h crypto.Hash, b []byte) []byte {
		x := h.New()
		x.Write(b)
		return x.Sum(nil)
	}
	rsaSign := func(h crypto.Hash, o crypto.SignerOpts) func([]byte) []byte {
		return func(b []byte) []byte {
			sig, err := k.Private().Sign(rand.Reader, sum(h, b), o)
			if err != nil {
				t.Fatal(err)
			}
			return sig
		}
	}
	pss := func(h crypto.Hash, salt int) func([]byte) []byte {
		return rsaSign(h, &rsa.PSSOptions{SaltLength: salt, Hash: h})
	}
	for name, sign := range map[string]func([]byte) []byte{
		"salt as long as it goes": pss(crypto.SHA256, rsa.PSSSaltLengthAuto),
		"a salt of one byte":      pss(crypto.SHA256, 1),
		"a salt of 20 bytes":      pss(crypto.SHA256, 20),
		"SHA-384":                 pss(crypto.SHA384, rsa.PSSSaltLengthEqualsHash),
		"PKCS #1 v1.5":            rsaSign(crypto.SHA256, crypto.SHA256),
		"nonsense":                func([]byte) []byte { return make([]byte, 256) },
		"too short":               func([]byte) []byte { return make([]byte, 255) },
	} {
		env, err := notary.ParseJWS(resigned(t, k, chain, sign))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := open(t, k.Public(t), env); !errors.Is(got.Err, signature.ErrInvalid) || got.Statement.Digest != "" {
			t.Errorf("%s: %+v, want ErrInvalid", name, got)
		}
	}
	good := resigned(t, k, chain, pss(crypto.SHA256, rsa.PSSSaltLengthEqualsHash))
	env, err := notary.ParseJWS(good)
	if err != nil {
		t.Fatal(err)
	}
	if got := open(t, k.Public(t), env); got.Err != nil {
		t.Errorf("the good one: %v", got.Err)
	}
}

func TestSignaturesOfAnotherLengthAreRefused(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := func(b []byte) []byte {
		p, err := k.Sign(t.Context(), []signature.Message{{Format: signature.Notary, Bytes: b}})
		if err != nil {
			t.Fatal(err)
		}
		return p[0].Signature
	}
	for name, sign := range map[string]func([]byte) []byte{
		"DER":             der,
		"63 bytes":        func(b []byte) []byte { return rawOf(t, der(b))[:63] },
		"65 bytes":        func(b []byte) []byte { return append(rawOf(t, der(b)), 0) },
		"r||s of P-384":   func(b []byte) []byte { return append(make([]byte, 32), rawOf(t, der(b))...) },
		"r and s swapped": func(b []byte) []byte { raw := rawOf(t, der(b)); return append(raw[32:64:64], raw[:32]...) },
		"r is zero":       func(b []byte) []byte { return append(make([]byte, 32), rawOf(t, der(b))[32:]...) },
		"ed25519":         func(b []byte) []byte { return ed25519.Sign(ed, b) },
	} {
		env, err := notary.ParseJWS(resigned(t, k, chain, sign))
		var bad *notary.ParseError
		if err != nil {
			if !errors.As(err, &bad) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := open(t, k.Public(t), env); !errors.Is(got.Err, signature.ErrInvalid) || got.Statement.Digest != "" {
			t.Errorf("%s: %+v, want ErrInvalid", name, got)
		}
	}
}

// Base64 has bits to spare: the same signature must not come in two texts.
func TestEnvelopesAreNotMalleable(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	good := string(signJWS(t, k, chain))
	for name, change := range map[string]func(string) string{
		"padding":        func(s string) string { return strings.Replace(s, `","header"`, `=","header"`, 1) },
		"a field more":   func(s string) string { return strings.Replace(s, `{"payload"`, `{"signatures":[],"payload"`, 1) },
		"two signatures": func(s string) string { return strings.Replace(s, `{"payload"`, `{"signature":"AA","payload"`, 1) },
		"no certificates": func(s string) string {
			i := strings.Index(s, `"x5c":[`)
			j := strings.Index(s[i:], "]")
			return s[:i] + `"x5c":[` + s[i+j:]
		},
		"text behind": func(s string) string { return s + "{}" },
		"a large one": func(s string) string { return s + strings.Repeat(" ", signature.MaxEnvelopeSize) },
	} {
		var bad *notary.ParseError
		changed := change(good)
		if changed == good {
			t.Fatalf("%s: nothing changed", name)
		}
		if env, err := notary.ParseJWS([]byte(changed)); !errors.As(err, &bad) || env != nil {
			t.Errorf("%s: %v, %v, want a ParseError", name, env, err)
		}
	}
}
