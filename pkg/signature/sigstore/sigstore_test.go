// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func subject(t testing.TB) signature.Subject {
	t.Helper()
	s, err := signature.SubjectOf(manifestType, []byte(`{"schemaVersion":2,"mediaType":"`+manifestType+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, k *testkey.Key, c signature.Claims) signature.Attachment {
	t.Helper()
	d, err := sigstore.Prepare(subject(t), c)
	if err != nil {
		t.Fatal(err)
	}
	as, err := signature.Sign(context.Background(), k, d)
	if err != nil {
		t.Fatal(err)
	}
	return as[0]
}

func open(t testing.TB, k signature.Key, bundle []byte) signature.Opened {
	t.Helper()
	env, err := sigstore.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return signature.Open(context.Background(), k, []*signature.Envelope{env})[0]
}

func TestEveryKeyTypeRoundTrips(t *testing.T) {
	t.Parallel()
	signed := time.Date(2026, 11, 24, 5, 0, 0, 0, time.UTC)
	claims := signature.Claims{
		SignedAt:    signed,
		Expires:     signed.Add(time.Hour),
		Repository:  "registry.example.com/models/vad",
		Tag:         "v1",
		Builder:     map[string]string{"repository": "acme/models"},
		Annotations: map[string]string{"env": "prod"},
	}
	for _, typ := range []signature.KeyType{
		signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521,
		signature.RSA2048, signature.RSA3072, signature.RSA4096, signature.Ed25519,
	} {
		t.Run(string(typ), func(t *testing.T) {
			t.Parallel()
			k := testkey.New(t, typ)
			a := sign(t, k, claims)
			o := open(t, k.Public(t), a.Envelope)
			if o.Err != nil {
				t.Fatal(o.Err)
			}
			if o.Statement.Digest != subject(t).Digest() {
				t.Errorf("digest = %s", o.Statement.Digest)
			}
			if got, want := fmt.Sprint(o.Statement.Claims), fmt.Sprint(claims); got != want {
				t.Errorf("claims = %s, want %s", got, want)
			}
			other := testkey.New(t, typ)
			if o := open(t, other.Public(t), a.Envelope); !errors.Is(o.Err, signature.ErrInvalid) {
				t.Errorf("another key: %v, want ErrInvalid", o.Err)
			}
		})
	}
}

// A bundle holds the authority's answer, and who reads it gets the token out.
func TestBundleCarriesTimestamps(t *testing.T) {
	t.Parallel()
	k, tsa := testkey.New(t, signature.ECDSAP256), testtsa.Start(t)
	d, err := sigstore.Prepare(subject(t), signature.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := signature.Sign(t.Context(), k, d.WithTimestamper(tsa))
	if err != nil {
		t.Fatal(err)
	}
	o := open(t, k.Public(t), made[0].Envelope)
	if o.Err != nil || len(o.Statement.Stamps) != 1 {
		t.Fatalf("%+v", o)
	}
	if at, err := timestamp.Verify(t.Context(), o.Statement.Stamps[0], tsa.Roots()); err != nil || time.Since(at.Until) > time.Minute {
		t.Errorf("%+v, %v", at, err)
	}
	stamped := func(n int, answer string) []byte {
		return edit(t, made[0].Envelope, func(m map[string]any) {
			var all []any
			for range n {
				all = append(all, map[string]any{"signedTimestamp": answer})
			}
			m["verificationMaterial"].(map[string]any)["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": all}
		})
	}
	// What is no answer stands in nobody's way until it is judged.
	o = open(t, k.Public(t), stamped(signature.MaxStamps, "MAA="))
	if o.Err != nil || len(o.Statement.Stamps) != signature.MaxStamps {
		t.Fatalf("%+v", o)
	}
	if _, err := timestamp.Verify(t.Context(), o.Statement.Stamps[0], tsa.Roots()); err == nil {
		t.Error("an empty sequence is a stamp")
	}
	var parse *sigstore.ParseError
	if _, err := sigstore.Parse(stamped(signature.MaxStamps+1, "MAA=")); !errors.As(err, &parse) {
		t.Errorf("one stamp too many: %v", err)
	}
}

func TestBundleBytesDependOnContentAlone(t *testing.T) {
	t.Parallel()
	// Ed25519 is deterministic, so that two signatures must be equal to the byte:
	// protojson's random spaces must not get through.
	k := testkey.New(t, signature.Ed25519)
	first := sign(t, k, signature.Claims{Repository: "r"})
	for range 20 {
		if again := sign(t, k, signature.Claims{Repository: "r"}); !bytes.Equal(first.Envelope, again.Envelope) {
			t.Fatalf("%s\n%s", first.Envelope, again.Envelope)
		}
	}
}

// edit returns the bundle with one thing changed.
func edit(t *testing.T, bundle []byte, change func(m map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(bundle, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func dsseOf(m map[string]any) map[string]any { return m["dsseEnvelope"].(map[string]any) }

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := sign(t, testkey.New(t, signature.ECDSAP256), signature.Claims{}).Envelope
	for name, bundle := range map[string][]byte{
		"not JSON":            []byte("-----BEGIN"),
		"empty":               nil,
		"data after the JSON": append(bytes.Clone(good), '1'),
		"unknown field":       edit(t, good, func(m map[string]any) { m["extra"] = 1 }),
		"unknown field deep":  edit(t, good, func(m map[string]any) { dsseOf(m)["extra"] = 1 }),
		"media type":          edit(t, good, func(m map[string]any) { m["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1" }),
		"no media type":       edit(t, good, func(m map[string]any) { delete(m, "mediaType") }),
		"no material":         edit(t, good, func(m map[string]any) { delete(m, "verificationMaterial") }),
		"a certificate": edit(t, good, func(m map[string]any) {
			m["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "AAAA"}}
		}),
		"key and certificate": edit(t, good, func(m map[string]any) {
			m["verificationMaterial"].(map[string]any)["certificate"] = map[string]any{"rawBytes": "AAAA"}
		}),
		"no envelope":  edit(t, good, func(m map[string]any) { delete(m, "dsseEnvelope") }),
		"payload type": edit(t, good, func(m map[string]any) { dsseOf(m)["payloadType"] = "text/plain" }),
		"no signature": edit(t, good, func(m map[string]any) { dsseOf(m)["signatures"] = []any{} }),
		"two signatures": edit(t, good, func(m map[string]any) {
			s := dsseOf(m)["signatures"].([]any)
			dsseOf(m)["signatures"] = append(s, s[0])
		}),
		"duplicate key": bytes.Replace(good, []byte(`"payloadType":`), []byte(`"payloadType":"x","payloadType":`), 1),
		"case variant":  bytes.Replace(good, []byte(`"payloadType":`), []byte(`"PayloadType":"x","payloadType":`), 1),
		"too large":     append(bytes.Clone(good), bytes.Repeat([]byte(" "), signature.MaxEnvelopeSize)...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var parse *sigstore.ParseError
			if env, err := sigstore.Parse(bundle); !errors.As(err, &parse) || env != nil {
				t.Errorf("Parse = %v, %v, want a ParseError", env, err)
			}
		})
	}
}

// signedPayload is a bundle whose key really signed payload, whatever it says.
func signedPayload(t *testing.T, k *testkey.Key, payload string) []byte {
	t.Helper()
	const typ = "application/vnd.in-toto+json"
	msg := fmt.Sprintf("DSSEv1 %d %s %d %s", len(typ), typ, len(payload), payload)
	p, err := k.Sign(context.Background(), []signature.Message{{Format: signature.Sigstore, Bytes: []byte(msg)}})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
		sigstore.MediaType, b64([]byte(payload)), typ, b64(p[0].Signature))
}

func TestStatementIsRefusedThoughTheKeySignedIt(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	hex := subject(t).Digest().Encoded()
	statement := func(typ, subjects, predicateType, predicate string) string {
		return fmt.Sprintf(`{"_type":%q,"subject":[%s],"predicateType":%q,"predicate":%s}`, typ, subjects, predicateType, predicate)
	}
	const st, pt = "https://in-toto.io/Statement/v1", sigstore.PredicateType
	one := `{"digest":{"sha256":"` + hex + `"}}`
	if o := open(t, k.Public(t), signedPayload(t, k, statement(st, one, pt, "{}"))); o.Err != nil {
		t.Fatalf("the unspoilt statement: %v", o.Err)
	}
	for name, payload := range map[string]string{
		"a provenance attestation": statement(st, one, "https://slsa.dev/provenance/v1", "{}"),
		"another statement type":   statement("https://in-toto.io/Statement/v0.1", one, pt, "{}"),
		"no subject":               statement(st, "", pt, "{}"),
		"two subjects":             statement(st, one+","+one, pt, "{}"),
		"sha512 only":              statement(st, `{"digest":{"sha512":"`+hex+hex+`"}}`, pt, "{}"),
		"upper case digest":        statement(st, `{"digest":{"sha256":"`+strings.Repeat("AB", 32)+`"}}`, pt, "{}"),
		"unknown field":            strings.Replace(statement(st, one, pt, "{}"), `"_type"`, `"extra":1,"_type"`, 1),
		"duplicate subject":        strings.Replace(statement(st, one, pt, "{}"), `"subject"`, `"subject":[],"subject"`, 1),
		"case variant subject":     strings.Replace(statement(st, one, pt, "{}"), `"subject"`, `"Subject":[],"subject"`, 1),
		"expiry that is no time":   statement(st, one, pt, `{"expires":"tomorrow"}`),
		"expiry twice":             statement(st, one, pt, `{"expires":"2020-01-01T00:00:00Z","expires":"2099-01-01T00:00:00Z"}`),
		"not JSON":                 "hello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := open(t, k.Public(t), signedPayload(t, k, payload))
			var bad *signature.StatementError
			if !errors.As(o.Err, &bad) {
				t.Errorf("err = %v, want a StatementError", o.Err)
			}
			if o.Statement.Digest != "" {
				t.Errorf("the statement got out: %v", o.Statement)
			}
		})
	}
}

func FuzzParseEnvelope(f *testing.F) {
	k := testkey.New(f, signature.Ed25519)
	good := sign(f, k, signature.Claims{Repository: "r"})
	f.Add(good.Envelope)
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	for _, v := range vectors.Load(f, vectors.Dir(f)) {
		for _, envelope := range v.Envelopes(f) {
			f.Add(envelope)
		}
	}
	other := testkey.New(f, signature.Ed25519).Public(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := sigstore.Parse(data)
		if err != nil {
			return
		}
		if o := signature.Open(context.Background(), other, []*signature.Envelope{env})[0]; o.Err == nil {
			t.Errorf("a key that signed nothing accepts %q", data)
		}
	})
}
