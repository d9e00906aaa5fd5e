// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
)

// Login says where a method logs in, and as what.
type Login struct {
	// Mount is the path of the auth method without auth/, and may hold slashes.
	// Empty means the method's own name.
	Mount string
	// Role is the method's role.
	Role string
}

// CheckMount reports what is wrong with the path of an auth method.
func CheckMount(mount string) error {
	for segment := range strings.SplitSeq(mount, "/") {
		if !pathSegment.MatchString(segment) {
			return &Error{Op: "log in to Vault", Kind: BadConfig, Detail: fmt.Sprintf("%q is no path of an auth method", clip(mount, 100))}
		}
	}
	return nil
}

func (l Login) mount(method string) string {
	if l.Mount == "" {
		return method
	}
	return l.Mount
}

// JWT logs in with an identity token to Vault's jwt auth: a CI job's, mostly.
type JWT struct {
	login    Login
	identity Identity

	mu     sync.Mutex
	claims map[string]string
}

var _ TokenSource = (*JWT)(nil)

// NewJWT logs in with the token that id yields, which is asked anew each time.
func NewJWT(l Login, id Identity) *JWT { return &JWT{login: l, identity: id} }

// Token logs in.
func (m *JWT) Token(ctx context.Context, c *Client) (Token, error) {
	jwt, err := m.identity.JWT(ctx, c)
	if err != nil {
		return Token{}, err
	}
	t, err := c.loginWithJWT(ctx, "jwt", m.login, jwt)
	if err != nil {
		return Token{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims = builderClaims(jwt)
	return t, nil
}

// BuilderClaims are those of the last identity token that Vault has accepted, of
// this list: repository, ref, sha, workflow_ref, run_id. Nil before a login.
func (m *JWT) BuilderClaims() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.claims)
}

// Kubernetes logs in with a pod's service account token.
type Kubernetes struct {
	Login
	// Path is the token's file. It is read at each login, since the kubelet
	// replaces it.
	Path string
	// AnyAudience permits a token that is meant for the API server. Whoever
	// receives one can act as the pod's service account there.
	AnyAudience bool
}

var _ TokenSource = Kubernetes{}

// Token logs in.
func (k Kubernetes) Token(ctx context.Context, c *Client) (Token, error) {
	jwt, err := IdentityFile(k.Path).JWT(ctx, c)
	if err != nil {
		return Token{}, err
	}
	if !k.AnyAudience && meantForAPIServer(jwt) {
		return Token{}, &Error{Op: "read the service account token", Kind: NoIdentity,
			Detail: k.Path + " holds a token for the API server, which is not sent to Vault",
			Hint:   "give the projected token an audience (audience: vault), or name its path with --vault-k8s-token-path"}
	}
	return c.loginWithJWT(ctx, "kubernetes", k.Login, jwt)
}

// Cert logs in with the certificate of the connection, Config.CertFile. Role is
// optional: Vault finds the one that fits.
type Cert struct{ Login }

var _ TokenSource = Cert{}

// Token logs in.
func (m Cert) Token(ctx context.Context, c *Client) (Token, error) {
	if c.cfg.CertFile == "" || c.cfg.KeyFile == "" || c.endpoint.url.Scheme != "https" {
		return Token{}, &Error{Op: "log in to Vault by cert", Kind: BadConfig, Detail: "it needs a client certificate, its key and an https address"}
	}
	body := map[string]string{}
	if m.Role != "" {
		body["name"] = m.Role
	}
	return c.login(ctx, attempt{method: "cert", Login: m.Login, body: body})
}

// listener is an agent or proxy that adds its own token.
type listener struct{}

// Listener sends no token: Config.Address is a Vault Agent or Proxy that adds its
// own (auto-auth).
func Listener() TokenSource { return listener{} }

func (listener) Token(context.Context, *Client) (Token, error) {
	return Token{Origin: "the agent's listener", Elsewhere: true}, nil
}

// attempt is one request to a method's login.
type attempt struct {
	Login
	method  string
	body    any
	secrets []string
	// about is what the identity says of itself, for a refusal.
	about string
	// once is for a credential that can be used up.
	once bool
}

func (a attempt) String() string {
	s := "log in to Vault by " + a.method + " at auth/" + a.mount(a.method)
	if a.Role != "" {
		s += fmt.Sprintf(" as role %q", clip(a.Role, 100))
	}
	return s
}

func (c *Client) loginWithJWT(ctx context.Context, method string, l Login, jwt string) (Token, error) {
	return c.login(ctx, attempt{
		Login: l, method: method, body: map[string]string{"role": l.Role, "jwt": jwt},
		secrets: []string{jwt}, about: describe(jwt, c.cfg.Now()),
	})
}

// login asks a method for a token.
func (c *Client) login(ctx context.Context, a attempt) (Token, error) {
	mount := a.mount(a.method)
	if err := CheckMount(mount); err != nil {
		return Token{}, err
	}
	path := "auth/" + mount + "/login"
	ans, err := c.do(ctx, call{op: a.String(), path: path, body: a.body, namespace: c.cfg.AuthNamespace, once: a.once, login: true, secrets: a.secrets})
	if err != nil {
		return Token{}, a.refused(err)
	}
	t, err := obtained(ans, "the "+a.method+" login at auth/"+mount)
	if err != nil {
		return Token{}, err
	}
	t.Repeatable = true
	return t, nil
}

// refused turns what a login is answered into what it means. Vault says 400 or
// 403 to a role, an identity or a secret that it does not take.
func (a attempt) refused(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Status >= 400 && e.Status < 500 && !e.Retryable() && e.Kind != TLS:
		if e.Kind == Denied {
			e.Detail = "permission denied"
		}
		if e.Kind == NoToken || e.Kind == KeyNotFound {
			e.Detail = "there is no auth method at auth/" + a.mount(a.method) + " in this namespace"
		}
		e.Kind, e.Capability, e.vague = LoginRefused, "", false
		if a.about != "" {
			e.Detail += "; " + a.about
		}
		e.Hint = a.hint(e.Status)
	case a.once && e.sent && unknown(e):
		e.Kind, e.Detail = OutcomeUnknown, "the login was sent and is not repeated, since its secret_id may be good for one use: "+e.Detail
	}
	return e
}

func (a attempt) hint(status int) string {
	switch {
	case a.method == "approle":
		return "are role_id and secret_id right, and the secret_id neither used up nor expired?"
	case a.method == "cert":
		return "does a role of this mount trust the client certificate?"
	case status == http.StatusForbidden:
		return "compare the role's bound names, namespaces and audience with the token's claims"
	}
	return "compare the role's bound_audiences and bound_claims with the token's claims"
}

// unknown tells an answer that proves that nothing was done from one that leaves
// it open.
func unknown(e *Error) bool {
	return e.Kind == Unreachable || e.Kind == Malformed || e.Kind == Unavailable && e.Status >= 500
}
