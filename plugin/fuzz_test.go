// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/plugin"
)

const identityCheck = "SIGNATURE_VERIFIER.TRUSTED_IDENTITY"

// chainOf is the certificates of a vector's JWS envelope, in its order.
func chainOf(t testing.TB, v vectors.Vector) [][]byte {
	t.Helper()
	var envelope struct {
		Header struct {
			Chain [][]byte `json:"x5c"`
		} `json:"header"`
	}
	all := v.Envelopes(t)
	if len(all) != 1 || json.Unmarshal(all[0], &envelope) != nil {
		t.Fatalf("%s holds no JWS envelope", v.Name)
	}
	return envelope.Header.Chain
}

func identityRequest(t testing.TB, chain [][]byte) string {
	t.Helper()
	request, err := json.Marshal(map[string]any{"contractVersion": "1.0",
		"signature":   map[string]any{"certificateChain": chain},
		"trustPolicy": map[string]any{"trustedIdentities": []string{"x509.subject: C=US, ST=WA, O=Acme"}, "signatureVerification": []string{identityCheck}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(request)
}

// TestVectorsThroughVerifySignature asks about the certificates of every vector
// in JWS. Integrity, times and trust stores are notation's own to check: what is
// left is whether the chain is one, and whose.
func TestVectorsThroughVerifySignature(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, signature.ECDSAP256)
	counts := map[string]int{}
	for _, v := range vectors.Load(t, vectors.Dir(t)) {
		if !strings.HasPrefix(v.Name, "notary-") || strings.HasPrefix(v.Name, "notary-cose-") || v.Name == "notary-padded-base64" {
			continue
		}
		want := "trusted"
		switch {
		case strings.Contains(v.Reason, "no trusted identity"):
			want = "not trusted"
		case v.Expect == "format" && strings.HasPrefix(v.Name, "notary-certificate-"):
			want = "refused"
		}
		counts[want]++
		code, answer, failure := run(t, keys, context.Background(), identityRequest(t, chainOf(t, v)), "verify-signature")
		if want == "refused" {
			if code != 1 || failure.Code != plugin.Validation {
				t.Errorf("%s: exit %d, %+v, want %s", v.Name, code, failure, plugin.Validation)
			}
			continue
		}
		verdicts, _ := answer["verificationResults"].(map[string]any)
		verdict, _ := verdicts[identityCheck].(map[string]any)
		success, ok := verdict["success"].(bool)
		if code != 0 || !ok || success != (want == "trusted") || !success && !strings.Contains(fmt.Sprint(verdict["reason"]), v.Reason) {
			t.Errorf("%s: exit %d, %v, %+v, want %s", v.Name, code, answer, failure, want)
		}
	}
	if counts["refused"] != 10 || counts["not trusted"] != 2 || counts["trusted"] < 30 {
		t.Errorf("asked about %v", counts)
	}
}

// FuzzRequest holds the contract for any bytes: one JSON document on one stream,
// and the key signs only for a request that is answered.
func FuzzRequest(f *testing.F) {
	commands := []string{"get-plugin-metadata", "describe-key", "generate-signature", "generate-envelope", "verify-signature"}
	at := func(name string) byte { return byte(slices.Index(commands, name)) }
	payload := base64.StdEncoding.EncodeToString([]byte(`{"targetArtifact":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("a", 64) + `","size":1}}`))
	f.Add(at("get-plugin-metadata"), []byte(`{"contractVersion":"1.0"}`))
	f.Add(at("describe-key"), []byte(`{"contractVersion":"1.0","keyId":"transit/release","pluginConfig":{"certChain":"c.pem"}}`))
	f.Add(at("generate-signature"), []byte(`{"contractVersion":"1.0","keyId":"k","keySpec":"EC-256","hashAlgorithm":"SHA-256","payload":"YQ=="}`))
	f.Add(at("generate-envelope"), []byte(`{"contractVersion":"1.0","keyId":"k","payloadType":"application/vnd.cncf.notary.payload.v1+json","signatureEnvelopeType":"application/cose","payload":"`+payload+`","expiryDurationInSeconds":60}`))
	for _, v := range vectors.Load(f, vectors.Dir(f)) {
		if strings.HasPrefix(v.Name, "notary-certificate-") {
			f.Add(at("verify-signature"), []byte(identityRequest(f, chainOf(f, v))))
		}
	}
	f.Fuzz(func(t *testing.T, command byte, request []byte) {
		keys := newKeys(t, signature.ECDSAP256)
		name := commands[int(command)%len(commands)]
		code, _, failure := run(t, keys, context.Background(), string(request), name)
		signed := keys.key.Calls
		if code != 0 && (code != 1 || signed != 0 || failure.Code == plugin.Generic) {
			t.Errorf("%s: exit %d, %d signatures, %+v", name, code, signed, failure)
		}
		if signs := strings.HasPrefix(name, "generate-"); code == 0 && signs != (signed == 1) {
			t.Errorf("%s: %d signatures", name, signed)
		}
	})
}
