// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/plugin"
)

var now = time.Now().UTC().Truncate(time.Second)

var errDenied = errors.New("denied by the server")

// softKeys holds one key in this process.
type softKeys struct {
	key     *testkey.Key
	chain   []*x509.Certificate
	err     error
	revoked map[string]bool
}

func (s *softKeys) Describe(ctx context.Context, id string, _ map[string]string) (plugin.Key, error) {
	return s.Open(ctx, id, nil)
}

func (s *softKeys) Open(context.Context, string, map[string]string) (plugin.Key, error) {
	return plugin.Key{Signer: s.key, Type: s.key.ID().Type, Chain: s.chain, Warning: "be warned"}, s.err
}

func (s *softKeys) Classify(err error) plugin.Code {
	if errors.Is(err, errDenied) {
		return plugin.AccessDenied
	}
	return ""
}

func (s *softKeys) Revoked(map[string]string) (map[string]bool, bool, error) {
	return s.revoked, s.revoked != nil, nil
}

func newKeys(t testing.TB, typ signature.KeyType) *softKeys {
	t.Helper()
	k := testkey.New(t, typ)
	return &softKeys{key: k, chain: []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}}
}

// run answers one request and returns the one stream that must hold JSON.
func run(t testing.TB, keys plugin.Keys, ctx context.Context, stdin string, args ...string) (code int, answer map[string]any, failure plugin.Error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &plugin.Plugin{Keys: keys, Version: "1.2.3", URL: "https://example.com", Agent: "test/1", Now: func() time.Time { return now }}
	code = p.Run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
	if code == 0 {
		if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
			t.Fatalf("stdout is not JSON: %q", stdout.String())
		}
		var warning map[string]string
		if stderr.Len() > 0 && json.Unmarshal(stderr.Bytes(), &warning) != nil {
			t.Errorf("stderr is not JSON: %q", stderr.String())
		}
		return code, answer, failure
	}
	if err := json.Unmarshal(stderr.Bytes(), &failure); err != nil || stdout.Len() != 0 || failure.Code == "" || failure.Message == "" {
		t.Fatalf("exit %d with stdout %q and stderr %q", code, stdout.String(), stderr.String())
	}
	return code, nil, failure
}

// The cases of the framework's contract, and those around them.
func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, signature.ECDSAP256)
	const good = `{"contractVersion":"1.0","keyId":"k"}`
	for name, c := range map[string]struct {
		stdin string
		args  []string
		code  plugin.Code
	}{
		"no command":               {good, nil, plugin.Validation},
		"two commands":             {good, []string{"describe-key", "describe-key"}, plugin.Validation},
		"unknown command":          {good, []string{"sign"}, plugin.Validation},
		"an option":                {good, []string{"--help"}, plugin.Validation},
		"empty stdin":              {"", []string{"describe-key"}, plugin.Validation},
		"empty stdin, metadata":    {"", []string{"get-plugin-metadata"}, plugin.Validation},
		"not JSON":                 {"hello", []string{"describe-key"}, plugin.Validation},
		"an array":                 {"[]", []string{"describe-key"}, plugin.Validation},
		"two documents":            {good + good, []string{"describe-key"}, plugin.Validation},
		"cut short":                {good[:10], []string{"describe-key"}, plugin.Validation},
		"not ASCII":                {`{"contractVersion":"1.0","keyId":"kä"}`, []string{"describe-key"}, plugin.Validation},
		"oversized":                {`{"contractVersion":"1.0","keyId":"` + strings.Repeat("k", 2<<20) + `"}`, []string{"describe-key"}, plugin.Validation},
		"no contract version":      {`{"keyId":"k"}`, []string{"describe-key"}, plugin.Validation},
		"another contract version": {`{"contractVersion":"2.0","keyId":"k"}`, []string{"describe-key"}, plugin.UnsupportedVersion},
		"a number for the version": {`{"contractVersion":1,"keyId":"k"}`, []string{"describe-key"}, plugin.Validation},
		"no key id":                {`{"contractVersion":"1.0"}`, []string{"describe-key"}, plugin.Validation},
		"no payload":               {`{"contractVersion":"1.0","keyId":"k","keySpec":"EC-256","hashAlgorithm":"SHA-256"}`, []string{"generate-signature"}, plugin.Validation},
		"payload is not base64":    {`{"contractVersion":"1.0","keyId":"k","keySpec":"EC-256","hashAlgorithm":"SHA-256","payload":"!"}`, []string{"generate-signature"}, plugin.Validation},
		"another key spec":         {`{"contractVersion":"1.0","keyId":"k","keySpec":"RSA-2048","hashAlgorithm":"SHA-256","payload":"YQ=="}`, []string{"generate-signature"}, plugin.Validation},
		"another hash":             {`{"contractVersion":"1.0","keyId":"k","keySpec":"EC-256","hashAlgorithm":"SHA-512","payload":"YQ=="}`, []string{"generate-signature"}, plugin.Validation},
		"another payload type":     {`{"contractVersion":"1.0","keyId":"k","payloadType":"text/plain","signatureEnvelopeType":"application/cose","payload":"YQ=="}`, []string{"generate-envelope"}, plugin.Validation},
		"another envelope":         {`{"contractVersion":"1.0","keyId":"k","payloadType":"application/vnd.cncf.notary.payload.v1+json","signatureEnvelopeType":"text/plain","payload":"YQ=="}`, []string{"generate-envelope"}, plugin.Validation},
		"payload is no payload":    {`{"contractVersion":"1.0","keyId":"k","payloadType":"application/vnd.cncf.notary.payload.v1+json","signatureEnvelopeType":"application/cose","payload":"YQ=="}`, []string{"generate-envelope"}, plugin.Validation},
		"nothing to check":         {`{"contractVersion":"1.0","signature":{"certificateChain":[]},"trustPolicy":{}}`, []string{"verify-signature"}, plugin.Validation},
		"no certificates":          {`{"contractVersion":"1.0","signature":{"certificateChain":[]},"trustPolicy":{"signatureVerification":["SIGNATURE_VERIFIER.TRUSTED_IDENTITY"]}}`, []string{"verify-signature"}, plugin.Validation},
	} {
		code, _, failure := run(t, keys, context.Background(), c.stdin, c.args...)
		if code != 1 || failure.Code != c.code {
			t.Errorf("%s: exit %d, %+v, want %s", name, code, failure, c.code)
		}
	}
	if keys.key.Calls != 0 {
		t.Errorf("the key signed %d times", keys.key.Calls)
	}
}

