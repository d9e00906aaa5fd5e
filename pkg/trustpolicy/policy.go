// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"slices"
)

// Policy is a parsed trust policy. It is immutable and safe for concurrent use.
// The zero value has no statement and covers nothing.
type Policy struct {
	statements []statement
}

type statement struct {
	name   string
	scopes []scope
	keys   []Key
}

// Statement is what the policy asks of the repositories in its scopes: a
// signature that one of Keys accepts.
type Statement struct {
	Name string
	// Keys is never empty when it comes from Match.
	Keys []Key
}

// Key is one signer. At least one of Transit, PublicKey and PublicKeyFile is
// set, and at most one of PublicKey and PublicKeyFile. Where Transit stands
// beside a public key, both must accept; the caller sees to that.
type Key struct {
	Name string
	// Transit is the URI of a Transit key as it was written: its scheme is
	// hashivault or openbao, the rest is unchecked.
	Transit string
	// PublicKey is PEM that signature.ParsePublicKeys has accepted.
	PublicKey []byte
	// PublicKeyFile is a path as it was written; where it is relative, to the
	// policy file.
	PublicKeyFile string
}

// Match returns the statement whose scope covers repository ("registry/path",
// no tag, no digest) most closely. Where none does the error is *NoMatchError.
// The caller may change what it gets; the policy does not change with it.
func (p Policy) Match(repository string) (Statement, error) {
	name, reason := normalise(repository)
	if reason != "" {
		return Statement{}, &NoMatchError{Repository: repository, Reason: reason}
	}
	var best *statement
	var closest scope
	for i := range p.statements {
		for _, s := range p.statements[i].scopes {
			if s.covers(name) && (best == nil || s.closerThan(closest)) {
				best, closest = &p.statements[i], s
			}
		}
	}
	if best == nil {
		return Statement{}, &NoMatchError{Repository: repository}
	}
	keys := slices.Clone(best.keys)
	for i := range keys {
		keys[i].PublicKey = bytes.Clone(keys[i].PublicKey)
	}
	return Statement{Name: best.name, Keys: keys}, nil
}

// Statements returns the statements' names in the document's order.
func (p Policy) Statements() []string {
	names := make([]string, 0, len(p.statements))
	for _, s := range p.statements {
		names = append(names, s.name)
	}
	return names
}
