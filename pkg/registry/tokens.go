// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
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
	now  func() time.Time
	came sync.Map // when, by registry, scheme and key
}

type tokenKey struct {
	registry string
	scheme   auth.Scheme
	key      string
}

// tokenUse is what one request has taken from the cache, through its context.
type tokenUse struct {
	// anew leaves out what is cached, so that the registry is asked for a challenge.
	anew bool
	mu   sync.Mutex
	key  *tokenKey // of the token that was sent
}

type tokenUseKey struct{}

func useOf(ctx context.Context) *tokenUse {
	use, _ := ctx.Value(tokenUseKey{}).(*tokenUse)
	return use
}

func (c *tokenCache) GetScheme(ctx context.Context, registry string) (auth.Scheme, error) {
	if use := useOf(ctx); use != nil && use.anew {
		return auth.SchemeUnknown, errdef.ErrNotFound
	}
	return c.Cache.GetScheme(ctx, registry)
}

func (c *tokenCache) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	use := useOf(ctx)
	if use != nil && use.anew {
		return "", errdef.ErrNotFound
	}
	token, err := c.Cache.GetToken(ctx, registry, scheme, key)
	if err == nil && use != nil {
		use.mu.Lock()
		use.key = &tokenKey{registry, scheme, key}
		use.mu.Unlock()
	}
	return token, err
}

func (c *tokenCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	token, err := c.Cache.Set(ctx, registry, scheme, key, fetch)
	if err == nil {
		c.came.Store(tokenKey{registry, scheme, key}, c.now())
	}
	return token, err
}

// tokenLife is how long a token is good at least (distribution's token specification,
// "expires_in"), and so how often one is asked for again after refusals.
const tokenLife = time.Minute

// over reports whether a refusal may mean that the token which was sent is over.
func (c *tokenCache) over(use *tokenUse, status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
	default:
		return false
	}
	use.mu.Lock()
	key := use.key
	use.mu.Unlock()
	if key == nil {
		return false
	}
	came, ok := c.came.Load(*key)
	return ok && c.now().Sub(came.(time.Time)) >= tokenLife
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
	if err != nil || !sameOrigin(&r.base, resp.Request.URL) || !r.client.cache.over(use, resp.StatusCode) {
		return resp, err
	}
	dog.allow(r.client.options.AnswerTimeout)
	if !r.renewToken(ctx) {
		return resp, nil
	}
	resp.Body.Close()
	dog.allow(r.client.options.AnswerTimeout)
	if req, err = build(ctx); err != nil {
		return nil, err
	}
	return r.auth.Do(req)
}

// renewToken has a request without content ask for another token of the scopes that ctx
// holds, and reports whether the registry took it.
func (r *Repository) renewToken(ctx context.Context) bool {
	at := r.base
	at.Path = r.root + "/"
	if r.ns != "" {
		at.RawQuery = nsQuery(r.ns)
	}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, tokenUseKey{}, &tokenUse{anew: true}), http.MethodGet, at.String(), nil)
	if err != nil {
		return false
	}
	resp, err := r.auth.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
