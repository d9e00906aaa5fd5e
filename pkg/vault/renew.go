// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxLogins bounds the logins of one session, whatever the server says.
const maxLogins = 5

// margin is how much of its life a token must have left to be used: enough for
// what follows an upload, and no more than half of a short life.
func margin(ttl time.Duration) time.Duration { return min(ttl/2, 2*time.Minute) }

// limit notes what a given token says of its remaining uses. One that is used up
// says a negative number.
func (s *Session) limit(uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uses != 0 {
		s.uses, s.bound = max(uses, 0), true
	}
}

// spare reports whether a request may be made that is not needed, when n others
// are still to come. A token with few uses is kept for those.
func (s *Session) spare(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.bound || s.uses > n
}

// canLogInAgain reports that uses of the token are not precious.
func (s *Session) canLogInAgain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token.Repeatable && s.logins < maxLogins-2
}

// usable is the session's token for one request, made anew when its time or its
// uses are nearly over.
func (s *Session) usable(ctx context.Context, cl call) (Token, error) {
	if s.old() {
		s.renewal.Lock()
		if s.old() { // still: another caller may have been here
			s.freshen(ctx)
		}
		s.renewal.Unlock()
	}
	return s.spend(cl)
}

// spend takes one use of the token for cl.
func (s *Session) spend(cl call) (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound {
		if s.uses <= 0 {
			return Token{}, &Error{Op: cl.op, Path: cl.path, Kind: TokenInvalid,
				Detail: "the uses of the one from " + s.token.Origin + " are spent", Hint: "give the role more token_num_uses, or none"}
		}
		s.uses--
	}
	return s.token, nil
}

// old reports that the token was obtained and is nearly over, in time or uses.
func (s *Session) old() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.token.Obtained || s.tired {
		return false
	}
	late := !s.until.IsZero() && s.until.Sub(s.cfg.Now()) < margin(s.token.TTL)
	return late || s.bound && s.uses <= 0
}

// freshen renews the token where it may, else logs in again where the method can,
// else goes on with what there is and warns.
func (s *Session) freshen(ctx context.Context) {
	t := s.currentToken()
	s.mu.Lock()
	bound, uses, until := s.bound, s.uses, s.until
	s.mu.Unlock()
	if !bound {
		uses = -1
	}
	var why error
	if t.Renewable && !t.Batch && !bound {
		if why = s.renew(ctx, t); why == nil {
			return
		}
	}
	if t.Repeatable {
		if _, why = s.again(ctx); why == nil {
			if uses != 0 && (until.IsZero() || s.cfg.Now().Before(until)) { // else it is gone already
				s.revoke(ctx, t)
			}
			return
		}
	}
	s.mu.Lock()
	s.tired = true
	s.mu.Unlock()
	if bound {
		return // the request that finds no use left says so
	}
	reason := "its login cannot be repeated"
	if why != nil {
		reason = why.Error()
	}
	s.cfg.Warn(fmt.Sprintf("the Vault token from %s ends in %v and could not be renewed: %s",
		t.Origin, max(0, until.Sub(s.cfg.Now())).Round(time.Second), reason))
}

// renew prolongs t. A renewal that the token's maximal lifetime leaves short is
// none.
func (s *Session) renew(ctx context.Context, t Token) error {
	op := "renew the Vault token from " + t.Origin
	a, err := s.client.do(ctx, call{op: op, path: "auth/token/renew-self", body: struct{}{},
		namespace: s.cfg.AuthNamespace, token: t.secret(), capability: "update"})
	if err != nil {
		return err
	}
	if a.Auth == nil {
		return &Error{Op: op, Kind: Malformed, Detail: "the answer holds no token"}
	}
	ttl := time.Duration(min(a.Auth.LeaseDuration, maxLease)) * time.Second
	if ttl <= margin(t.TTL) {
		return &Error{Op: op, Kind: TokenInvalid, Detail: fmt.Sprintf("it lives for another %v at most", ttl)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = s.cfg.Now().Add(ttl)
	s.cfg.Logger.Debug("vault token renewed", "origin", t.Origin, "ttl", ttl)
	return nil
}

// again logs in once more. The caller revokes the older token, which would
// otherwise live on unseen.
func (s *Session) again(ctx context.Context) (Token, error) {
	s.mu.Lock()
	logins := s.logins
	s.mu.Unlock()
	if logins >= maxLogins {
		return Token{}, &Error{Op: "log in to Vault", Kind: NotAsked, Detail: fmt.Sprintf("it took %d logins already", logins)}
	}
	t, err := s.source.Token(ctx, s.client)
	if err != nil {
		return Token{}, err
	}
	if err := t.check(); err != nil {
		return Token{}, err
	}
	if err := s.replace(ctx, t); err != nil {
		return Token{}, err
	}
	s.cfg.Logger.Debug("vault token made anew", "origin", t.Origin, "ttl", t.TTL, "uses", t.NumUses)
	return t, nil
}

// another is a token to try where t was refused with err: what another caller has
// put in its place, what its file holds by now, or one from a new login if t
// itself seems to be what was wrong.
func (s *Session) another(ctx context.Context, t Token, err error) (Token, bool) {
	s.renewal.Lock()
	defer s.renewal.Unlock()
	if now := s.currentToken(); now.secret() != t.secret() && now.secret() != "" {
		return now, true
	}
	switch e := (*Error)(nil); {
	case t.Reread:
		fresh, err := s.source.Token(ctx, s.client)
		if err != nil || fresh.check() != nil || fresh.secret() == t.secret() {
			return Token{}, false
		}
		if err := s.replace(ctx, fresh); err != nil {
			s.cfg.Warn("a newer Vault token was found and not used: " + err.Error())
			return Token{}, false
		}
		return fresh, true
	case t.Repeatable && errors.As(err, &e) && (e.Kind == TokenInvalid || e.vague):
		fresh, err := s.again(ctx)
		if err != nil {
			return Token{}, false
		}
		// It is most likely gone. Should it live, it must not stay.
		if err := s.tryRevoke(ctx, t); err != nil {
			s.cfg.Logger.Debug("the refused vault token was not revoked", "reason", err.Error())
		}
		_, err = s.spend(call{})
		return fresh, err == nil
	}
	return Token{}, false
}
