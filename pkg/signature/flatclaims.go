// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"
	"strings"
	"time"
)

// ClaimPrefix begins the names under which formats that have one flat map of
// strings carry our claims, beside the user's annotations.
const ClaimPrefix = "dev.aegis-oci.claim."

const (
	claimSignedAt   = ClaimPrefix + "signed-at"
	claimExpires    = ClaimPrefix + "expires"
	claimRepository = ClaimPrefix + "repository"
	claimTag        = ClaimPrefix + "tag"
	claimBuilder    = ClaimPrefix + "builder."
)

// ClaimError means that a format cannot carry a claim that was asked for.
type ClaimError struct {
	Format Format
	Claim  string
	Reason string
}

func (e *ClaimError) Error() string {
	return fmt.Sprintf("signature format %s cannot carry the claim %q: %s", e.Format, e.Claim, e.Reason)
}

// Flat puts the claims into one map of strings for format f. The times are left
// out when the format has places of its own for them. Errors are *ClaimError: an
// annotation must not pass for a claim.
func (c Claims) Flat(f Format, times bool) (map[string]string, error) {
	flat := make(map[string]string, len(c.Annotations)+4)
	for k, v := range c.Annotations {
		if strings.HasPrefix(k, ClaimPrefix) {
			return nil, &ClaimError{Format: f, Claim: k, Reason: "names that begin with " + ClaimPrefix + " are reserved"}
		}
		flat[k] = v
	}
	set := func(k, v string) {
		if v != "" {
			flat[k] = v
		}
	}
	set(claimRepository, c.Repository)
	set(claimTag, c.Tag)
	for k, v := range c.Builder {
		flat[claimBuilder+k] = v
	}
	if times {
		if !c.SignedAt.IsZero() {
			flat[claimSignedAt] = c.SignedAt.UTC().Format(time.RFC3339)
		}
		if !c.Expires.IsZero() {
			flat[claimExpires] = c.Expires.UTC().Format(time.RFC3339)
		}
	}
	return flat, nil
}

// ClaimsOf reads what Flat wrote. Strict where it decides: a time that cannot be
// read must not become none, and a reserved name that is not known is refused.
func ClaimsOf(flat map[string]string) (Claims, error) {
	var c Claims
	for k, v := range flat {
		var err error
		switch {
		case k == claimRepository:
			c.Repository = v
		case k == claimTag:
			c.Tag = v
		case k == claimSignedAt:
			c.SignedAt, err = time.Parse(time.RFC3339, v)
		case k == claimExpires:
			c.Expires, err = time.Parse(time.RFC3339, v)
		case strings.HasPrefix(k, claimBuilder):
			c.Builder = add(c.Builder, strings.TrimPrefix(k, claimBuilder), v)
		case strings.HasPrefix(k, ClaimPrefix):
			return Claims{}, fmt.Errorf("unknown claim %q", k)
		default:
			c.Annotations = add(c.Annotations, k, v)
		}
		if err != nil {
			return Claims{}, fmt.Errorf("claim %s is not an RFC 3339 time", k)
		}
	}
	return c, nil
}

func add(m map[string]string, k, v string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	m[k] = v
	return m
}
