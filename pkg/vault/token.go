// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
)

// maxTokenFile bounds a token file, in bytes; service tokens have about 100.
const maxTokenFile = 64 << 10

// TokenSource yields the token that a Session uses. A login method is one that
// asks c for it.
type TokenSource interface {
	// Token returns a token, or an *Error. It is called once when the session
	// opens, and again when a token that was Reread is refused.
	Token(ctx context.Context, c *Client) (Token, error)
}

// Token is a Vault token and what is known of it. It prints without its value.
type Token struct {
	// A pointer, since fmt prints the fields of what holds a Token in an
	// unexported field without asking String.
	value *string
	// Origin says where it came from, for one line to the user: "VAULT_TOKEN".
	Origin string
	// Obtained marks a token that was made for this session: it is revoked when
	// the session closes. One that was given is left alone.
	Obtained bool
	// TTL is the lifetime that a login's answer stated, for an Obtained token.
	TTL time.Duration
	// NumUses is how many requests an Obtained token is good for, zero for any.
	NumUses int
	// Renewable reports that an Obtained token may ask for a longer life.
	Renewable bool
	// Batch tokens cannot be revoked.
	Batch bool
	// Reread marks a token whose source may hold a newer one by now.
	Reread bool
	// Repeatable marks an Obtained token whose login may be made once more.
	Repeatable bool
	// Elsewhere means that no token is sent: the listener that is asked adds its own.
	Elsewhere bool

	policies []string
}

// NewToken is for TokenSources.
func NewToken(value, origin string) Token { return Token{value: &value, Origin: origin} }

func (t Token) secret() string {
	if t.value == nil {
		return ""
	}
	return *t.value
}

// String names the origin only.
func (t Token) String() string { return "token from " + t.Origin }

// GoString keeps the value out of %#v too.
func (t Token) GoString() string { return t.String() }

func (t Token) check() error {
	switch {
	case t.Elsewhere:
		return nil
	case t.secret() == "":
		return &Error{Op: "open Vault", Kind: NoToken, Detail: t.Origin + " is empty"}
	case strings.ContainsFunc(t.secret(), func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }):
		return &Error{Op: "open Vault", Kind: TokenInvalid, Detail: t.Origin + " holds characters that no token has"}
	}
	return nil
}

type staticToken struct{ token Token }

// StaticToken is a token that the caller was given. origin says where it was
// found: "VAULT_TOKEN", "--vault-token". A session makes two to four requests
// with it, which matters to a token with a limited number of uses.
func StaticToken(value, origin string) TokenSource {
	return staticToken{NewToken(strings.TrimSpace(value), origin)}
}

func (s staticToken) Token(context.Context, *Client) (Token, error) { return s.token, nil }

type tokenFile struct{ path string }

// TokenFile is a file that somebody else keeps a fresh token in: the token
// helper's ~/.vault-token, the sink of an agent or injector. It is read when the
// session opens and once more when Vault refuses what it held.
func TokenFile(path string) TokenSource { return tokenFile{path} }

