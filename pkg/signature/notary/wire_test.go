// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// encodings is how a certificate stands in an envelope.
func encodings(t *testing.T, f signature.Format, c *x509.Certificate) []byte {
	t.Helper()
	if f == signature.Notary {
		return []byte(base64.StdEncoding.EncodeToString(c.Raw))
	}
	b, err := cbor.Marshal(c.Raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// protectedWith signs a JWS whose protected header and payload are exactly these.
func protectedWith(t *testing.T, k *testkey.Key, chain []*x509.Certificate, protected, payload string) []byte {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	message := b64([]byte(protected)) + "." + b64([]byte(payload))
	p, err := k.Sign(t.Context(), []signature.Message{{Format: signature.Notary, Bytes: []byte(message)}})
	if err != nil {
		t.Fatal(err)
	}
	var certs [][]byte
	for _, c := range chain {
		certs = append(certs, c.Raw)
	}
	part := strings.Split(message, ".")
	out, err := json.Marshal(map[string]any{
		"protected": part[0], "payload": part[1], "signature": b64(rawOf(t, p[0].Signature)),
		"header": map[string]any{"x5c": certs},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// rawOf turns a P-256 signature into r||s.
func rawOf(t *testing.T, der []byte) []byte {
	t.Helper()
	at := func(b []byte) (n, rest []byte) { return b[2 : 2+b[1]], b[2+b[1]:] }
	r, rest := at(der[2:])
	s, _ := at(rest)
	pad := func(b []byte) []byte {
		for len(b) > 32 {
			b = b[1:]
		}
		return append(make([]byte, 32-len(b)), b...)
	}
	return append(pad(r), pad(s)...)
}

const (
	goodTime = `"io.cncf.notary.signingTime":"2026-11-24T15:00:00Z"`
	goodRest = `"alg":"ES256","cty":"application/vnd.cncf.notary.payload.v1+json","io.cncf.notary.signingScheme":"notary.x509",` + goodTime
	goodCrit = `"crit":["io.cncf.notary.signingScheme"]`
)

func goodPayload(t *testing.T) string {
	s := subject(t)
	b, err := json.Marshal(map[string]any{"targetArtifact": s.Descriptor()})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestParseJWSRefuses signs every one of its envelopes properly: what is refused
// is what they say.
func TestParseJWSRefuses(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	if _, err := notary.ParseJWS(protectedWith(t, k, chain, "{"+goodCrit+","+goodRest+"}", goodPayload(t))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	header := func(old, new string) string { return strings.Replace("{"+goodCrit+","+goodRest+"}", old, new, 1) }
	for name, c := range map[string]struct{ protected, reason string }{
		"no scheme":             {header(`"io.cncf.notary.signingScheme":"notary.x509",`, ""), "signing scheme"},
		"scheme of authorities": {header(`:"notary.x509"`, `:"notary.x509.signingAuthority"`), "signing scheme"},
		"another content type":  {header("payload.v1", "payload.v2"), "content type"},
		"scheme not critical":   {header(goodCrit, `"crit":[]`), "not marked critical"},
		"critical plugin":       {header(`"crit":[`, `"io.cncf.notary.verificationPlugin":"x","crit":["io.cncf.notary.verificationPlugin",`), "not understood"},
		"critical twice":        {header(`"crit":[`, `"crit":["io.cncf.notary.signingScheme",`), "twice"},
		"critical and absent":   {header(`"crit":[`, `"crit":["io.cncf.notary.expiry",`), "not there"},
		"expiry not critical":   {header(goodTime, goodTime+`,"io.cncf.notary.expiry":"2027-01-01T00:00:00Z"`), "not marked critical"},
		"no signing time":       {header(","+goodTime, ""), "signingTime"},
		"time of another form":  {header("2026-11-24T15:00:00Z", "yesterday"), "signingTime"},
		"expiry is empty":       {header(goodCrit, `"crit":["io.cncf.notary.signingScheme","io.cncf.notary.expiry"],"io.cncf.notary.expiry":""`), "expiry"},
		"another algorithm":     {header("ES256", "ES384"), "needs ES256"},
		"no algorithm":          {header("ES256", "none"), "algorithm"},
		"PKCS #1 v1.5":          {header("ES256", "RS256"), "algorithm"},
		"duplicate key":         {header(`{`, `{"alg":"ES256",`), "alg"},
		"case variant":          {header(`{`, `{"ALG":"ES256",`), "duplicate JSON key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuses(t, notary.ParseJWS, protectedWith(t, k, chain, c.protected, goodPayload(t)), c.reason)
		})
	}
}

func refuses(t *testing.T, parse func([]byte) (*signature.Envelope, error), data []byte, reason string) {
	t.Helper()
	env, err := parse(data)
	if env != nil || err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("= %v, %v, want an error about %q", env, err, reason)
	}
}

func TestOpenRefusesPayloads(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	digest := subject(t).Digest().String()
	for name, payload := range map[string]string{
		"no digest":        `{"targetArtifact":{"mediaType":"a/b","size":2}}`,
		"sha512":           `{"targetArtifact":{"mediaType":"a/b","digest":"sha512:00","size":2}}`,
		"no size":          `{"targetArtifact":{"mediaType":"a/b","digest":"` + digest + `"}}`,
		"no media type":    `{"targetArtifact":{"size":2,"digest":"` + digest + `"}}`,
		"unknown field":    `{"targetArtifact":{"mediaType":"a/b","size":2,"digest":"` + digest + `","urls":[]}}`,
		"second target":    `{"targetArtifact":{"mediaType":"a/b","size":2,"digest":"` + digest + `"},"x":{}}`,
		"duplicate digest": `{"targetArtifact":{"mediaType":"a/b","size":2,"digest":"` + digest + `","digest":"` + digest + `"}}`,
		"time annotation":  `{"targetArtifact":{"mediaType":"a/b","size":2,"digest":"` + digest + `","annotations":{"dev.aegis-oci.claim.expires":"2030-01-01T00:00:00Z"}}}`,
		"unknown claim":    `{"targetArtifact":{"mediaType":"a/b","size":2,"digest":"` + digest + `","annotations":{"dev.aegis-oci.claim.x":"y"}}}`,
		"not JSON":         `hello`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, err := notary.ParseJWS(protectedWith(t, k, chain, "{"+goodCrit+","+goodRest+"}", payload))
			if err != nil {
				t.Fatal(err)
			}
			got := open(t, k.Public(t), env)
			if _, ok := got.Err.(*signature.StatementError); !ok || got.Statement.Digest != "" {
				t.Errorf("= %+v, want a StatementError", got)
			}
		})
	}
}
