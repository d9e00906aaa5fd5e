// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary_test

import (
	"crypto/x509"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// coseWith signs a COSE_Sign1 whose protected header is exactly this.
func coseWith(t *testing.T, k *testkey.Key, chain []*x509.Certificate, protected map[any]any) []byte {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	header, payload := marshal(protected), []byte(goodPayload(t))
	p, err := k.Sign(t.Context(), []signature.Message{{Format: signature.NotaryCOSE, Bytes: marshal([]any{"Signature1", header, []byte{}, payload})}})
	if err != nil {
		t.Fatal(err)
	}
	var certs [][]byte
	for _, c := range chain {
		certs = append(certs, c.Raw)
	}
	return marshal(cbor.Tag{Number: 18, Content: []any{header, map[any]any{33: certs}, payload, rawOf(t, p[0].Signature)}})
}

func TestParseCOSERefuses(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
	epoch := func(v any) cbor.Tag { return cbor.Tag{Number: 1, Content: v} }
	header := func(change func(map[any]any)) map[any]any {
		h := map[any]any{
			1: -7, 2: []any{"io.cncf.notary.signingScheme"}, 3: "application/vnd.cncf.notary.payload.v1+json",
			"io.cncf.notary.signingScheme": "notary.x509", "io.cncf.notary.signingTime": epoch(now.Unix()),
		}
		change(h)
		return h
	}
	good := coseWith(t, k, chain, header(func(map[any]any) {}))
	env, err := notary.ParseCOSE(good)
	if err != nil {
		t.Fatalf("the good one: %v", err)
	}
	if got := open(t, k.Public(t), env); got.Err != nil {
		t.Fatalf("the good one: %v", got.Err)
	}
	for name, c := range map[string]struct {
		change func(map[any]any)
		reason string
	}{
		"no algorithm":         {func(h map[any]any) { delete(h, 1) }, "header 1"},
		"another algorithm":    {func(h map[any]any) { h[1] = -35 }, "needs ES256"},
		"EdDSA":                {func(h map[any]any) { h[1] = -8 }, "algorithm -8"},
		"algorithm as text":    {func(h map[any]any) { h[1] = "ES256" }, "header 1"},
		"no crit":              {func(h map[any]any) { delete(h, 2) }, "header 2"},
		"scheme not critical":  {func(h map[any]any) { h[2] = []any{"io.cncf.notary.signingTime"} }, "not marked critical"},
		"critical plugin":      {func(h map[any]any) { h[2], h["p"] = []any{"io.cncf.notary.signingScheme", "p"}, 1 }, "not understood"},
		"another content type": {func(h map[any]any) { h[3] = "text/plain" }, "content type"},
		"another scheme":       {func(h map[any]any) { h["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority" }, "signing scheme"},
		"no time":              {func(h map[any]any) { delete(h, "io.cncf.notary.signingTime") }, "signingTime"},
		"time without a tag":   {func(h map[any]any) { h["io.cncf.notary.signingTime"] = now.Unix() }, "signingTime"},
		"time with a fraction": {func(h map[any]any) { h["io.cncf.notary.signingTime"] = epoch(1.5) }, "signingTime"},
		"time as text": {func(h map[any]any) {
			h["io.cncf.notary.signingTime"] = cbor.Tag{Number: 0, Content: "2026-01-01T00:00:00Z"}
		}, "signingTime"},
		"time is negative":    {func(h map[any]any) { h["io.cncf.notary.signingTime"] = epoch(-1) }, "signingTime"},
		"expiry not critical": {func(h map[any]any) { h["io.cncf.notary.expiry"] = epoch(now.Unix()) }, "not marked critical"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuses(t, notary.ParseCOSE, coseWith(t, k, chain, header(c.change)), c.reason)
		})
	}
	for name, data := range map[string][]byte{
		"untagged":        good[1:],
		"trailing byte":   append(append([]byte{}, good...), 0),
		"cut short":       good[:len(good)-1],
		"nothing":         nil,
		"no certificates": coseWith(t, k, nil, header(func(map[any]any) {})),
		"another tag":     append([]byte{0xd1}, good[1:]...),
		"a JWS":           []byte(`{"payload":"","protected":"","header":{},"signature":""}`),
	} {
		if env, err := notary.ParseCOSE(data); err == nil || env != nil {
			t.Errorf("%s: %v, %v", name, env, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := testkey.New(f, signature.ECDSAP256)
	chain := []*x509.Certificate{k.Issue(f, testkey.Leaf(now, "models"), nil, nil)}
	for _, form := range forms {
		f.Add(sign(f, form.format, k, claims(), notary.Options{Chain: chain, Agent: "fuzz"}).Envelope)
	}
	for _, v := range vectors.Load(f, vectors.Dir(f)) {
		for _, envelope := range v.Envelopes(f) {
			f.Add(envelope)
		}
	}
	public := k.Public(f)
	want := subject(f).Digest()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, form := range forms {
			env, err := form.parse(data)
			if err != nil {
				continue
			}
			// Whatever bytes it is, only what was signed may come out.
			if got := open(t, public, env); got.Err == nil && got.Statement.Digest != want {
				t.Errorf("%s: %+v", form.format, got.Statement)
			}
		}
	})
}
