// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// payload reads the claims of a JWT without checking its signature, which is
// Vault's to judge. What it yields is for messages, and for claims that count only
// after Vault has accepted the token.
func payload(jwt string) (map[string]any, bool) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 || parts[0] == "" || parts[2] == "" {
		return nil, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, false
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var claims map[string]any
	if dec.Decode(&claims) != nil || claims == nil {
		return nil, false
	}
	return claims, true
}

// shownClaims are what a role is compared with when it refuses a token.
var shownClaims = []string{"iss", "aud", "sub", "repository", "ref", "exp"}

// maxClaim bounds one claim's text, in bytes.
const maxClaim = 200

// describe is one line of what the token says of itself.
func describe(jwt string, now time.Time) string {
	claims, _ := payload(jwt)
	var said []string
	for _, name := range shownClaims {
		v, ok := claims[name]
		if !ok {
			continue
		}
		text := claimText(v)
		if n, isNumber := v.(json.Number); isNumber && name == "exp" {
			text = expiryText(n, now)
		}
		said = append(said, name+"="+text)
	}
	if len(said) == 0 {
		return "its token has none of the usual claims"
	}
	return "its token says, unverified: " + strings.Join(said, " ")
}

func expiryText(n json.Number, now time.Time) string {
	seconds, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || seconds < 0 || seconds > 1e11 {
		return clip(n.String(), maxClaim)
	}
	at := time.Unix(int64(seconds), 0).UTC()
	text := at.Format(time.RFC3339)
	if at.Before(now) {
		text += fmt.Sprintf(" (%v ago)", now.Sub(at).Round(time.Second))
	}
	return text
}

// claimText quotes, so that no value can pass for the next claim.
func claimText(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(clip(v, maxClaim))
	case json.Number:
		return clip(v.String(), maxClaim)
	case []any:
		var items []string
		for _, item := range v {
			if len(items) == 5 {
				items = append(items, "...")
				break
			}
			s, _ := item.(string)
			items = append(items, strconv.Quote(clip(s, maxClaim)))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	return "(not a text)"
}

// signedClaims are those that say which job has built something. All are on
// GitHub's and Forgejo's tokens, ref and sha on GitLab's too.
var signedClaims = []string{"repository", "ref", "sha", "workflow_ref", "run_id"}

// builderClaims picks from the token what may be signed and published.
func builderClaims(jwt string) map[string]string {
	claims, _ := payload(jwt)
	picked := make(map[string]string)
	for _, name := range signedClaims {
		var text string
		switch v := claims[name].(type) {
		case string:
			text = clip(v, maxClaim)
		case json.Number:
			text = clip(v.String(), maxClaim)
		}
		if text != "" {
			picked[name] = text
		}
	}
	return picked
}

// meantForAPIServer reports that a service account token has the API server's own
// audience, which by default is its issuer.
func meantForAPIServer(jwt string) bool {
	claims, _ := payload(jwt)
	issuer, _ := claims["iss"].(string)
	aud, isList := claims["aud"].([]any)
	if !isList {
		if claims["aud"] == nil {
			return true // legacy tokens have none and are good for everything
		}
		aud = []any{claims["aud"]}
	}
	return slices.ContainsFunc(aud, func(a any) bool {
		s, _ := a.(string)
		return s != "" && (s == issuer || strings.HasPrefix(s, "https://kubernetes.default.svc"))
	})
}
