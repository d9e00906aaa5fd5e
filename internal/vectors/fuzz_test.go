// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vectors_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// FuzzCandidate replaces what is attached to the model: the referrer's manifest,
// which calls its one layer whatever it likes, and the layer. The two trusted
// keys have signed the vectors and nothing else, so that only what they say of
// this model can count.
func FuzzCandidate(f *testing.F) {
	dir := vectors.Dir(f)
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	policy := json.RawMessage(`{"version":1,"policies":[{"name":"fuzz","scopes":["*"],"keys":[{"name":"p256","publicKeyFile":"keys/p256.pem"},
		{"name":"acme","certificatesFile":"keys/ca.pem","identities":["x509.subject: C=US, ST=WA, O=Acme"]}]}]}`)
	// said is what a trusted key says about the model in some vector.
	said := map[string]bool{}
	var base vectors.Vector
	for _, v := range vectors.Load(f, dir) {
		for _, m := range v.Referrers {
			raw, err := m.Blobs[0].Bytes()
			if err != nil {
				f.Fatal(err)
			}
			if len(raw) < 64<<10 {
				f.Add([]byte(m.Text), raw)
			}
		}
		v.Policy = policy
		if got, err := judge(f, dir, v, now); err == nil {
			said[claims(f, got)] = true
		}
		base = v
	}
	base.Classic = nil
	if len(said) < 5 {
		f.Fatalf("the vectors say %v", said)
	}
	f.Fuzz(func(t *testing.T, manifest, layer []byte) {
		v := base
		blob := vectors.Blob{{Base64: base64.StdEncoding.EncodeToString(layer)}}
		v.Referrers = []vectors.Manifest{{Text: string(manifest), Blobs: []vectors.Blob{blob}}}
		got, err := judge(t, dir, v, now)
		if err != nil {
			var none *verify.NoSignatureError
			var rejected *verify.RejectedError
			var undecided *verify.UndecidedError // a layer that is not there
			if !errors.As(err, &none) && !errors.As(err, &rejected) && !errors.As(err, &undecided) || len(got.Accepted()) != 0 {
				t.Fatalf("%+v, %v", got, err)
			}
			return
		}
		if c := claims(t, got); !said[c] {
			t.Fatalf("accepted what nobody has signed: %s", c)
		}
	})
}

func claims(t testing.TB, v verify.Verified) string {
	t.Helper()
	raw, err := json.Marshal(v.Accepted()[0].Claims)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
