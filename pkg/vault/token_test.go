// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// childOf obtains a token as a login method will: by a request through the
// session's client.
type childOf struct {
	parent string
	opts   map[string]any
	got    string
}

func (c *childOf) Token(ctx context.Context, client *Client) (Token, error) {
	a, err := client.do(ctx, call{op: "log in", path: "auth/token/create", body: c.opts, token: c.parent, once: true})
	if err != nil {
		return Token{}, err
	}
	t, err := obtained(a, "a login")
	c.got = t.secret()
	return t, err
}

func alive(t *testing.T, srv *servertest.Server, token string) bool {
	t.Helper()
	status, _ := srv.Do(t, http.MethodPut, "auth/token/lookup", srv.RootToken, map[string]any{"token": token})
	return status == http.StatusOK
}

func TestAnObtainedTokenIsRevokedAndAGivenOneIsNot(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	src := &childOf{parent: srv.RootToken, opts: map[string]any{"ttl": "10m", "policies": []string{"default"}}}
	w := &world{}
	s, err := Open(t.Context(), w.config(srv.VaultAddr), src)
	if err != nil {
		t.Fatal(err)
	}
	if !alive(t, srv, src.got) || s.TokenOrigin() != "a login" {
		t.Fatal("the token does not live")
	}
	// The command may have been cancelled by the time it cleans up.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Close(ctx)
	s.Close(ctx)
	if alive(t, srv, src.got) || len(w.warns) != 0 {
		t.Errorf("the obtained token outlives its session; warnings %q", w.warns)
	}
	given := srv.Token(t, map[string]any{"ttl": "10m"})
	s, _ = open(t, srv.VaultAddr, given)
	s.Close(t.Context())
	if !alive(t, srv, given) {
		t.Error("a given token was revoked")
	}
}

