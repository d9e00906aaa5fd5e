// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Session is one command's use of one Vault: a connection and a token. It is
// safe for concurrent use. Close it.
type Session struct {
	cfg    Config
	client *Client
	source TokenSource

	mu     sync.Mutex
	token  Token
	until  time.Time // when an obtained token ends, zero for never or unknown
	uses   int       // requests that the token is still good for, if limited
	bound  bool      // uses counts
	logins int
	tired  bool // renewing has failed and was warned of
	infos  map[string]*infoEntry

	// renewal has one caller at a time make the token anew.
	renewal sync.Mutex
}

// Open checks the settings, takes a token from src and looks at its lifetime.
// It fails with an *Error: BadConfig or Insecure before anything is sent.
func Open(ctx context.Context, cfg Config, src TokenSource) (*Session, error) {
	cfg = cfg.withDefaults()
	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, client: client, source: src, infos: make(map[string]*infoEntry)}
	t, err := src.Token(ctx, client)
	if err != nil {
		client.base.CloseIdleConnections()
		return nil, err
	}
	s.install(t)
	if err := t.check(); err != nil {
		s.Close(ctx)
		return nil, err
	}
	cfg.Logger.Debug("vault token", "origin", t.Origin, "obtained", t.Obtained, "ttl", t.TTL, "uses", t.NumUses)
	if err := ctx.Err(); err != nil {
		s.Close(ctx)
		return nil, &Error{Op: "open Vault", Kind: Unreachable, Detail: err.Error(), Err: context.Cause(ctx)}
	}
	if err := s.inspect(ctx); err != nil {
		s.Close(ctx)
		return nil, err
	}
	return s, nil
}

// install makes t the session's token.
func (s *Session) install(t Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.until = t, time.Time{}
	s.uses, s.bound = t.NumUses, t.NumUses > 0
	if t.Obtained {
		s.logins++
		if t.TTL > 0 {
			s.until = s.cfg.Now().Add(t.TTL)
		}
	}
}

// Close revokes a token that was obtained for this session. It works after ctx
// is done, within ten seconds; a failure is reported through Config.Warn only.
func (s *Session) Close(ctx context.Context) {
	s.mu.Lock()
	t, spent := s.token, s.bound && s.uses <= 0
	s.token = Token{Origin: t.Origin}
	s.mu.Unlock()
	if !spent { // with its last use the token was revoked by Vault
		s.revoke(ctx, t)
	}
	s.client.base.CloseIdleConnections()
}

// Requests is the number of HTTP requests sent so far, repeated ones included.
func (s *Session) Requests() int { return int(s.client.requests.Load()) }

// TokenOrigin says where the token came from.
func (s *Session) TokenOrigin() string { return s.currentToken().Origin }

func (s *Session) currentToken() Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// public makes what a server said inside an answer fit to be shown.
func (s *Session) public(text string) string { return public(text, s.currentToken().secret()) }

// do sends cl with the session's token. When the token is refused and another can
// be had, that one is tried once; what stays refused is explained, unless cl is
// optional.
func (s *Session) do(ctx context.Context, cl call) (answer, error) {
	t, err := s.usable(ctx, cl)
	if err != nil {
		return answer{}, err
	}
	cl.token = t.secret()
	a, err := s.client.do(ctx, cl)
	if !isRefusal(err) {
		return a, s.absent(t, err)
	}
	if fresh, ok := s.another(ctx, t, err); ok {
		cl.token = fresh.secret()
		if a, err = s.client.do(ctx, cl); !isRefusal(err) {
			return a, err
		}
	}
	if cl.optional {
		return answer{}, err
	}
	return answer{}, s.explain(ctx, cl, err)
}

// absent says what a listener lacks that was to add a token and did not.
func (s *Session) absent(t Token, err error) error {
	if e := (*Error)(nil); t.Elsewhere && errors.As(err, &e) && e.Kind == NoToken {
		e.Detail, e.Hint = "the listener added none", listenerHint
	}
	return err
}

const listenerHint = "the Vault Agent or Proxy needs auto_auth, and use_auto_auth_token = true for this listener"

const lookupSelf = "auth/token/lookup-self"

func isRefusal(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Kind == Denied || e.Kind == TokenInvalid)
}

// explain tells a token that is not valid from one that lacks a capability.
// Vault says "invalid token" to the first. OpenBao says "permission denied" to
// both, to the second within "1 error occurred", as Vault does. Where the words
// leave it open, lookup-self decides: it knows every valid token, and what it
// says to one whose policies deny it is not vague.
func (s *Session) explain(ctx context.Context, cl call, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Kind != Denied || !e.vague {
		return err
	}
	_, _, probe := s.client.send(ctx, call{op: cl.op, path: lookupSelf, namespace: s.cfg.AuthNamespace, token: cl.token})
	switch {
	case probe == nil, probe.Kind == Denied && !probe.vague:
	case probe.Kind == Denied, probe.Kind == TokenInvalid:
		return s.invalidToken(e)
	default:
		e.Detail = "or its token is not valid, which could not be told"
	}
	return e
}

func (s *Session) invalidToken(e *Error) *Error {
	t := s.currentToken()
	if t.Elsewhere {
		return &Error{Op: e.Op, Path: e.Path, Kind: NoToken, Status: e.Status, Detail: "the listener added none that is valid", Hint: listenerHint}
	}
	return &Error{Op: e.Op, Path: e.Path, Kind: TokenInvalid, Status: e.Status,
		Detail: "the one from " + t.Origin + " is unknown, expired, revoked or bound to another address"}
}
