// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// The names of the rules, as a policy's fields are named where one asks for it.
const (
	RuleSignature   = "signature" // the key accepts
	RuleSubject     = "subject"
	RuleFormats     = "formats"
	RuleExpiry      = "expiry"
	RuleClock       = "clock"
	RuleTimestamp   = "timestamp"
	RuleCertificate = "certificate"
	RuleMaxAge      = "maxAge"
	RuleNotBefore   = "notBefore"
	RuleRepository  = "requireRepository"
	RuleAnnotations = "annotations"
	RuleBuilder     = "builder"
	RuleMinVersion  = "minVersion"
	RuleRevoked     = "revoked"
	RuleRevocation  = "revocation"
	RuleSigner      = "signer"
	RuleRequire     = "require"
)

// RuleError is a refusal by one rule.
type RuleError interface {
	error
	// Rule is one of the names above.
	Rule() string
}

// Rule names the rule that refused.
func (e *SubjectError) Rule() string { return RuleSubject }

// Rule names the rule that refused.
func (e *ExpiredError) Rule() string { return RuleExpiry }

// Rule names the rule that refused.
func (e *FutureError) Rule() string { return RuleClock }

// Rule names the rule that refused.
func (e *CertificateTimeError) Rule() string { return RuleCertificate }

// Rule names the rule that refused.
func (e *AnnotationError) Rule() string { return RuleAnnotations }

// FormatError means that signatures of this format do not count here.
type FormatError struct {
	Format  signature.Format
	Allowed []signature.Format
}

func (e *FormatError) Error() string {
	allowed := make([]string, len(e.Allowed))
	for i, f := range e.Allowed {
		allowed[i] = string(f)
	}
	return fmt.Sprintf("format %s does not count, only %s", e.Format, strings.Join(allowed, ", "))
}

// Rule names the rule that refused.
func (e *FormatError) Rule() string { return RuleFormats }

// MissingClaimError means that a signature does not say what a rule asks for.
type MissingClaimError struct {
	// For is the rule.
	For   string
	Claim string
}

func (e *MissingClaimError) Error() string {
	return fmt.Sprintf("it has no %s, which %s asks for", e.Claim, e.For)
}

// Rule names the rule that refused.
func (e *MissingClaimError) Rule() string { return e.For }

// AgeError means that a signature is older than allowed.
type AgeError struct {
	At       string
	Age, Max time.Duration
}

func (e *AgeError) Error() string {
	return fmt.Sprintf("too old: of %s, %s ago, more than %s", e.At, e.Age, e.Max)
}

// Rule names the rule that refused.
func (e *AgeError) Rule() string { return RuleMaxAge }

// NotBeforeError means that a signature was made before those that count.
type NotBeforeError struct{ SignedAt, NotBefore string }

func (e *NotBeforeError) Error() string {
	return fmt.Sprintf("signed at %s, before %s", e.SignedAt, e.NotBefore)
}

// Rule names the rule that refused.
func (e *NotBeforeError) Rule() string { return RuleNotBefore }

// RepositoryError means that a signature was made for another repository.
type RepositoryError struct{ Claimed, Want string }

func (e *RepositoryError) Error() string {
	return fmt.Sprintf("signed for repository %q, not %s", e.Claimed, e.Want)
}

// Rule names the rule that refused.
func (e *RepositoryError) Rule() string { return RuleRepository }

// BuilderError means that a required builder claim is not signed, or differs.
type BuilderError struct {
	Key, Want, Got string
	Missing        bool
}

func (e *BuilderError) Error() string {
	if e.Missing {
		return fmt.Sprintf("builder %s=%s is not signed", e.Key, e.Want)
	}
	return fmt.Sprintf("builder %s is %q, not %q", e.Key, e.Got, e.Want)
}

// Rule names the rule that refused.
func (e *BuilderError) Rule() string { return RuleBuilder }

// VersionError means that an older version of a key signed than counts. Version
// is zero when it is not known.
type VersionError struct {
	Key          string
	Version, Min int
}

func (e *VersionError) Error() string {
	if e.Version == 0 {
		return fmt.Sprintf("the version of key %s is not known, and versions from %d count", e.Key, e.Min)
	}
	return fmt.Sprintf("version %d of key %s signed, and versions from %d count", e.Version, e.Key, e.Min)
}

// Rule names the rule that refused.
func (e *VersionError) Rule() string { return RuleMinVersion }

// RevokedError means that the manifest or the key that signed is revoked.
type RevokedError struct{ What string }

func (e *RevokedError) Error() string { return e.What + " is revoked" }

// Rule names the rule that refused.
func (e *RevokedError) Rule() string { return RuleRevoked }

// SharedKeyError means that a signature counts already, under another key's name
// for the same public key.
type SharedKeyError struct{ Key, Other string }

func (e *SharedKeyError) Error() string {
	return fmt.Sprintf("%s is the public key of %s too: it counts once", e.Key, e.Other)
}

// Rule names the rule that refused.
func (e *SharedKeyError) Rule() string { return RuleSigner }

// SignersError means that fewer distinct signers have signed than must.
type SignersError struct {
	Want int
	// Have are the keys that count.
	Have []string
}

func (e *SignersError) Error() string {
	return fmt.Sprintf("%d of %d signers: %s", len(e.Have), e.Want, strings.Join(e.Have, ", "))
}

// Rule names the rule that refused.
func (e *SignersError) Rule() string { return RuleRequire }

// KeyUnreadableError means that a key accepts and does not say which public key
// it is, which a rule has to know. It is doubt and no refusal.
type KeyUnreadableError struct {
	Key string
	// For is the rule.
	For string
}

func (e *KeyUnreadableError) Error() string {
	what := "whether its key is revoked"
	if e.For == RuleSigner {
		what = "whether it is another signer's key"
	}
	return fmt.Sprintf("%s accepts, but cannot tell %s: it needs \"read\" on the Transit key, or the public key beside it", e.Key, what)
}

// Rule names the rule that cannot decide.
func (e *KeyUnreadableError) Rule() string { return e.For }