func TestErrorsOfTheKeyHolderGetTheirCodes(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, signature.ECDSAP256)
	over, cancel := context.WithDeadline(context.Background(), now.Add(-time.Hour))
	defer cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		code plugin.Code
	}{
		"denied":    {context.Background(), fmt.Errorf("sign: %w", errDenied), plugin.AccessDenied},
		"deadline":  {context.Background(), context.DeadlineExceeded, plugin.Timeout},
		"too late":  {over, errors.New("broken off"), plugin.Timeout},
		"something": {context.Background(), errors.New("something"), plugin.Generic},
		"its own":   {context.Background(), &plugin.Error{Code: plugin.Throttled, Message: "slowly"}, plugin.Throttled},
	} {
		keys.err = c.err
		if code, _, failure := run(t, keys, c.ctx, `{"contractVersion":"1.0","keyId":"k"}`, "describe-key"); code != 1 || failure.Code != c.code {
			t.Errorf("%s: exit %d, %+v", name, code, failure)
		}
	}
}

func TestSignaturesVerifyForEveryKeyType(t *testing.T) {
	t.Parallel()
	for typ, want := range map[signature.KeyType][3]string{
		signature.ECDSAP256: {"EC-256", "SHA-256", "ECDSA-SHA-256"}, signature.ECDSAP384: {"EC-384", "SHA-384", "ECDSA-SHA-384"},
		signature.ECDSAP521: {"EC-521", "SHA-512", "ECDSA-SHA-512"}, signature.RSA2048: {"RSA-2048", "SHA-256", "RSASSA-PSS-SHA-256"},
		signature.RSA3072: {"RSA-3072", "SHA-384", "RSASSA-PSS-SHA-384"}, signature.RSA4096: {"RSA-4096", "SHA-512", "RSASSA-PSS-SHA-512"},
	} {
		keys := newKeys(t, typ)
		_, answer, _ := run(t, keys, context.Background(), `{"contractVersion":"1.0","keyId":"transit/k:1"}`, "describe-key")
		if answer["keyId"] != "transit/k:1" || answer["keySpec"] != want[0] {
			t.Errorf("%s: describe-key %v", typ, answer)
		}
		request := fmt.Sprintf(`{"contractVersion":"1.0","keyId":"transit/k:1","keySpec":%q,"hashAlgorithm":%q,"payload":"cGF5bG9hZA=="}`, want[0], want[1])
		_, answer, _ = run(t, keys, context.Background(), request, "generate-signature")
		if answer["keyId"] != "transit/k:1" || answer["signingAlgorithm"] != want[2] || len(answer["certificateChain"].([]any)) != 1 {
			t.Errorf("%s: generate-signature %v", typ, answer)
		}
	}
}

