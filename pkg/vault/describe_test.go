// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// TestAuditHashIsWhatTheDeviceWrites looks for the hash of a text in the log of
// the request that sent it.
func TestAuditHashIsWhatTheDeviceWrites(t *testing.T) {
	t.Parallel()
	srv := servertest.Stack(t)
	s, _ := open(t, srv.VaultAddr, limited(t, srv, "sys/audit-hash/file", "update"))
	hash, err := s.AuditHash(t.Context(), "/file/", "vault:v1:MEUC")
	if err != nil {
		t.Fatal(err)
	}
	srv.TransitKey(t, "k", "ecdsa-p256")
	srv.Do(t, http.MethodPut, "transit/verify/k", srv.RootToken, map[string]any{"input": "YQ==", "signature": "vault:v1:MEUC"})
	found := slices.ContainsFunc(srv.AuditEntries(t), func(e map[string]any) bool {
		request, _ := e["request"].(map[string]any)
		data, _ := request["data"].(map[string]any)
		return request["path"] == "transit/verify/k" && data["signature"] == hash
	})
	if !found {
		t.Errorf("%s is not in the log", hash)
	}

	_, err = s.AuditHash(t.Context(), "other", "x")
	if e := wantKind(t, err, Denied); e.Path != "sys/audit-hash/other" || e.Capability != "update" {
		t.Errorf("%+v", e)
	}
	for _, device := range []string{"", "..", "a/../b", "a b", "a?b"} {
		_, err = s.AuditHash(t.Context(), device, "x")
		wantKind(t, err, BadConfig)
	}
	root, _ := open(t, srv.VaultAddr, srv.RootToken)
	_, err = root.AuditHash(t.Context(), "other", "x")
	wantKind(t, err, BadRequest)
}

func TestAuditHashRefusesWhatIsNoHash(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	p := servertest.FaultProxy(t, srv.VaultAddr)
	s, _ := open(t, p.URL, srv.RootToken)
	for _, body := range []string{`{"data":{}}`, `{"data":{"hash":"vault:v1:MEUC"}}`, `{"data":{"hash":"hmac-sha256:XYZ"}}`, `{}`} {
		p.Reset()
		p.Fail(servertest.Fault{Path: "audit-hash", Status: http.StatusOK, Body: body})
		_, err := s.AuditHash(t.Context(), "file", "x")
		wantKind(t, err, Malformed)
	}
}

func TestCheckHealthNeedsNoToken(t *testing.T) {
	t.Parallel()
	srv := servertest.Stack(t)
	cfg := Config{Address: srv.VaultAddr}
	h, err := CheckHealth(t.Context(), cfg)
	if err != nil || h.Version != "2.4.0" || !h.Initialized || h.Sealed || h.Standby || h.TLS || time.Since(h.Date).Abs() > time.Minute {
		t.Fatalf("%+v, %v", h, err)
	}
	srv.Seal(t)
	if h, err = CheckHealth(t.Context(), cfg); err != nil || !h.Sealed || h.Version != "2.4.0" {
		t.Fatalf("%+v, %v", h, err)
	}
	p := servertest.FaultProxy(t, srv.VaultAddr)
	for body, want := range map[string]Kind{"<html>": Malformed, `{"version":"1"}`: Malformed, `{"initialized":true,"version":"\u001b[31m"}`: Malformed} {
		p.Reset()
		p.Fail(servertest.Fault{Status: http.StatusOK, Body: body})
		_, err = CheckHealth(t.Context(), Config{Address: p.URL})
		wantKind(t, err, want)
	}
	p.Reset()
	p.Fail(servertest.Fault{Status: http.StatusBadGateway})
	_, err = CheckHealth(t.Context(), Config{Address: p.URL})
	wantKind(t, err, Unavailable)
	p.Down()
	_, err = CheckHealth(t.Context(), Config{Address: p.URL})
	wantKind(t, err, Unreachable)
	_, err = CheckHealth(t.Context(), Config{Address: "http://vault.example.com"})
	wantKind(t, err, Insecure)
}

func TestMaySignAndMayVerifySignNothing(t *testing.T) {
	t.Parallel()
	srv := servertest.Stack(t)
	srv.TransitKey(t, "k", "ecdsa-p256")
	srv.TransitKey(t, "aes", "aes256-gcm96")
	ref := func(name string) KeyRef { return KeyRef{Mount: "transit", Name: name} }
	signer, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/sign/+", "update"))
	verifier, _ := open(t, srv.VaultAddr, limited(t, srv, "transit/verify/+", "update"))
	ctx := context.Background()
	if err := signer.MaySign(ctx, ref("k")); err != nil {
		t.Error(err)
	}
	if err := verifier.MayVerify(ctx, ref("k")); err != nil {
		t.Error(err)
	}
	wantKind(t, signer.MayVerify(ctx, ref("k")), Denied)
	wantKind(t, verifier.MaySign(ctx, ref("k")), Denied)
	wantKind(t, signer.MaySign(ctx, ref("aes")), KeyUnsuitable)
	wantKind(t, signer.MaySign(ctx, ref("none")), KeyNotFound)
	wantKind(t, verifier.MayVerify(ctx, ref("aes")), KeyUnsuitable)
	wantKind(t, verifier.MayVerify(ctx, ref("none")), KeyNotFound)
	for _, typ := range []string{"ecdsa-p384", "ecdsa-p521", "rsa-2048", "ed25519"} {
		srv.TransitKey(t, typ, typ)
		for range 2 {
			srv.RotateKey(t, typ)
		}
		srv.Write(t, "transit/keys/"+typ+"/config", map[string]any{"min_decryption_version": 3})
		if err := verifier.MayVerify(ctx, ref(typ)); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
	}
	for _, e := range srv.AuditEntries(t) {
		request, _ := e["request"].(map[string]any)
		path, _ := request["path"].(string)
		response, _ := e["response"].(map[string]any)
		data, _ := response["data"].(map[string]any)
		if strings.HasPrefix(path, "transit/sign/") && (data["signature"] != nil || data["batch_results"] != nil) {
			t.Errorf("something was signed: %v", e)
		}
	}
}
