// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxToken bounds an identity token, in bytes.
const maxToken = 64 << 10

// ErrNoToken means that a text is not a JSON Web Token.
var ErrNoToken = errors.New("it is not a JSON Web Token")

// CheckToken compares a token claim by claim with what the plan's role wants of
// one. The signature is not checked: only the issuer's keys could tell. No part of
// the token but the claims compared is in the result. Errors are ErrNoToken, and
// *OptionError for a method that takes none.
func (p Plan) CheckToken(token string, now time.Time) ([]Check, error) {
	if p.Method == AppRole {
		return nil, refuse("check-jwt", "AppRole takes no identity token")
	}
	claims, err := decodeToken(token)
	if err != nil {
		return nil, err
	}
	all := append(p.checkTimes(claims, now), p.checkIdentity(claims)...)
	return all, nil
}

func decodeToken(token string) (map[string]any, error) {
	token = strings.TrimSpace(token)
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return nil, ErrNoToken
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, ErrNoToken
	}
	var claims map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber() // an ID has more digits than a float64 keeps
	if decoder.Decode(&claims) != nil || claims == nil {
		return nil, ErrNoToken
	}
	return claims, nil
}

// claim compares one; want "" asks only that it be there.
func claim(name, want string, claims map[string]any) Check {
	have := canonical(claims[name])
	c := Check{Path: "token", Field: name, Status: Same, Want: want, Have: clip(have)}
	switch v, there := claims[name]; {
	case !there || v == nil:
		c.Status = Missing
	case want != "" && have != want:
		c.Status = Differs
	}
	return c
}

func (p Plan) checkIdentity(claims map[string]any) []Check {
	if p.Method == Kubernetes {
		o := p.options
		return []Check{
			audience(o.ServiceAccountAudience, claims),
			claim("sub", "system:serviceaccount:"+o.ServiceAccountNamespace+":"+o.ServiceAccount, claims),
		}
	}
	role := p.resource(Role)
	all := []Check{claim("iss", p.options.Issuer, claims), audience(p.options.Audience, claims)}
	bound := role.field("bound_claims").(map[string]string)
	for _, name := range sortedKeys(bound) {
		all = append(all, boundClaim(name, bound[name], claims))
	}
	if user := role.field("user_claim").(string); bound[user] == "" {
		all = append(all, claim(user, "", claims))
	}
	return append(all, mapped(role.field("claim_mappings").(map[string]string), claims)...)
}

// boundClaim is Vault's comparison: text with text, and of a list one item
// suffices.
func boundClaim(name, want string, claims map[string]any) Check {
	c := claim(name, want, claims)
	switch v := claims[name].(type) {
	case nil, string:
		if c.Status == Differs && strings.EqualFold(c.Want, c.Have) {
			c.Detail = "upper and lower case count"
		}
	case []any:
		c.Status = Differs
		if slices.Contains(v, any(want)) {
			c.Status = Same
		}
	default:
		c.Status, c.Detail = Differs, "the role binds text, and the token holds something else"
	}
	return c
}

// mapped finds what Vault cannot carry into the audit log: it takes text only, and
// refuses the login otherwise.
func mapped(names map[string]string, claims map[string]any) []Check {
	var all []Check
	for _, name := range sortedKeys(names) {
		if _, text := claims[name].(string); claims[name] != nil && !text {
			all = append(all, Check{Path: "token", Field: name, Status: Differs, Want: "text", Have: clip(canonical(claims[name])),
				Detail: "the role's claim_mappings carry it into the audit log, which takes text only"})
		}
	}
	return all
}

func audience(want string, claims map[string]any) Check {
	c := boundClaim("aud", want, claims)
	if c.Status != Same {
		c.Detail = "the client asks for the audience; the role binds it"
	}
	return c
}

// leeway is what Vault's jwt auth allows clocks to differ.
const leeway = 60 * time.Second

func (p Plan) checkTimes(claims map[string]any, now time.Time) []Check {
	exp := claim("exp", "", claims)
	if t, ok := numericDate(claims["exp"]); ok {
		exp.Want, exp.Have = "after "+now.UTC().Format(time.RFC3339), t.UTC().Format(time.RFC3339)
		if now.After(t.Add(leeway)) {
			exp.Status, exp.Detail = Differs, fmt.Sprintf("it expired %s ago", now.Sub(t).Round(time.Second))
		}
	} else if exp.Status == Same {
		exp.Status, exp.Detail = Differs, "it is no time"
	}
	all := []Check{exp}
	if t, ok := numericDate(claims["nbf"]); ok && t.After(now.Add(leeway)) {
		all = append(all, Check{Path: "token", Field: "nbf", Status: Differs, Want: "before " + now.UTC().Format(time.RFC3339),
			Have: t.UTC().Format(time.RFC3339), Detail: "it does not hold yet: is a clock wrong?"})
	}
	return all
}

// numericDate is seconds since 1970 (RFC 7519, section 2).
func numericDate(v any) (time.Time, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	seconds, err := n.Float64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// clip makes one printable line of what a token says.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}
