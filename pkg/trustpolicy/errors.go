// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ParseError says why a document is no trust policy.
type ParseError struct {
	// Line counts from 1, and is 1 where the document as a whole is at fault.
	Line int
	// Reason names the field, as in policies[0].keys[1].publicKey, where one is at
	// fault.
	Reason string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("trust policy: line %d: %s", e.Line, e.Reason)
}

// NoMatchError means that no statement covers the repository. Nothing is allowed
// by default, so it is a refusal.
type NoMatchError struct {
	Repository string
	// Reason is set when the string is no repository at all, and no scope, "*"
	// included, could cover it.
	Reason string
}

func (e *NoMatchError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("trust policy: %q is not a repository: %s", clip(e.Repository), e.Reason)
	}
	return fmt.Sprintf("trust policy: no statement covers %s: nothing is allowed by default", clip(e.Repository))
}

// fault is a ParseError at a node; path is the field as the user would name it.
func fault(n *yaml.Node, path, format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	if path != "" {
		reason = path + ": " + reason
	}
	return &ParseError{Line: max(n.Line, 1), Reason: reason}
}

// clip keeps what somebody else wrote from filling a message.
func clip(s string) string {
	const limit = 120
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.ToValidUTF8(s[:cut], "") + "..."
}
