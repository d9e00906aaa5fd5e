// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"sync"
)

// Session is one command's use of one Vault: a connection and a token. It is
// safe for concurrent use. Close it.
type Session struct {
	cfg    Config
	client *Client
	source TokenSource

	mu    sync.Mutex
	token Token
	infos map[string]*infoEntry
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
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	s.token = t
	cfg.Logger.Debug("vault token", "origin", t.Origin, "obtained", t.Obtained)
	if err := s.inspect(ctx); err != nil {
		s.Close(ctx)
		return nil, err
	}
	return s, nil
}

// Close revokes a token that was obtained for this session. It works after ctx
// is done, within ten seconds; a failure is reported through Config.Warn only.
func (s *Session) Close(ctx context.Context) {
	s.mu.Lock()
	t := s.token
	s.token = Token{Origin: t.Origin}
	s.mu.Unlock()
	s.revoke(ctx, t)
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

// do sends cl with the session's token. When the token is refused and its source
// may hold a newer one, that one is tried once; what stays refused is explained,
// unless cl is optional.
func (s *Session) do(ctx context.Context, cl call) (answer, error) {
	t := s.currentToken()
	cl.token = t.secret()
	a, err := s.client.do(ctx, cl)
	if !isRefusal(err) {
		return a, err
	}
	if fresh, ok := s.reread(ctx, t); ok {
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

const lookupSelf = "auth/token/lookup-self"

func isRefusal(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Kind == Denied || e.Kind == TokenInvalid)
}

func (s *Session) reread(ctx context.Context, old Token) (Token, bool) {
	if !old.Reread {
		return Token{}, false
	}
	fresh, err := s.source.Token(ctx, s.client)
	if err != nil || fresh.check() != nil || fresh.secret() == old.secret() {
		return Token{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = fresh
	return fresh, true
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
	_, _, probe := s.client.send(ctx, call{op: cl.op, path: lookupSelf, namespace: s.cfg.Namespace, token: cl.token})
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
	return &Error{Op: e.Op, Path: e.Path, Kind: TokenInvalid, Status: e.Status,
		Detail: "the one from " + s.TokenOrigin() + " is unknown, expired, revoked or bound to another address"}
}
