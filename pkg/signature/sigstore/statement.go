// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// statement is an in-toto statement v1; resource is its ResourceDescriptor. All
// fields of both are here, since any other is refused, as cosign refuses it.
type statement struct {
	Type          string          `json:"_type"`
	Subject       []resource      `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate,omitempty"`
}

type resource struct {
	Name             string            `json:"name,omitempty"`
	URI              string            `json:"uri,omitempty"`
	Digest           map[string]string `json:"digest,omitempty"`
	Content          []byte            `json:"content,omitempty"`
	DownloadLocation string            `json:"downloadLocation,omitempty"`
	MediaType        string            `json:"mediaType,omitempty"`
	Annotations      map[string]any    `json:"annotations,omitempty"`
}

// predicate carries the claims that have no place in the statement. cosign
// ignores it. Times are RFC 3339 in UTC.
type predicate struct {
	SignedAt   string            `json:"signedAt,omitempty"`
	Expires    string            `json:"expires,omitempty"`
	Repository string            `json:"repository,omitempty"`
	Tag        string            `json:"tag,omitempty"`
	Builder    map[string]string `json:"builder,omitempty"`
}

func predicateOf(c signature.Claims) predicate {
	p := predicate{Repository: c.Repository, Tag: c.Tag, Builder: c.Builder}
	if !c.SignedAt.IsZero() {
		p.SignedAt = c.SignedAt.UTC().Format(time.RFC3339)
	}
	if !c.Expires.IsZero() {
		p.Expires = c.Expires.UTC().Format(time.RFC3339)
	}
	return p
}

func anyMap(m map[string]string) map[string]any {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// decodeStatement reads a payload that a key has signed.
func decodeStatement(payload []byte) (signature.Statement, error) {
	var st statement
	if err := strictjson.UnmarshalKnown(payload, &st); err != nil {
		return signature.Statement{}, fmt.Errorf("statement: %v", err)
	}
	if st.Type != statementType {
		return signature.Statement{}, fmt.Errorf("statement type is %q, not %q", st.Type, statementType)
	}
	// Without this a provenance attestation by the same key would pass for a
	// signature.
	if st.PredicateType != PredicateType {
		return signature.Statement{}, fmt.Errorf("predicate type is %q, not %q", st.PredicateType, PredicateType)
	}
	if len(st.Subject) != 1 {
		return signature.Statement{}, fmt.Errorf("it names %d subjects, not one", len(st.Subject))
	}
	dgst := digest.NewDigestFromEncoded(digest.SHA256, st.Subject[0].Digest["sha256"])
	if err := dgst.Validate(); err != nil {
		return signature.Statement{}, errors.New("its subject has no sha256 digest")
	}
	claims, err := claimsOf(st)
	if err != nil {
		return signature.Statement{}, err
	}
	return signature.Statement{Digest: dgst, Claims: claims}, nil
}

func claimsOf(st statement) (signature.Claims, error) {
	var p predicate
	if len(st.Predicate) > 0 {
		if err := json.Unmarshal(st.Predicate, &p); err != nil {
			return signature.Claims{}, fmt.Errorf("predicate: %v", err)
		}
	}
	c := signature.Claims{Repository: p.Repository, Tag: p.Tag, Builder: p.Builder}
	var err error
	if c.SignedAt, err = parseTime("signedAt", p.SignedAt); err != nil {
		return signature.Claims{}, err
	}
	if c.Expires, err = parseTime("expires", p.Expires); err != nil {
		return signature.Claims{}, err
	}
	for k, v := range st.Subject[0].Annotations {
		// Other tools may annotate with any JSON; only strings can be claims.
		if s, ok := v.(string); ok {
			if c.Annotations == nil {
				c.Annotations = make(map[string]string)
			}
			c.Annotations[k] = s
		}
	}
	return c, nil
}

// parseTime is strict: an expiry that cannot be read must not become none.
func parseTime(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("claim %s is not an RFC 3339 time", name)
	}
	return t, nil
}
