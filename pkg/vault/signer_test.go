// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

var keyTypes = []signature.KeyType{
	signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521,
	signature.RSA2048, signature.RSA3072, signature.RSA4096, signature.Ed25519,
}

// Every key type, with the smallest tokens: what one signs verifies locally, by
// the algorithm of the table, and through the other.
func TestSignAndVerifyEveryKeyType(t *testing.T) {
	srv := servertest.SharedStack(t)
	for _, typ := range keyTypes {
		t.Run(string(typ), func(t *testing.T) {
			key := name(t)
			srv.TransitKey(t, key, string(typ))
			ref := KeyRef{Mount: "transit", Name: key}
			signs, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/"+key, "update"))
			g, err := signs.Signer(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if id := g.ID(); id.Type != signature.KeyUnknown || id.SPKI != nil {
				t.Errorf("a token that signs only knows %+v", id)
			}
			before := signs.Requests()
			prims, err := g.Sign(t.Context(), messages("one", "two", "three"))
			if err != nil {
				t.Fatal(err)
			}
			if n := signs.Requests() - before; n != 1 {
				t.Errorf("%d requests to sign a batch", n)
			}
			local, err := signature.ParsePublicKeys("k", srv.PublicKeyPEM(t, key, 1))
			if err != nil {
				t.Fatal(err)
			}
			var checks []signature.Check
			for i, m := range messages("one", "two", "three") {
				checks = append(checks, signature.Check{Format: m.Format, Message: m.Bytes, Signature: prims[i].Signature})
				if prims[i].KeyVersion != 1 || prims[i].RequestID == "" {
					t.Errorf("primitive %d: %+v", i, prims[i])
				}
			}
			verifies, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/verify/"+key, "update"))
			for _, k := range []signature.Key{local, verifies.Key(ref)} {
				for i, v := range k.Check(t.Context(), checks) {
					if v.Err != nil {
						t.Errorf("%T refuses %d: %v", k, i, v.Err)
					}
				}
				swapped := []signature.Check{{Format: signature.Sigstore, Message: []byte("two"), Signature: prims[0].Signature}}
				if v := k.Check(t.Context(), swapped)[0]; !errors.Is(v.Err, signature.ErrInvalid) {
					t.Errorf("%T takes a signature over another message: %v", k, v.Err)
				}
			}
		})
	}
}

func TestSignerPinsTheLatestVersionWhereItMayRead(t *testing.T) {
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	srv.RotateKey(t, key)
	s, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/"+key, "update", "transit/keys/"+key, "read"))
	g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: key})
	if err != nil {
		t.Fatal(err)
	}
	srv.RotateKey(t, key)
	prims, err := g.Sign(t.Context(), messages("m"))
	if err != nil {
		t.Fatal(err)
	}
	if id := g.ID(); prims[0].KeyVersion != 2 || id.Version != 2 || id.Type != signature.ECDSAP256 || len(id.SPKI) == 0 {
		t.Errorf("a rotation changed the key: signed by %d, %+v", prims[0].KeyVersion, id)
	}
	local, err := signature.ParsePublicKeys("k", srv.PublicKeyPEM(t, key, 2))
	if err != nil {
		t.Fatal(err)
	}
	v := local.Check(t.Context(), []signature.Check{{Format: signature.Sigstore, Message: []byte("m"), Signature: prims[0].Signature}})[0]
	if v.Err != nil || string(v.SPKI) != string(g.ID().SPKI) {
		t.Errorf("the SPKI is not that of the key that signed: %v", v.Err)
	}
}

func TestSignerUsesAPinnedVersion(t *testing.T) {
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ed25519")
	srv.RotateKey(t, key)
	for _, token := range []string{srv.RootToken, limited(t, srv, "transit/sign/"+key, "update")} {
		s, _ := open(t, srv.VaultAddr, token)
		g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: key, Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		prims, err := g.Sign(t.Context(), messages("m"))
		if err != nil || prims[0].KeyVersion != 1 {
			t.Errorf("%+v, %v", prims, err)
		}
	}
	root, _ := open(t, srv.VaultAddr, srv.RootToken)
	_, err := root.Signer(t.Context(), KeyRef{Mount: "transit", Name: key, Version: 3})
	wantKind(t, err, KeyNotFound)
	blind, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/"+key, "update"))
	g, err := blind.Signer(t.Context(), KeyRef{Mount: "transit", Name: key, Version: 3})
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Sign(t.Context(), messages("m"))
	wantKind(t, err, KeyNotFound)
	srv.Write(t, "transit/keys/"+key+"/config", map[string]any{"min_encryption_version": 2})
	again, _ := open(t, srv.VaultAddr, srv.RootToken)
	_, err = again.Signer(t.Context(), KeyRef{Mount: "transit", Name: key, Version: 1})
	wantKind(t, err, KeyUnsuitable)
}

