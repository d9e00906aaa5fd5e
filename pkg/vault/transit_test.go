// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

func TestParseSignatureTakesTheVersionFromTheAnswer(t *testing.T) {
	for _, tc := range []struct {
		s          string
		keyVersion int
		want       int
	}{
		{"vault:v1:AAAA", 1, 1},
		{"vault:v12:AAAA", 0, 12},
		{"custom-7:x:AAAA", 7, 7}, // a version template of OpenBao
	} {
		sig, version, err := parseSignature(tc.s, tc.keyVersion)
		if err != nil || version != tc.want || !bytes.Equal(sig, []byte{0, 0, 0}) {
			t.Errorf("%q, %d: %x, %d, %v", tc.s, tc.keyVersion, sig, version, err)
		}
	}
}

func TestParseSignatureRefusesWhatSaysTwoThings(t *testing.T) {
	for _, tc := range []struct {
		s          string
		keyVersion int
	}{
		{"", 1}, {"AAAA", 1}, {"vault:v1:", 1}, {"vault:v1", 1}, {"vault:v1:AAAA", 2}, {"vault:v0:AAAA", 0},
		{"custom:AAAA", 0}, {"custom:AAAA", -1}, {"vault:v1:!!!!", 1}, {"vault:v1:AAA", 1}, {"vault:v1:AAB=", 1},
		{"vault:v1:AA\nAA", 1}, {"vault:v9999999999:AAAA", 0}, {"vault:v1:" + strings.Repeat("A", maxSignature), 1},
	} {
		if sig, version, err := parseSignature(tc.s, tc.keyVersion); err == nil {
			t.Errorf("%q, %d: taken as %x by version %d", tc.s, tc.keyVersion, sig, version)
		}
	}
}

func FuzzTransitSignature(f *testing.F) {
	for _, s := range []string{"vault:v1:AAAA", "vault:v1:", ":", "", "vault:v2:MEUCIQ==", "a:b:c:AAAA", "vault:v1:AAB="} {
		f.Add(s, 0)
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, s string, keyVersion int) {
		sig, version, err := parseSignature(s, keyVersion)
		if err != nil {
			return
		}
		if version < 1 || len(sig) == 0 {
			t.Fatalf("%q: version %d, %d bytes", s, version, len(sig))
		}
		// One string for one signature: what is sent back is what came.
		again, v, err := parseSignature(formatSignature(sig, version), version)
		if err != nil || v != version || !bytes.Equal(again, sig) {
			t.Fatalf("%q: %x by %d became %x by %d, %v", s, sig, version, again, v, err)
		}
		if !strings.HasSuffix(formatSignature(sig, version), s[strings.LastIndexByte(s, ':'):]) {
			t.Fatalf("%q: two encodings of one signature", s)
		}
	})
}

// One set of parameters serves every key type of the Sigstore format: that is
// what lets a token that cannot read the key ask one question.
func TestParamsForUnknownTypeIsOneSet(t *testing.T) {
	want := []params{{Hash: "sha2-256", Algorithm: "pkcs1v15", Marshal: "asn1"}}
	for _, typ := range []signature.KeyType{signature.KeyUnknown, signature.ECDSAP384, signature.RSA4096, signature.Ed25519} {
		if got := paramsFor(signature.Sigstore, typ); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v", typ, got)
		}
	}
	if got := paramsFor("no such format", signature.KeyUnknown); got != nil {
		t.Errorf("an unknown format has parameters: %v", got)
	}
	body, err := json.Marshal(batchRequest{params: want[0], Items: []batchItem{}})
	if err != nil || bytes.Contains(body, []byte("prehashed")) {
		t.Errorf("Vault refuses prehashed for Ed25519: %s, %v", body, err)
	}
}

func TestDecodeBatchRefusesAnotherOrder(t *testing.T) {
	for _, data := range []string{
		`{"batch_results":[{"valid":true,"reference":"1"},{"valid":false,"reference":"0"}]}`,
		`{"batch_results":[{"valid":true,"reference":"0"}]}`,
		`{"batch_results":[{},{},{}]}`, `{"batch_results":{}}`, `{}`, `null`, ``,
	} {
		if r, err := decodeBatch(json.RawMessage(data), 2); err == nil {
			t.Errorf("%s: taken as %+v", data, r)
		}
	}
	if _, err := decodeBatch(json.RawMessage(`{"batch_results":[{"reference":"0"},{"reference":"1"}]}`), 2); err != nil {
		t.Error(err)
	}
}

func TestDecodeInfoRefusesNonsense(t *testing.T) {
	for _, data := range []string{
		``, `{}`, `{"type":"ecdsa-p256"}`, `{"type":"ecdsa-p256","latest_version":-1}`,
		`{"type":"ecdsa-p256","latest_version":1,"keys":{"x":{"public_key":"AAAA"}}}`,
		`{"type":"ed25519","latest_version":1,"keys":{"1":{"public_key":"AAAA"}}}`,
		`{"type":"ecdsa-p256","latest_version":1,"keys":{"1":{"public_key":"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}}}`,
	} {
		if info, err := decodeInfo(json.RawMessage(data)); err == nil {
			t.Errorf("%s: taken as %+v", data, info)
		}
	}
}
