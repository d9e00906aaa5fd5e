// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Secret is a value that no printing shows.
type Secret struct{ value *string }

// NewSecret trims what editors and shells add at the ends.
func NewSecret(value string) Secret {
	value = strings.TrimSpace(value)
	return Secret{value: &value}
}

func (s Secret) secret() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

func (Secret) String() string { return "[secret]" }

// GoString keeps the value out of %#v too.
func (s Secret) GoString() string { return s.String() }

// AppRole logs in with a role_id and a secret_id. A login that may have reached
// the server is not repeated: the secret_id may be good for one use.
type AppRole struct {
	Login
	RoleID   string
	SecretID Secret
	// Wrapping is the response-wrapping token of a secret_id, given in the place
	// of SecretID. It is looked up, and only one that was made by
	// auth/MOUNT/role/ROLE/secret-id is unwrapped, once. With Role empty any role
	// of the mount may have made it; the role_id decides then.
	Wrapping Secret
}

var _ TokenSource = AppRole{}

// Token logs in. With a wrapping token it can be called once.
func (a AppRole) Token(ctx context.Context, c *Client) (Token, error) {
	secretID := a.SecretID.secret()
	wrapped := a.Wrapping.secret() != ""
	if wrapped {
		var err error
		if secretID, err = a.unwrap(ctx, c); err != nil {
			return Token{}, err
		}
	}
	t, err := c.login(ctx, attempt{
		Login: a.Login, method: "approle", once: true,
		body:    map[string]string{"role_id": a.RoleID, "secret_id": secretID},
		secrets: []string{secretID, a.Wrapping.secret()},
	})
	t.Repeatable = t.Repeatable && !wrapped
	return t, err
}

const unwrapOp = "unwrap the secret_id"

func (a AppRole) unwrap(ctx context.Context, c *Client) (string, error) {
	if err := CheckMount(a.mount("approle")); err != nil {
		return "", err
	}
	if err := a.lookup(ctx, c); err != nil {
		return "", err
	}
	ans, err := c.do(ctx, call{
		op: unwrapOp, path: "sys/wrapping/unwrap", body: struct{}{}, namespace: c.cfg.AuthNamespace,
		token: a.Wrapping.secret(), once: true, login: true,
	})
	if e := (*Error)(nil); errors.As(err, &e) {
		if e.sent && unknown(e) {
			e.Kind = OutcomeUnknown
			e.Detail = "unwrapping was sent and is not repeated, so that a second use is nobody's but a thief's: " + e.Detail
			e.Hint = "get a new wrapped secret_id; this one may be used up"
			return "", e
		}
		return "", usedUp(e)
	}
	var data struct {
		SecretID string `json:"secret_id"`
	}
	if json.Unmarshal(ans.Data, &data) != nil || data.SecretID == "" {
		return "", &Error{Op: unwrapOp, Path: "sys/wrapping/unwrap", Kind: Malformed, Detail: "it holds no secret_id", RequestID: ans.RequestID}
	}
	return data.SecretID, nil
}

// lookup asks what the wrapping token holds, which does not use it up.
func (a AppRole) lookup(ctx context.Context, c *Client) error {
	const path = "sys/wrapping/lookup"
	ans, err := c.do(ctx, call{
		op: unwrapOp, path: path, namespace: c.cfg.AuthNamespace,
		body: map[string]string{"token": a.Wrapping.secret()}, secrets: []string{a.Wrapping.secret()},
	})
	if e := (*Error)(nil); errors.As(err, &e) {
		return usedUp(e)
	}
	var data struct {
		CreationPath string `json:"creation_path"`
	}
	if json.Unmarshal(ans.Data, &data) != nil || data.CreationPath == "" {
		return &Error{Op: unwrapOp, Path: path, Kind: Malformed, Detail: "what it says of the wrapping token is not of the API's form", RequestID: ans.RequestID}
	}
	if !a.madeBy(data.CreationPath, c.cfg.AuthNamespace) {
		return &Error{Op: unwrapOp, Kind: WrappingForeign, RequestID: ans.RequestID,
			Detail: fmt.Sprintf("it was made by %s, not by %s: somebody may have exchanged it; it was not unwrapped", clip(data.CreationPath, 200), a.secretIDPath()),
			Hint:   "treat it as an attack until you know better: who could write where the wrapping token was delivered?"}
	}
	return nil
}

func (a AppRole) secretIDPath() string {
	role := a.Role
	if role == "" {
		role = "ROLE"
	}
	return "auth/" + a.mount("approle") + "/role/" + role + "/secret-id"
}

// madeBy compares a creation path, which may begin with the namespace.
func (a AppRole) madeBy(path, namespace string) bool {
	path = strings.Trim(path, "/")
	if namespace != "" {
		path = strings.TrimPrefix(path, namespace+"/")
	}
	role, ok := strings.CutPrefix(path, "auth/"+a.mount("approle")+"/role/")
	if !ok {
		return false
	}
	role, ok = strings.CutSuffix(role, "/secret-id")
	// Vault keeps the names of AppRole roles in lower case.
	return ok && !strings.Contains(role, "/") && role != "" && (a.Role == "" || strings.EqualFold(role, a.Role))
}

// usedUp turns Vault's word that a wrapping token is not valid into what that may
// mean.
func usedUp(e *Error) error {
	if e.Status >= 400 && e.Status < 500 && !e.Retryable() && e.Kind != TLS {
		e.Kind, e.Capability, e.vague = WrappingUsed, "", false
		e.Detail = "if neither you nor an earlier run has unwrapped it, somebody else has, and holds the secret_id"
		e.Hint = "possible theft: look for sys/wrapping/unwrap in the audit log, destroy what vault list auth/MOUNT/role/ROLE/secret-id shows, then deliver a new one"
	}
	return e
}