// The user sees what to do whether or not the token may read the key.
func TestSignerNamesAKeyThatCannotSign(t *testing.T) {
	srv := servertest.SharedStack(t)
	aes, derived := name(t)+"-aes", name(t)+"-derived"
	srv.Write(t, "transit/keys/"+aes, map[string]any{})
	srv.Write(t, "transit/keys/"+derived, map[string]any{"type": "ed25519", "derived": true})
	for _, token := range []string{srv.RootToken, limited(t, srv, "transit/sign/*", "update")} {
		s, _ := open(t, srv.VaultAddr, token)
		_, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: aes})
		e := wantKind(t, err, KeyUnsuitable, token)
		if want := "vault write transit/keys/" + aes + "-signing type=ecdsa-p256"; !strings.Contains(e.Error(), "aes256-gcm96") || e.Hint != want {
			t.Errorf("%v; hint %q", e, e.Hint)
		}
		g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: derived})
		if err == nil { // only the attempt shows it to a token that cannot read
			_, err = g.Sign(t.Context(), messages("m"))
		}
		wantKind(t, err, KeyUnsuitable, token)
	}
	v, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/verify/*", "update"))
	for _, key := range []string{aes, derived} {
		verdict := v.Key(KeyRef{Mount: "transit", Name: key}).Check(t.Context(), []signature.Check{{Format: signature.Sigstore, Message: []byte("m"), Signature: make([]byte, 64)}})[0]
		if e := wantKind(t, verdict.Err, KeyUnsuitable); errors.Is(verdict.Err, signature.ErrInvalid) {
			t.Errorf("a key that was not asked refused: %v", e)
		}
	}
}

func TestSignerSaysWhatIsMissing(t *testing.T) {
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	for _, tc := range []struct {
		rules    []string
		ref      KeyRef
		kind     Kind
		contains string
		hint     string
	}{
		{[]string{"transit/verify/" + key, "update"}, KeyRef{Mount: "transit", Name: key}, Denied, `"update" on transit/sign/` + key, ""},
		{[]string{"transit/keys/" + key, "read"}, KeyRef{Mount: "transit", Name: key}, Denied, `"update" on transit/sign/` + key, ""},
		{[]string{"transit/sign/*", "update"}, KeyRef{Mount: "transit", Name: "nokey"}, KeyNotFound, "no key nokey in transit/", "vault write transit/keys/nokey type=ecdsa-p256"},
		{[]string{"transit/keys/*", "read"}, KeyRef{Mount: "transit", Name: "nokey"}, KeyNotFound, "no key nokey in transit/", "vault write transit/keys/nokey type=ecdsa-p256"},
		{[]string{"none/here/sign/*", "update"}, KeyRef{Mount: "none/here", Name: key}, KeyNotFound, "nothing is mounted at none/here/", "vault secrets enable -path=none/here transit"},
		{[]string{"transit/sign/*", "update"}, KeyRef{Mount: "transit", Name: key, Namespace: "nowhere"}, KeyNotFound, "namespace not found", ""},
	} {
		token := limited(t, srv, tc.rules...)
		s, _ := open(t, srv.VaultAddr, token)
		_, err := s.Signer(t.Context(), tc.ref)
		e := wantKind(t, err, tc.kind, token)
		if !strings.Contains(e.Error(), tc.contains) || e.Hint != tc.hint {
			t.Errorf("%v: %v; hint %q", tc.rules, e, e.Hint)
		}
	}
}

// A sign request with an empty batch is how capability is asked for. It must
// not be able to sign.
func TestSignerAsksWithoutSigning(t *testing.T) {
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "rsa-2048")
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	s, _ := open(t, proxy.URL, limited(t, srv, "transit/sign/"+key, "update"))
	if _, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: key}); err != nil {
		t.Fatal(err)
	}
	if proxy.Count("transit/sign/"+key) != 1 || proxy.Count("transit/keys/"+key) != 1 || len(proxy.Requests()) != 3 {
		t.Errorf("requests: %+v", proxy.Requests())
	}
}

// Who signs at once and knows the key asks nothing but for the signature, and what
// Vault signs with another type of key is not taken for it.
func TestSignerAtOnceAsksForTheSignatureAlone(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	srv.TransitKey(t, name(t)+"-rsa", "rsa-2048")
	s, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/"+name(t), "update"))
	ref := KeyRef{Mount: "transit", Name: name(t)}
	spki := func(key string) []byte {
		block, _ := pem.Decode(srv.PublicKeyPEM(t, key, 1))
		return block.Bytes
	}
	before := s.Requests()
	g, err := s.SignerWith(t.Context(), ref, SignerOptions{AtOnce: true, SPKI: spki(name(t))})
	if err != nil {
		t.Fatal(err)
	}
	if id := g.ID(); id.Type != signature.ECDSAP256 || s.Requests() != before {
		t.Errorf("%+v after %d requests", id, s.Requests()-before)
	}
	made, err := g.Sign(t.Context(), append(messages("a"), signature.Message{Format: signature.OMS, Bytes: []byte("b")}))
	if err != nil || len(made) != 2 || s.Requests() != before+1 {
		t.Errorf("%v, %v after %d requests", made, err, s.Requests()-before)
	}
	g, err = s.SignerWith(t.Context(), ref, SignerOptions{AtOnce: true, SPKI: spki(name(t) + "-rsa")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Sign(t.Context(), messages("a"))
	wantKind(t, err, Malformed)
	for _, bad := range [][]byte{{1}, {}} {
		_, err := s.SignerWith(t.Context(), ref, SignerOptions{AtOnce: true, SPKI: bad})
		wantKind(t, err, BadConfig)
	}
}

func TestSignerSendsNamespaceAndUserAgent(t *testing.T) {
	srv := servertest.SharedStack(t)
	ns, key := "ns-"+name(t), "k"
	srv.Write(t, "sys/namespaces/"+ns, map[string]any{})
	srv.Write(t, ns+"/sys/mounts/signing/transit", map[string]any{"type": "transit"})
	srv.Write(t, ns+"/signing/transit/keys/"+key, map[string]any{"type": "ecdsa-p384"})
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	ref, err := ParseKeyRef(fmt.Sprintf("hashivault://signing/transit/%s?namespace=%s", key, ns), "")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, proxy.URL, srv.RootToken)
	g, err := s.Signer(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	prims, err := g.Sign(t.Context(), messages("m"))
	if err != nil {
		t.Fatal(err)
	}
	check := []signature.Check{{Format: signature.Sigstore, Message: []byte("m"), Signature: prims[0].Signature}}
	if v := s.Key(ref).Check(t.Context(), check)[0]; v.Err != nil {
		t.Error(v.Err)
	}
	whole, _ := open(t, srv.VaultAddr, srv.RootToken, func(c *Config) { c.Namespace = ns + "/" })
	if v := whole.Key(KeyRef{Mount: "signing/transit", Name: key}).Check(t.Context(), check)[0]; v.Err != nil {
		t.Error(v.Err)
	}
	for _, r := range proxy.Requests() {
		want := ns
		if strings.Contains(r.Path, "lookup-self") {
			want = ""
		}
		if r.Header.Get("X-Vault-Namespace") != want || r.Header.Get("User-Agent") != "aegis-oci/test" || r.Header.Get("X-Vault-Request") != "true" {
			t.Errorf("%s: %v", r.Path, r.Header)
		}
	}
}

// No variable of Vault's reaches a request.
func TestEnvironmentIsNotRead(t *testing.T) {
	srv := servertest.SharedStack(t)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	t.Setenv("VAULT_TOKEN", "s.fromtheenvironment")
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	t.Setenv("VAULT_HEADERS", `{"X-From-Env":"yes"}`)
	t.Setenv("VAULT_WRAP_TTL", "5m")
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:1")
	open(t, proxy.URL, srv.RootToken)
	for _, r := range proxy.Requests() {
		if h := r.Header; h.Get("X-Vault-Token") != srv.RootToken || h.Get("X-Vault-Namespace") != "" || h.Get("X-From-Env") != "" || h.Get("X-Vault-Wrap-TTL") != "" {
			t.Errorf("%s: %v", r.Path, h)
		}
	}
	if proxy.Count("") != 1 {
		t.Errorf("%d requests", proxy.Count(""))
	}
}