func TestAFailedRevocationIsAWarning(t *testing.T) {
	srv := servertest.SharedStack(t)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	proxy.Fail(servertest.Fault{Path: "revoke-self", Status: 403, Body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`})
	src := &childOf{parent: srv.RootToken, opts: map[string]any{"ttl": "10m", "policies": []string{"default"}}}
	w := &world{}
	s, err := Open(t.Context(), w.config(proxy.URL), src)
	if err != nil {
		t.Fatal(err)
	}
	s.Close(t.Context())
	if len(w.warns) != 1 || !strings.Contains(w.warns[0], "not revoked") || strings.Contains(w.warns[0], src.got) {
		t.Errorf("%q", w.warns)
	}
	batch := &childOf{parent: srv.RootToken, opts: map[string]any{"ttl": "10m", "type": "batch", "policies": []string{"default"}}}
	if s, err = Open(t.Context(), w.config(proxy.URL), batch); err != nil {
		t.Fatal(err)
	}
	before := proxy.Count("revoke-self")
	s.Close(t.Context())
	if n := proxy.Count("revoke-self") - before; n != 0 {
		t.Errorf("%d requests to revoke a batch token", n)
	}
}

// A refused obtained token must not stay behind either.
func TestOpenRevokesWhatItRefuses(t *testing.T) {
	srv := servertest.SharedStack(t)
	src := &childOf{parent: srv.RootToken, opts: map[string]any{"ttl": "24h"}}
	w := &world{}
	cfg := w.config(srv.VaultAddr)
	cfg.RequireShortLived = true
	_, err := Open(t.Context(), cfg, src)
	wantKind(t, err, LongLived, src.got)
	if src.got == "" || alive(t, srv, src.got) {
		t.Error("the refused token lives on")
	}
}

func TestLongLivedTokensAreReportedOrRefused(t *testing.T) {
	srv := servertest.SharedStack(t)
	for _, tc := range []struct {
		name, token, complaint string
		refused                bool
	}{
		{"root", srv.RootToken, "is a root token", true},
		{"root with a ttl", srv.Token(t, map[string]any{"ttl": "10m", "policies": []string{"root"}}), "is a root token", true},
		{"a day", srv.Token(t, map[string]any{"ttl": "24h", "policies": []string{"default"}}), "more than 1h0m0s", true},
		{"short", srv.Token(t, map[string]any{"ttl": "10m", "policies": []string{"default"}}), "", false},
		{"batch", srv.Token(t, map[string]any{"ttl": "10m", "type": "batch", "policies": []string{"default"}}), "", false},
		// Its lifetime cannot be read: nothing to report, too little to trust.
		{"unknown", limited(t, srv, "transit/sign/x", "update"), "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, w := open(t, srv.VaultAddr, tc.token)
			if got := strings.Join(w.warns, ";"); tc.complaint == "" && got != "" || !strings.Contains(got, tc.complaint) {
				t.Errorf("warnings %q", got)
			}
			cfg := w.config(srv.VaultAddr)
			cfg.RequireShortLived = true
			s, err := Open(t.Context(), cfg, StaticToken(tc.token, "VAULT_TOKEN"))
			if tc.refused {
				e := wantKind(t, err, LongLived, tc.token)
				if s != nil || !strings.Contains(e.Error(), "VAULT_TOKEN") {
					t.Errorf("%v", e)
				}
			} else if err != nil {
				t.Error(err)
			} else {
				s.Close(t.Context())
			}
		})
	}
}

func TestJudgeReportsATokenThatNeverExpires(t *testing.T) {
	s := &Session{cfg: Config{RequireShortLived: true}.withDefaults()}
	wantKind(t, s.judge("op", NewToken("x", "flag"), lookup{Policies: []string{"default"}}), LongLived)
	wantKind(t, s.judge("op", NewToken("x", "flag"), lookup{TTL: 1 << 62}), LongLived)
}

func TestInvalidTokens(t *testing.T) {
	srv := servertest.SharedStack(t)
	revoked := srv.Token(t, map[string]any{"ttl": "10m"})
	srv.Write(t, "auth/token/revoke", map[string]any{"token": revoked})
	for _, tc := range []struct {
		token string
		kind  Kind
	}{
		{"", NoToken}, {"  \n", NoToken}, {"hvs.a b", TokenInvalid}, {"hvs.a\x01b", TokenInvalid},
		{"hvs.thistokenneverexisted", TokenInvalid}, {revoked, TokenInvalid},
	} {
		w := &world{}
		_, err := Open(t.Context(), w.config(srv.VaultAddr), StaticToken(tc.token, "VAULT_TOKEN"))
		e := wantKind(t, err, tc.kind, strings.TrimSpace(tc.token))
		if !strings.Contains(e.Error(), "VAULT_TOKEN") {
			t.Errorf("%v does not say which token", e)
		}
	}
}

// A token that dies in the middle is told from one that lacks a capability.
func TestATokenRevokedMidwayIsNamed(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	token := limited(t, srv, "transit/sign/"+name(t), "update")
	s, _ := open(t, srv.VaultAddr, token)
	g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: name(t)})
	if err != nil {
		t.Fatal(err)
	}
	srv.Write(t, "auth/token/revoke", map[string]any{"token": token})
	_, err = g.Sign(t.Context(), messages("m"))
	wantKind(t, err, TokenInvalid, token)
}

func TestTokenFileIsReadAgainWhenItsTokenIsRefused(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	first, second := srv.Token(t, map[string]any{"ttl": "10m"}), srv.Token(t, map[string]any{"ttl": "10m"})
	file := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first + "\n")
	w := &world{}
	s, err := Open(t.Context(), w.config(srv.VaultAddr), TokenFile(file))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: name(t)})
	if err != nil || s.TokenOrigin() != file {
		t.Fatal(err)
	}
	srv.Write(t, "auth/token/revoke", map[string]any{"token": first})
	write(second)
	if _, err := g.Sign(t.Context(), messages("m")); err != nil {
		t.Errorf("with a fresh token in the file: %v", err)
	}
	srv.Write(t, "auth/token/revoke", map[string]any{"token": second})
	_, err = g.Sign(t.Context(), messages("m"))
	wantKind(t, err, TokenInvalid, first, second)
	write("")
	_, err = g.Sign(t.Context(), messages("m"))
	wantKind(t, err, TokenInvalid, first, second)
}

// What would not have been taken at the beginning is not taken later either.
func TestANewerTokenIsJudgedAsTheFirstWas(t *testing.T) {
	srv := servertest.SharedStack(t)
	srv.TransitKey(t, name(t), "ecdsa-p256")
	srv.Policy(t, name(t), `path "transit/sign/`+name(t)+`" { capabilities = ["update"] }`)
	for _, require := range []bool{true, false} {
		first := srv.Token(t, map[string]any{"ttl": "10m", "policies": []string{name(t)}})
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(first), 0o600); err != nil {
			t.Fatal(err)
		}
		w := &world{}
		cfg := w.config(srv.VaultAddr)
		cfg.RequireShortLived = require
		s, err := Open(t.Context(), cfg, TokenFile(file))
		if err != nil {
			t.Fatal(err)
		}
		g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: name(t)})
		if err != nil {
			t.Fatal(err)
		}
		srv.Write(t, "auth/token/revoke", map[string]any{"token": first})
		if err := os.WriteFile(file, []byte(srv.RootToken), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = g.Sign(t.Context(), messages("m"))
		if require {
			wantKind(t, err, TokenInvalid, first, srv.RootToken)
		} else if err != nil {
			t.Errorf("a root token that is only reported: %v", err)
		}
		if said := strings.Join(w.warns, "\n"); !strings.Contains(said, "root token") {
			t.Errorf("warnings %q", w.warns)
		}
		s.Close(t.Context())
	}
}

func TestTokenFileErrors(t *testing.T) {
	dir := t.TempDir()
	long, empty := filepath.Join(dir, "long"), filepath.Join(dir, "empty")
	for file, size := range map[string]int{long: maxTokenFile + 1, empty: 0} {
		if err := os.WriteFile(file, []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, kind := range map[string]Kind{filepath.Join(dir, "none"): NoToken, dir: BadConfig, long: BadConfig, empty: NoToken} {
		w := &world{}
		_, err := Open(t.Context(), w.config("http://127.0.0.1:1"), TokenFile(file))
		if e := wantKind(t, err, kind); !strings.Contains(e.Error(), file) {
			t.Errorf("%v", e)
		}
	}
}

func TestATokenDoesNotPrintItsValue(t *testing.T) {
	tok := NewToken("hvs.secret", "VAULT_TOKEN")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{tok, &tok, StaticToken("hvs.secret", "VAULT_TOKEN"), &Session{token: tok}} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "hvs.secret") {
				t.Errorf("%s: %s", verb, got)
			}
		}
	}
}

// A login's request is not sent twice: its outcome would be unknown.
func TestALoginIsNotRepeated(t *testing.T) {
	srv := servertest.SharedStack(t)
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	proxy.Fail(servertest.Fault{Path: "auth/token/create", Status: 503, Delay: time.Millisecond})
	w := &world{}
	_, err := Open(t.Context(), w.config(proxy.URL), &childOf{parent: srv.RootToken})
	wantKind(t, err, Unavailable, srv.RootToken)
	if n := proxy.Count("auth/token/create"); n != 1 || len(w.clock.waits) != 0 {
		t.Errorf("%d requests", n)
	}
}
