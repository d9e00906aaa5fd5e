// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// rotated makes a key with the given number of versions, and a check that each
// of them signed.
func rotated(t *testing.T, srv *servertest.Server, typ string, versions int) (KeyRef, []signature.Check) {
	t.Helper()
	key := name(t)
	srv.TransitKey(t, key, typ)
	var checks []signature.Check
	for v := 1; v <= versions; v++ {
		if v > 1 {
			srv.RotateKey(t, key)
		}
		checks = append(checks, sign(t, srv, key, v, fmt.Sprintf("by version %d", v))...)
	}
	return KeyRef{Mount: "transit", Name: key}, checks
}

// foreign makes checks that another key of the type signed.
func foreign(t *testing.T, srv *servertest.Server, typ string, n, hint int) []signature.Check {
	t.Helper()
	key := name(t) + "-foreign"
	srv.TransitKey(t, key, typ)
	checks := make([]signature.Check, 0, n)
	for i := range n {
		if i%100 == 0 {
			checks = append(checks, sign(t, srv, key, 0, slices.Collect(func(yield func(string) bool) {
				for j := i; j < min(i+100, n); j++ {
					if !yield(fmt.Sprintf("foreign %d", j)) {
						return
					}
				}
			})...)...)
		}
	}
	for i := range checks {
		checks[i].VersionHint = hint
	}
	return checks
}

func verifyOnly(t *testing.T, srv *servertest.Server) string {
	return limited(t, srv, "transit/verify/*", "update")
}

func TestKeyFindsTheVersionThatSigned(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, checks := rotated(t, srv, "ecdsa-p256", 3)
	misled := slices.Clone(checks)
	misled[0].VersionHint, misled[1].VersionHint, misled[2].VersionHint = 3, 999, 1
	for _, tc := range []struct {
		name   string
		token  string
		checks []signature.Check
		asked  int // requests to transit/verify
	}{
		{"read, hinted", srv.RootToken, checks, 1},
		{"read, unhinted", srv.RootToken, unhinted(checks), 1},
		{"read, misled", srv.RootToken, misled, 2},
		{"verify only, hinted", verifyOnly(t, srv), checks, 1},
		{"verify only, unhinted", verifyOnly(t, srv), unhinted(checks), 1},
		{"verify only, misled", verifyOnly(t, srv), misled, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			proxy := servertest.FaultProxy(t, srv.VaultAddr)
			s, _ := open(t, proxy.URL, tc.token)
			for i, v := range s.Key(ref).Check(t.Context(), tc.checks) {
				if v.Err != nil || v.KeyVersion != i+1 {
					t.Errorf("check %d: version %d, %v", i, v.KeyVersion, v.Err)
				}
			}
			if n := proxy.Count("transit/verify/"); n != tc.asked {
				t.Errorf("%d requests to verify, want %d", n, tc.asked)
			}
		})
	}
}

func TestKeyTellsSPKIAndTypeOfAReadableKey(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, checks := rotated(t, srv, "rsa-2048", 2)
	s, _ := open(t, srv.VaultAddr, srv.RootToken)
	k := s.Key(ref)
	if id := k.ID(); id.Type != signature.KeyUnknown || k.Local() {
		t.Errorf("known before a request: %+v", id)
	}
	pems, err := s.PublicKeys(t.Context(), ref)
	if err != nil || len(pems) != 2 || string(pems[2]) != string(srv.PublicKeyPEM(t, ref.Name, 2)) {
		t.Fatalf("%d public keys, %v", len(pems), err)
	}
	for i, v := range k.Check(t.Context(), checks) {
		local, err := signature.ParsePublicKeys("k", pems[i+1])
		if err != nil || v.Err != nil || string(v.SPKI) != string(local.ID().SPKI) {
			t.Errorf("version %d: %v, %v", i+1, err, v.Err)
		}
	}
	if id := k.ID(); id.Type != signature.RSA2048 || id.Version != 2 || len(id.SPKI) == 0 {
		t.Errorf("%+v", id)
	}
	blind, _ := open(t, srv.VaultAddr, verifyOnly(t, srv))
	_, err = blind.PublicKeys(t.Context(), ref)
	if e := wantKind(t, err, Denied); e.Path != "transit/keys/"+ref.Name || e.Capability != "read" {
		t.Errorf("%+v", e)
	}
}

func TestKeyHoldsToAPinnedVersion(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, checks := rotated(t, srv, "ecdsa-p384", 2)
	ref.Version = 1
	s, _ := open(t, srv.VaultAddr, srv.RootToken)
	v := s.Key(ref).Check(t.Context(), checks)
	if v[0].Err != nil || v[0].KeyVersion != 1 || !errors.Is(v[1].Err, signature.ErrInvalid) {
		t.Errorf("%+v", v)
	}
}