func (f tokenFile) Token(context.Context, *Client) (Token, error) {
	file, err := os.Open(f.path)
	if err != nil {
		kind := BadConfig
		if errors.Is(err, os.ErrNotExist) {
			kind = NoToken
		}
		return Token{}, &Error{Op: "read the token file", Kind: kind, Detail: err.Error(), Err: err}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	if err != nil {
		return Token{}, &Error{Op: "read the token file", Kind: BadConfig, Detail: err.Error(), Err: err}
	}
	if len(data) > maxTokenFile {
		return Token{}, &Error{Op: "read the token file", Kind: BadConfig, Detail: fmt.Sprintf("%s is longer than %d bytes", f.path, maxTokenFile)}
	}
	t := NewToken(strings.TrimSpace(string(data)), f.path)
	t.Reread = true
	return t, nil
}

// lookup is what auth/token/lookup-self says of a token.
type lookup struct {
	TTL        int64    `json:"ttl"`
	ExpireTime *string  `json:"expire_time"`
	Policies   []string `json:"policies"`
	NumUses    int      `json:"num_uses"`
}

// inspect reports a token that would be worth stealing. A given token is looked
// up; where it may not look itself up its lifetime is unknown, which is silence,
// or a refusal under RequireShortLived. The lifetime of an obtained token is the
// one that its login stated.
func (s *Session) inspect(ctx context.Context) error {
	uses, err := s.appraise(s.currentToken(), func(cl call) (answer, error) { return s.do(ctx, cl) })
	s.limit(uses)
	return err
}

// replace makes t the session's token in the place of an older one, unless it is
// one that would not have been taken at the beginning.
func (s *Session) replace(ctx context.Context, t Token) error {
	uses, err := s.appraise(t, func(cl call) (answer, error) {
		cl.token = t.secret()
		return s.client.do(ctx, cl)
	})
	if err != nil {
		s.revoke(ctx, t)
		return err
	}
	s.install(t)
	s.limit(uses)
	return nil
}

// appraise judges t, and returns the number of uses that a given one says it has
// left, zero for any number. ask sends a request with it.
func (s *Session) appraise(t Token, ask func(call) (answer, error)) (uses int, err error) {
	op := "check the Vault token from " + t.Origin
	if t.Obtained {
		return 0, s.judge(op, t, lookup{TTL: int64(t.TTL / time.Second), Policies: t.policies})
	}
	if t.Elsewhere && !s.cfg.RequireShortLived {
		return 0, nil // the listener's own business, and renewed by it
	}
	a, err := ask(call{op: op, path: lookupSelf, namespace: s.cfg.AuthNamespace, capability: "read", optional: true})
	if e := (*Error)(nil); errors.As(err, &e) && (e.Kind == Denied || e.Kind == KeyNotFound) {
		if e.vague {
			return 0, s.invalidToken(e)
		}
		if s.cfg.RequireShortLived {
			return 0, &Error{Op: op, Kind: LongLived, Detail: "its lifetime is unknown, since it may not look itself up; grant \"read\" on auth/token/lookup-self or log in with a method"}
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var l lookup
	if json.Unmarshal(a.Data, &l) != nil {
		return 0, &Error{Op: op, Path: lookupSelf, Kind: Malformed, Detail: "the token's description is not of the API's form"}
	}
	return l.NumUses, s.judge(op, t, l)
}

func (s *Session) judge(op string, t Token, l lookup) error {
	var complaint string
	ttl := time.Duration(min(l.TTL, maxLease)) * time.Second
	switch {
	case slices.Contains(l.Policies, "root"):
		complaint = "it is a root token"
	case l.TTL == 0 && l.ExpireTime == nil:
		complaint = "it never expires"
	case ttl > s.cfg.MaxTokenTTL:
		complaint = fmt.Sprintf("it lives for another %v, more than %v", ttl, s.cfg.MaxTokenTTL)
	default:
		return nil
	}
	if s.cfg.RequireShortLived {
		return &Error{Op: op, Kind: LongLived, Detail: complaint}
	}
	s.cfg.Warn(fmt.Sprintf("the Vault token from %s: %s; whoever steals it can use it for as long", t.Origin, complaint))
	return nil
}

// revoke ends the life of a token that was made for this session.
func (s *Session) revoke(ctx context.Context, t Token) {
	if err := s.tryRevoke(ctx, t); err != nil {
		s.cfg.Warn(fmt.Sprintf("the Vault token from %s was not revoked and lives until it expires: %v", t.Origin, err))
	}
}

func (s *Session) tryRevoke(ctx context.Context, t Token) error {
	if !t.Obtained || t.Batch || t.secret() == "" {
		return nil
	}
	// A cancelled command must still give its token back.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	_, err := s.client.do(ctx, call{op: "revoke the Vault token", path: "auth/token/revoke-self",
		body: struct{}{}, namespace: s.cfg.AuthNamespace, token: t.secret(), capability: "update"})
	return err
}

// maxLease keeps a lifetime in seconds within a time.Duration.
const maxLease = int64(100 * 365 * 24 * time.Hour / time.Second)

// revokeTimeout bounds the wait at the end of a command.
const revokeTimeout = 10 * time.Second

// obtained reads the token out of a login's answer.
func obtained(a answer, origin string) (Token, error) {
	if a.Auth == nil || a.Auth.ClientToken == "" {
		return Token{}, &Error{Op: "log in to Vault", Kind: Malformed, Detail: "the login's answer holds no token"}
	}
	t := NewToken(a.Auth.ClientToken, origin)
	t.Obtained, t.Batch = true, a.Auth.TokenType == "batch"
	t.TTL = time.Duration(min(a.Auth.LeaseDuration, maxLease)) * time.Second
	t.NumUses, t.Renewable, t.policies = a.Auth.NumUses, a.Auth.Renewable, a.Auth.Policies
	return t, nil
}
