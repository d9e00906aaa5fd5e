// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package timestamp_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
)

func TestTimestampsVerify(t *testing.T) {
	t.Parallel()
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		tsa := testtsa.Start(t)
		tsa.Time = time.Now().Add(-time.Hour).Truncate(time.Second)
		a, err := timestamp.NewAuthority(tsa.URL, tsa.Roots(), nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := a.Timestamp(t.Context(), []byte("signature"), hash)
		if err != nil {
			t.Fatalf("%s: %v", hash, err)
		}
		got, err := timestamp.Verify(t.Context(), signature.Stamp{Token: token, Content: []byte("signature"), Hash: hash}, tsa.Roots())
		if err != nil || !got.From.Equal(tsa.Time.Add(-time.Second)) || !got.Until.Equal(tsa.Time.Add(time.Second)) {
			t.Errorf("%s: %v, %v", hash, got, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	tsa, other := testtsa.Start(t), testtsa.Start(t)
	a, err := timestamp.NewAuthority(tsa.URL, tsa.Roots(), nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.Timestamp(t.Context(), []byte("signature"), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte(nil), token...)
	changed[len(changed)-1] ^= 1
	good := signature.Stamp{Token: token, Content: []byte("signature"), Hash: crypto.SHA256}
	for name, c := range map[string]struct {
		stamp signature.Stamp
		roots *x509.CertPool
	}{
		"over something else": {signature.Stamp{Token: token, Content: []byte("other"), Hash: crypto.SHA256}, tsa.Roots()},
		"with another hash":   {signature.Stamp{Token: token, Content: []byte("signature"), Hash: crypto.SHA384}, tsa.Roots()},
		"changed":             {signature.Stamp{Token: changed, Content: []byte("signature"), Hash: crypto.SHA256}, tsa.Roots()},
		"no token":            {signature.Stamp{Token: []byte("x"), Content: []byte("signature"), Hash: crypto.SHA256}, tsa.Roots()},
		"huge":                {signature.Stamp{Token: append(append([]byte(nil), token...), make([]byte, 64<<10)...), Content: []byte("signature"), Hash: crypto.SHA256}, tsa.Roots()},
		"another authority's": {good, other.Roots()},
		"the system's roots":  {good, nil},
	} {
		var bad *timestamp.Error
		if got, err := timestamp.Verify(t.Context(), c.stamp, c.roots); !errors.As(err, &bad) || !got.From.IsZero() {
			t.Errorf("%s: %v, %v, want an Error", name, got, err)
		}
	}
}

func TestAuthorityRefusesTokensOfOthers(t *testing.T) {
	t.Parallel()
	tsa, other := testtsa.Start(t), testtsa.Start(t)
	a, err := timestamp.NewAuthority(tsa.URL, other.Roots(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var bad *timestamp.Error
	if token, err := a.Timestamp(t.Context(), []byte("x"), crypto.SHA256); !errors.As(err, &bad) || token != nil || tsa.Requests.Load() != 1 {
		t.Errorf("= %x, %v after %d requests", token, err, tsa.Requests.Load())
	}
	for _, u := range []string{"", "ftp://x/", "http://", "https://user@x/", "tsa.example.com"} {
		if _, err := timestamp.NewAuthority(u, nil, nil); !errors.As(err, &bad) {
			t.Errorf("NewAuthority(%q): %v, want an Error", u, err)
		}
	}
}

// The token is not signed by the key that signed the content: whoever may write
// to the registry can put any bytes there.
func FuzzVerify(f *testing.F) {
	tsa := testtsa.Start(f)
	a, err := timestamp.NewAuthority(tsa.URL, tsa.Roots(), nil)
	if err != nil {
		f.Fatal(err)
	}
	content := []byte("signature")
	token, err := a.Timestamp(f.Context(), content, crypto.SHA256)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add(token[:len(token)/2])
	f.Add([]byte{0x30, 0x80})
	roots, none := tsa.Roots(), x509.NewCertPool()
	made := time.Now()
	f.Fuzz(func(t *testing.T, token []byte) {
		stamp := signature.Stamp{Token: token, Content: content, Hash: crypto.SHA256}
		got, err := timestamp.Verify(t.Context(), stamp, roots)
		var bad *timestamp.Error
		if err != nil && (!errors.As(err, &bad) || !got.From.IsZero() || !got.Until.IsZero()) {
			t.Fatalf("%+v, %v", got, err)
		}
		// Only one stamp was ever made.
		if err == nil && (got.From.Before(made.Add(-time.Minute)) || got.Until.After(made.Add(time.Minute))) {
			t.Fatalf("a stamp of %+v", got)
		}
		if got, err := timestamp.Verify(t.Context(), stamp, none); err == nil {
			t.Fatalf("trusted by nobody, and stamped %+v", got)
		}
	})
}