// An old version that its owner has retired verifies nothing, whatever a hint says.
func TestKeyRefusesARetiredVersion(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, checks := rotated(t, srv, "ecdsa-p256", 3)
	srv.Write(t, "transit/keys/"+ref.Name+"/config", map[string]any{"min_decryption_version": 2})
	for _, token := range []string{srv.RootToken, verifyOnly(t, srv)} {
		for _, asked := range [][]signature.Check{checks, unhinted(checks)} {
			s, _ := open(t, srv.VaultAddr, token)
			v := s.Key(ref).Check(t.Context(), asked)
			if !errors.Is(v[0].Err, signature.ErrInvalid) || v[1].Err != nil || v[2].Err != nil {
				t.Errorf("%+v", v)
			}
		}
	}
}

// A key whose versions cannot be listed is searched until they end.
func TestKeySearchesBeyondTheFirstWindow(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, checks := rotated(t, srv, "ed25519", 10)
	asked := append(unhinted(checks[9:]), foreign(t, srv, "ed25519", 1, 0)...)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	s, _ := open(t, proxy.URL, verifyOnly(t, srv))
	v := s.Key(ref).Check(t.Context(), asked)
	if v[0].Err != nil || v[0].KeyVersion != 10 || !errors.Is(v[1].Err, signature.ErrInvalid) {
		t.Errorf("%+v", v)
	}
	if n := proxy.Count("transit/verify/"); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// Where the versions do not end within the limit, "invalid" would be a guess.
func TestKeyDoesNotGuessAboutVersionsItDidNotTry(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, _ := rotated(t, srv, "ed25519", 1)
	for range maxRequests * versionWindow {
		srv.RotateKey(t, ref.Name)
	}
	s, _ := open(t, srv.VaultAddr, verifyOnly(t, srv))
	v := s.Key(ref).Check(t.Context(), foreign(t, srv, "ed25519", 1, 0))
	if e := wantKind(t, v[0].Err, NotAsked); errors.Is(e, signature.ErrInvalid) || e.Hint == "" {
		t.Errorf("%v", e)
	}
}

func TestKeyAsksAboutFiftyCandidatesInOneRequest(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, own := rotated(t, srv, "ecdsa-p256", 1)
	for _, hint := range []int{0, 1} {
		asked := append(foreign(t, srv, "ecdsa-p256", 49, hint), own[0])
		asked[49].VersionHint = hint
		proxy := servertest.FaultProxy(t, srv.VaultAddr)
		s, _ := open(t, proxy.URL, verifyOnly(t, srv))
		for i, v := range s.Key(ref).Check(t.Context(), asked) {
			if refused := errors.Is(v.Err, signature.ErrInvalid); refused != (i < 49) {
				t.Errorf("check %d: %v", i, v.Err)
			}
		}
		// Hinted ones are tried again under other versions, which there are none of.
		if n, want := proxy.Count("transit/verify/"), 1+hint; n != want {
			t.Errorf("hint %d: %d requests, want %d", hint, n, want)
		}
	}
}

func TestKeyBoundsItsRequests(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, own := rotated(t, srv, "ecdsa-p256", 1)
	asked := append(slices.Clone(own), foreign(t, srv, "ecdsa-p256", 1000, 1)...)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	s, _ := open(t, proxy.URL, verifyOnly(t, srv))
	v := s.Key(ref).Check(t.Context(), asked)
	if len(v) != len(asked) || v[0].Err != nil {
		t.Fatalf("%d verdicts, the first %v", len(v), v[0].Err)
	}
	wantKind(t, v[1000].Err, NotAsked)
	if n := proxy.Count("transit/verify/"); n != maxRequests {
		t.Errorf("%d requests", n)
	}
}

// Bytes that no key could have made cost no request.
func TestKeySendsNothingImpossible(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, own := rotated(t, srv, "ecdsa-p256", 1)
	der := own[0].Signature
	long := slices.Clone(der)
	long = append(long, 0)
	var asked []signature.Check
	for _, sig := range [][]byte{nil, {}, der[:len(der)-1], long, make([]byte, 63), make([]byte, 100000), {0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0}} {
		asked = append(asked, signature.Check{Format: signature.Sigstore, Message: own[0].Message, Signature: sig})
	}
	asked = append(asked, signature.Check{Format: "unknown", Message: own[0].Message, Signature: der})
	s, _ := open(t, srv.VaultAddr, verifyOnly(t, srv))
	before := s.Requests()
	for i, v := range s.Key(ref).Check(t.Context(), asked) {
		if !errors.Is(v.Err, signature.ErrInvalid) {
			t.Errorf("check %d: %v", i, v.Err)
		}
	}
	big := []signature.Check{{Format: signature.Sigstore, Message: make([]byte, maxMessageBytes+1), Signature: der}}
	wantKind(t, s.Key(ref).Check(t.Context(), big)[0].Err, NotAsked)
	if n := s.Requests() - before; n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestKeyRefusesSignaturesOfAnotherType(t *testing.T) {
	srv := servertest.SharedStack(t)
	var others []signature.Check
	for _, typ := range keyTypes {
		key := name(t) + "-" + string(typ)
		srv.TransitKey(t, key, string(typ))
		others = append(others, sign(t, srv, key, 0, "m")...)
	}
	for i, typ := range keyTypes {
		ref := KeyRef{Mount: "transit", Name: name(t) + "-" + string(typ)}
		s, _ := open(t, srv.VaultAddr, verifyOnly(t, srv))
		for j, v := range s.Key(ref).Check(t.Context(), others) {
			if i == j && v.Err != nil || i != j && !errors.Is(v.Err, signature.ErrInvalid) {
				t.Errorf("a %s key on a signature by %s: %v", typ, keyTypes[j], v.Err)
			}
		}
	}
}

func TestKeySaysWhatItCouldNotAsk(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, own := rotated(t, srv, "ecdsa-p256", 1)
	token := limited(t, srv, "transit/sign/"+ref.Name, "update")
	s, _ := open(t, srv.VaultAddr, token)
	for _, asked := range [][]signature.Check{own, unhinted(own)} {
		e := wantKind(t, s.Key(ref).Check(t.Context(), asked)[0].Err, Denied, token)
		if e.Path != "transit/verify/"+ref.Name || e.Capability != "update" || e.Status != http.StatusForbidden {
			t.Errorf("%+v", e)
		}
	}
	root, _ := open(t, srv.VaultAddr, srv.RootToken)
	wantKind(t, root.Key(KeyRef{Mount: "transit", Name: "nokey"}).Check(t.Context(), own)[0].Err, KeyNotFound)
	wantKind(t, root.Key(KeyRef{Mount: "nomount", Name: "k"}).Check(t.Context(), unhinted(own))[0].Err, KeyNotFound)
}

// Answers that would turn a refusal of one signature into an acceptance of
// another, or that say nothing, are not believed.
func TestKeyDisbelievesAMalformedBatch(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, own := rotated(t, srv, "ecdsa-p256", 1)
	asked := append(foreign(t, srv, "ecdsa-p256", 1, 1), own...)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	for _, body := range []string{
		`{"data":{"batch_results":[{"valid":true,"reference":"1"},{"valid":false,"reference":"0"}]}}`,
		`{"data":{"batch_results":[{"valid":true,"reference":"0"}]}}`,
		`{"data":{"batch_results":"yes"}}`, `{"data":{"valid":true}}`, `{}`, `[]`, ``, `<html>ok</html>`, `null`,
	} {
		proxy.Reset()
		proxy.Fail(servertest.Fault{Path: "transit/verify/", Status: 200, Body: body})
		s, _ := open(t, proxy.URL, srv.RootToken)
		for _, v := range s.Key(ref).Check(t.Context(), asked) {
			wantKind(t, v.Err, Malformed)
		}
	}
	proxy.Reset()
	proxy.Fail(servertest.Fault{Path: "transit/verify/", Status: 200,
		Body: `{"data":{"batch_results":[{"valid":true,"error":"what is this","reference":"0"},{"error":"1 error occurred: permission denied","reference":"1"}]}}`})
	s, _ := open(t, proxy.URL, srv.RootToken)
	v := s.Key(ref).Check(t.Context(), asked)
	wantKind(t, v[0].Err, BadRequest)
	wantKind(t, v[1].Err, Denied)
}

// Releases that answer 400 to a batch with failed items are understood.
func TestKeyReadsABatchInABadRequest(t *testing.T) {
	srv := servertest.SharedStack(t)
	ref, own := rotated(t, srv, "ecdsa-p256", 1)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	proxy.Fail(servertest.Fault{Path: "transit/verify/", Status: 400,
		Body: `{"data":{"batch_results":[{"error":"supplied signature is invalid","reference":"0"}]}}`})
	s, _ := open(t, proxy.URL, srv.RootToken)
	v := s.Key(ref).Check(t.Context(), own)
	if !errors.Is(v[0].Err, signature.ErrInvalid) || strings.Contains(v[0].Err.Error(), "400") {
		t.Errorf("%v", v[0].Err)
	}
}
