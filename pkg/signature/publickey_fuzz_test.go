// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// FuzzParsePublicKeys: a file is a list of keys that can be written again, or an
// error, and no such key accepts what it has not signed.
func FuzzParsePublicKeys(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(vectors.Dir(f), "keys", "*.pem"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no keys: %v", err)
	}
	var all []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		all = append(all, data...)
	}
	f.Add(all)
	signed, err := testkey.New(f, signature.ECDSAP256).Sign(context.Background(), []signature.Message{{Format: signature.Sigstore, Bytes: []byte("x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := signature.ParsePublicKeys("fuzz", data)
		if err != nil {
			var bad *signature.KeyFileError
			if !errors.As(err, &bad) || k != nil {
				t.Fatalf("%v, %v", k, err)
			}
			return
		}
		known := signature.KnownSPKIs(k)
		if len(known) == 0 || !k.Local() {
			t.Fatal("accepted, and holds no key")
		}
		var written bytes.Buffer
		for _, spki := range known {
			if err := pem.Encode(&written, &pem.Block{Type: "PUBLIC KEY", Bytes: spki}); err != nil {
				t.Fatal(err)
			}
		}
		again, err := signature.ParsePublicKeys("fuzz", written.Bytes())
		if err != nil || len(signature.KnownSPKIs(again)) != len(known) {
			t.Fatalf("written again: %v", err)
		}
		for i, spki := range signature.KnownSPKIs(again) {
			if !bytes.Equal(spki, known[i]) {
				t.Fatalf("key %d is another", i)
			}
		}
		v := k.Check(t.Context(), []signature.Check{{Format: signature.Sigstore, Message: []byte("x"), Signature: signed[0].Signature}})
		if len(v) != 1 || !errors.Is(v[0].Err, signature.ErrInvalid) {
			t.Fatalf("a key that signed nothing says %+v", v)
		}
	})
}
