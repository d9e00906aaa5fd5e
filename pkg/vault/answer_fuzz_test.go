// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// says is a server that has one answer for every path but the token's lookup.
type says struct {
	status int
	header http.Header
	body   []byte
}

func (s *says) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		if err := req.Body.Close(); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		Status: http.StatusText(s.status), StatusCode: s.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: s.header.Clone(),
		Body: io.NopCloser(bytes.NewReader(s.body)), ContentLength: int64(len(s.body)), Request: req,
	}, nil
}

const fuzzToken = "hvs.hunter2-hunter2"

// sessionWith is a session whose server is s.
func sessionWith(t testing.TB, s *says, warn func(string)) *Session {
	t.Helper()
	w := &world{}
	cfg := w.config("http://127.0.0.1:1").withDefaults()
	cfg.RetryBudget, cfg.Warn = -1, warn
	client, err := newClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client.base.RegisterProtocol("http", s)
	session := &Session{cfg: cfg, client: client, infos: make(map[string]*infoEntry)}
	session.source = StaticToken(fuzzToken, "VAULT_TOKEN")
	session.install(NewToken(fuzzToken, "VAULT_TOKEN"))
	return session
}

// FuzzAnswers has a server say the same to every request. Every error is an
// *Error of one line without the token; nothing is signed or accepted by what
// does not say so; a public key that comes out is one.
func FuzzAnswers(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	public, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})))
	if err != nil {
		f.Fatal(err)
	}
	signed := base64.StdEncoding.EncodeToString(nobodysSignature)
	for _, body := range []string{
		`{"data":{"type":"ecdsa-p256","latest_version":1,"keys":{"1":{"public_key":` + string(public) + `}}}}`,
		`{"data":{"type":"ed25519","latest_version":2,"min_decryption_version":2,"keys":{"2":{"public_key":"` + strings.Repeat("A", 43) + `="}}}}`,
		`{"data":{"batch_results":[{"signature":"vault:v1:` + signed + `","key_version":1,"reference":"0"}]},"request_id":"1-2"}`,
		`{"data":{"batch_results":[{"valid":true,"reference":"0"}]}}`, `{"data":{"batch_results":[{"error":"` + fuzzToken + `"}]}}`,
		`{"data":{"ttl":3600,"policies":["root"],"num_uses":1,"type":"service"}}`, `{"data":{"ttl":99999999999999999,"expire_time":null}}`,
		`{"auth":{"client_token":"t","lease_duration":99999999999999999,"policies":null}}`, `{"data":{"creation_path":"auth/approle/role/x/secret-id"}}`,
		`{"data":{"secret_id":"s"}}`, `{"data":{"hash":"hmac-sha256:00"}}`, `{"data":{"transit/sign/k":["update"]}}`,
		`{"initialized":true,"sealed":false,"version":"1.21.0","server_time_utc":1e300}`, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`,
		`{"errors":["\u001b[31m ` + fuzzToken + `"]}`, `{"data":null}`, `{"data":[]}`, `null`, ``, `<html>`,
	} {
		for _, status := range []int{200, 204, 400, 403, 404, 503} {
			f.Add(status, "", "", []byte(body))
		}
	}
	f.Add(307, "https://evil.example.com/v1/transit/sign/k", "", []byte(nil))
	f.Add(307, "http://127.0.0.1:1/v1/../../x", "1", []byte(nil))
	f.Add(429, "", "99999999999999999999", []byte(nil))
	f.Fuzz(func(t *testing.T, status int, location, after string, body []byte) {
		srv := &says{status: 200 + (status%400+400)%400, body: body, header: http.Header{"Location": {location}, "Retry-After": {after}}}
		holds := func(err error) {
			t.Helper()
			var e *Error
			if err != nil && !errors.As(err, &e) {
				t.Fatalf("of no type: %v (%T)", err, err)
			}
			if err != nil {
				oneLine(t, err.Error()+e.Hint)
			}
		}
		s := sessionWith(t, srv, func(text string) { oneLine(t, text) })
		ctx := t.Context()
		ref := KeyRef{Mount: "transit", Name: "k"}
		holds(s.inspect(ctx))
		keys, err := s.PublicKeys(ctx, ref)
		holds(err)
		for v, text := range keys {
			if block, rest := pem.Decode(text); block == nil || len(rest) > 0 || v < 0 {
				t.Fatalf("the public key of version %d is %q", v, text)
			}
		}
		_, err = s.DescribeKey(ctx, ref)
		holds(err)
		if g, err := s.Signer(ctx, ref); err == nil {
			made, err := g.Sign(ctx, messages("x"))
			holds(err)
			if err == nil && (len(made) != 1 || made[0].KeyVersion < 1 || len(made[0].Signature) == 0) {
				t.Fatalf("signed %+v", made)
			}
		} else {
			holds(err)
		}
		verdicts := s.Key(ref).Check(ctx, []signature.Check{{Format: signature.Sigstore, Message: []byte("x"), Signature: nobodysSignature}})
		if len(verdicts) != 1 || verdicts[0].Err == nil && !bytes.Contains(bytes.ToLower(body), []byte("true")) {
			t.Fatalf("accepted by %q: %+v", body, verdicts)
		}
		if err := verdicts[0].Err; err != nil && !errors.Is(err, signature.ErrInvalid) {
			holds(err)
		}
		_, err = s.TokenInfo(ctx)
		holds(err)
		_, err = s.Capabilities(ctx, ref, ref.SignPath())
		holds(err)
		_, err = s.AuditHash(ctx, "file", "x")
		holds(err)
		holds(s.MayVerify(ctx, ref))
		login := AppRole{Login: Login{Role: "x"}, RoleID: "r", Wrapping: NewSecret(fuzzToken)}
		token, err := login.Token(ctx, s.client)
		holds(err)
		if err == nil && (token.TTL < 0 || token.check() == nil && token.secret() == "") {
			t.Fatalf("logged in with %+v", token)
		}
	})
}

// oneLine wants text that can be shown: without the token, and nothing that a
// terminal or a log would take for more than text.
func oneLine(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, fuzzToken) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) }) {
		t.Fatalf("shown: %q", text)
	}
}

// FuzzIdentity reads identity tokens, whose claims are shown and, where Vault has
// accepted the token, signed.
func FuzzIdentity(f *testing.F) {
	for _, claims := range []string{
		`{"iss":"https://token.example.com","aud":["vault"],"sub":"repo:acme/models","repository":"acme/models","ref":"refs/heads/main","exp":1800000000,"run_id":"7"}`,
		`{"aud":"https://kubernetes.default.svc","exp":1e400}`, `{"aud":[1,null,"a"],"exp":-1,"sub":"a\u001b[31m\nb"}`, `{"exp":99999999999}`, `null`, `[]`, `{} {}`,
	} {
		f.Add("e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln")
	}
	f.Add("a.b")
	f.Add("..")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, jwt string) {
		_, ok := payload(jwt)
		text, err := checkJWT("read", "the file", jwt)
		if _, trimmed := payload(strings.TrimSpace(jwt)); trimmed != (err == nil) && len(jwt) < maxJWT {
			t.Fatalf("%q: %q, %v", jwt, text, err)
		}
		oneLine(t, describe(jwt, now))
		picked := builderClaims(jwt)
		if !ok && len(picked) > 0 {
			t.Fatalf("claims %v of no token", picked)
		}
		for name, value := range picked {
			if oneLine(t, value); value == "" || len(value) > maxClaim+len("...") {
				t.Fatalf("%s=%q", name, value)
			}
		}
		meantForAPIServer(jwt)
	})
}

// FuzzAddress holds that an address which is taken sends no token in the clear.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://vault:8200", "http://127.0.0.1:8200/x", "http://localhost.evil.example.com", "http://[::1%25eth0]:1", "http://127.1", "unix:///run/a.sock", "https://u:p@h", "HTTP://h", "//h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		end, err := Config{Address: address}.parseAddress()
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || end.url != nil {
				t.Fatalf("%+v, %v", end, err)
			}
			return
		}
		if end.socket == "" && strings.HasPrefix(address, "unix://") && address != "unix://" {
			t.Fatalf("%q is no socket: %+v", address, end)
		}
		ip, _ := netip.ParseAddr(end.url.Hostname())
		if end.socket == "" && !strings.HasPrefix(address, "unix://") && end.url.Scheme != "https" && !ip.IsLoopback() && !strings.EqualFold(end.url.Hostname(), "localhost") {
			t.Fatalf("%q is asked in the clear: %s", address, end.url)
		}
		if end.url.User != nil || end.url.RawQuery != "" {
			t.Fatalf("%q became %s", address, fmt.Sprint(end.url))
		}
	})
}