func TestEnvelopesAreParsedAndOpened(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, signature.ECDSAP256)
	payload := []byte(`{"targetArtifact":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("ab", 32) + `","size":7}}`)
	for mediaType, parse := range map[string]func([]byte) (*signature.Envelope, error){notary.MediaTypeJWS: notary.ParseJWS, notary.MediaTypeCOSE: notary.ParseCOSE} {
		request, err := json.Marshal(map[string]any{"contractVersion": "1.0", "keyId": "k", "payloadType": notary.PayloadType,
			"signatureEnvelopeType": mediaType, "payload": payload, "expiryDurationInSeconds": 60})
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Envelope []byte `json:"signatureEnvelope"`
			Type     string `json:"signatureEnvelopeType"`
		}
		_, loose, _ := run(t, keys, context.Background(), string(request), "generate-envelope")
		text, _ := json.Marshal(loose)
		if err := json.Unmarshal(text, &answer); err != nil || answer.Type != mediaType {
			t.Fatalf("%v: %v", err, loose)
		}
		env, err := parse(answer.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		got := signature.Open(context.Background(), keys.key.Public(t), []*signature.Envelope{env})[0]
		if c := got.Statement.Claims; got.Err != nil || got.Statement.Size != 7 || !c.SignedAt.Equal(now) || !c.Expires.Equal(now.Add(time.Minute)) {
			t.Errorf("%s: %+v", mediaType, got)
		}
	}
}

func TestKeysThatCannotSignForNotary(t *testing.T) {
	t.Parallel()
	good, other := newKeys(t, signature.ECDSAP256), newKeys(t, signature.ECDSAP256)
	ca := good.key.Issue(t, testkey.Authority(now, "ca"), nil, nil)
	for name, keys := range map[string]*softKeys{
		"ed25519":               {key: testkey.New(t, signature.Ed25519)},
		"no certificate":        {key: good.key},
		"another's certificate": {key: good.key, chain: other.chain},
		"an authority's":        {key: good.key, chain: []*x509.Certificate{ca}},
		"of another type":       {key: good.key, chain: newKeys(t, signature.ECDSAP384).chain},
	} {
		code, _, failure := run(t, keys, context.Background(),
			`{"contractVersion":"1.0","keyId":"k","keySpec":"EC-256","hashAlgorithm":"SHA-256","payload":"YQ=="}`, "generate-signature")
		if code != 1 || failure.Code != plugin.Validation {
			t.Errorf("%s: exit %d, %+v", name, code, failure)
		}
	}
}

func TestVerifySignature(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, signature.ECDSAP256)
	sum := sha256.Sum256(keys.chain[0].Raw)
	ask := func(identity string, checks ...string) map[string]any {
		t.Helper()
		request, err := json.Marshal(map[string]any{"contractVersion": "1.0",
			"signature":   map[string]any{"certificateChain": [][]byte{keys.chain[0].Raw}},
			"trustPolicy": map[string]any{"trustedIdentities": []string{identity}, "signatureVerification": checks}})
		if err != nil {
			t.Fatal(err)
		}
		_, answer, failure := run(t, keys, context.Background(), string(request), "verify-signature")
		if answer == nil {
			t.Fatalf("%+v", failure)
		}
		return answer["verificationResults"].(map[string]any)
	}
	success := func(results map[string]any, check string) bool {
		return results[check].(map[string]any)["success"].(bool)
	}
	const identity, revocation = "SIGNATURE_VERIFIER.TRUSTED_IDENTITY", "SIGNATURE_VERIFIER.REVOCATION_CHECK"
	if got := ask("x509.subject: C=US, ST=WA, O=Acme", identity); !success(got, identity) || len(got) != 1 {
		t.Errorf("the right identity: %v", got)
	}
	if got := ask("x509.subject: C=US, ST=WA, O=Other", identity); success(got, identity) {
		t.Errorf("another identity: %v", got)
	}
	if got := ask("*", identity, revocation); !success(got, identity) || success(got, revocation) {
		t.Errorf("no list: %v", got)
	}
	keys.revoked = map[string]bool{}
	if got := ask("*", revocation); !success(got, revocation) {
		t.Errorf("an empty list: %v", got)
	}
	keys.revoked[hex.EncodeToString(sum[:])] = true
	if got := ask("*", revocation); success(got, revocation) {
		t.Errorf("revoked: %v", got)
	}
}
