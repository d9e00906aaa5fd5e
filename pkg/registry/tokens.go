// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// tokenCache keeps tokens, and when they came: oras-go's cache, which has no end of
// validity, drops one only when a 401 with a challenge says so. Amazon ECR answers 403 to
// one that is over, and its public one 400 (oras-go#1227).
type tokenCache struct {
	auth.Cache
	now func() time.Time

	mu   sync.Mutex
	came map[tokenKey]time.Time
	over map[tokenKey]string // tokens that are not used any more
}

type tokenKey struct {
	registry string
	scheme   auth.Scheme
	key      string
}

func newTokenCache(now func() time.Time) *tokenCache {
	return &tokenCache{Cache: auth.NewCache(), now: now, came: make(map[tokenKey]time.Time), over: make(map[tokenKey]string)}
}

// tokenUse is the token that one request was sent with, through its context. oras-go asks
// the cache in the goroutine that sends.
type tokenUse struct {
	key   tokenKey
	token string        // "" for none, or one that has just come
	age   time.Duration // when it was sent
}

type tokenUseKey struct{}

func (c *tokenCache) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	token, err := c.Cache.GetToken(ctx, registry, scheme, key)
	if err != nil {
		return "", err
	}
	k := tokenKey{registry, scheme, key}
	c.mu.Lock()
	over, age := c.over[k] == token, c.now().Sub(c.came[k])
	c.mu.Unlock()
	if over {
		return "", errdef.ErrNotFound
	}
	if use, ok := ctx.Value(tokenUseKey{}).(*tokenUse); ok {
		use.key, use.token, use.age = k, token, age
	}
	return token, nil
}

func (c *tokenCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	token, err := c.Cache.Set(ctx, registry, scheme, key, fetch)
	if err != nil {
		return "", err
	}
	k := tokenKey{registry, scheme, key}
	c.mu.Lock()
	c.came[k] = c.now()
	// A password is the same again.
	delete(c.over, k)
	c.mu.Unlock()
	if use, ok := ctx.Value(tokenUseKey{}).(*tokenUse); ok {
		use.token = ""
	}
	return token, nil
}

// tokenLife is how long a token is good at least (distribution's token specification,
// "expires_in"), and so how often one is asked for again after refusals.
const tokenLife = time.Minute

// replace reports whether a request that was refused is worth sending again: with the token
// that another request has got meanwhile, or without the one it had, which is used no more.
func (c *tokenCache) replace(ctx context.Context, use *tokenUse) bool {
	k, sent := use.key, use.token
	if sent == "" {
		return false
	}
	// Both in one: else a token that comes in between has this one doubted once more, and
	// restore takes the answer to the new one for an answer to none.
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.Cache.GetToken(ctx, k.registry, k.scheme, k.key)
	if err == nil && now != sent {
		return true
	}
	if use.age < tokenLife {
		return false
	}
	c.over[k] = sent
	return true
}

// restore has a token used again that no other has come for, and is not doubted for another
// tokenLife. It reports whether it did.
func (c *tokenCache) restore(use *tokenUse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over[use.key] != use.token {
		return false
	}
	delete(c.over, use.key)
	c.came[use.key] = c.now()
	return true
}

// doAuthorized sends what build makes with credentials, and once more with others when
// it is refused for what may be a token that is over.
func (r *Repository) doAuthorized(ctx context.Context, dog *watchdog, build func(context.Context) (*http.Request, error)) (*http.Response, error) {
	use := new(tokenUse)
	req, err := build(context.WithValue(ctx, tokenUseKey{}, use))
	if err != nil {
		return nil, err
	}
	resp, err := r.auth.Do(req)
	if err != nil || !sameOrigin(&r.base, resp.Request.URL) || !mayBeOver(req, resp) || !r.client.cache.replace(ctx, use) {
		return resp, err
	}
	dog.allow(r.client.options.AnswerTimeout)
	if req.Body != nil || resp.StatusCode == http.StatusUnauthorized {
		// What comes without a token is refused: not a body's beginning, and not where no
		// challenge says what is asked for.
		r.askForToken(ctx)
	}
	dog.allow(r.client.options.AnswerTimeout)
	again, err := build(ctx)
	if err != nil {
		return nil, err
	}
	other, err := r.auth.Do(again)
	if err != nil || other.StatusCode < http.StatusBadRequest || !r.client.cache.restore(use) {
		return other, err
	}
	// Nobody has asked for another token, and what is said to somebody without one is
	// less than what was said before.
	other.Body.Close()
	return resp, nil
}

// mayBeOver reports whether an answer may say that a token is over, and reads it if so. A
// registry that gives another reason means that, and is not sent a body again.
func mayBeOver(req *http.Request, resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
	default:
		return false
	}
	// The rest of a body that is still on its way ends with the answer.
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	code, _, _ := reasonOf(raw)
	switch code {
	case "DENIED", "UNAUTHORIZED":
		return true
	case "":
		// A 400 is about much, and a HEAD has no reasons.
		return resp.StatusCode != http.StatusBadRequest || req.Method == http.MethodHead
	}
	return false
}

// askForToken has a request without content ask for a token of the scopes that ctx holds.
// Whatever comes of it, what is sent next shows.
func (r *Repository) askForToken(ctx context.Context) {
	at := r.base
	at.Path = r.root + "/"
	if r.ns != "" {
		at.RawQuery = nsQuery(r.ns)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return
	}
	if resp, err := r.auth.Do(req); err == nil {
		resp.Body.Close()
	}
}
