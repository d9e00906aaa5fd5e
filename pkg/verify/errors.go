// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ErrTooMany means that there were more candidates, or bytes of candidates, than
// the caps allow, and none of those examined was accepted. Whoever may push
// referrers can force it.
var ErrTooMany = errors.New("more candidate signatures than will be examined")

// NoSignatureError means that no referrer of the subject is a signature.
type NoSignatureError struct {
	Subject digest.Digest
	// Referrers is the number of referrers that are something else.
	Referrers int
}

func (e *NoSignatureError) Error() string {
	if e.Referrers == 0 {
		return "no signature attached"
	}
	return fmt.Sprintf("no signature attached (%d other referrers)", e.Referrers)
}

// Rejection is why one candidate does not count.
type Rejection struct {
	// Manifest is the digest of the candidate's manifest; empty for a signature
	// that stands alone, and where the reason is no single candidate's.
	Manifest digest.Digest
	// Key is the key that gave the reason; empty when no key was asked.
	Key string
	Err error
}

func (r Rejection) Error() string {
	if r.Manifest == "" {
		if r.Key == "" {
			return r.Err.Error()
		}
		return fmt.Sprintf("%s: %v", r.Key, r.Err)
	}
	if r.Key == "" {
		return fmt.Sprintf("%s: %v", short(r.Manifest), r.Err)
	}
	return fmt.Sprintf("%s: %s: %v", short(r.Manifest), r.Key, r.Err)
}

func (r Rejection) Unwrap() error { return r.Err }

// RejectedError means that there are signatures and none counts.
type RejectedError struct {
	Subject digest.Digest
	// Reasons has one entry for each candidate and key, in the order tried.
	Reasons []Rejection
}

func (e *RejectedError) Error() string {
	return "no signature is accepted: " + list(e.Reasons)
}

// Unwrap returns the reasons.
func (e *RejectedError) Unwrap() []error { return asErrors(e.Reasons) }

// UndecidedError means that no signature was accepted and at least one could not
// be judged. Causes say why; Reasons are the candidates that were rejected
// nevertheless.
type UndecidedError struct {
	Subject digest.Digest
	Causes  []error
	Reasons []Rejection
}

func (e *UndecidedError) Error() string {
	parts := make([]string, 0, len(e.Causes))
	for _, c := range e.Causes {
		parts = append(parts, c.Error())
	}
	s := "could not judge the signatures: " + limited(parts)
	if len(e.Reasons) > 0 {
		s += "; rejected: " + list(e.Reasons)
	}
	return s
}

// Unwrap returns the causes.
func (e *UndecidedError) Unwrap() []error { return e.Causes }

// SubjectError means that the signed content names another manifest.
type SubjectError struct{ Signed, Want digest.Digest }

func (e *SubjectError) Error() string {
	return fmt.Sprintf("subject differs: it signs %s", e.Signed)
}

// ExpiredError means that the signature's own expiry has passed.
type ExpiredError struct{ Expires string }

func (e *ExpiredError) Error() string { return "expired at " + e.Expires }

// FutureError means that the signature claims to be made later than now.
type FutureError struct{ SignedAt string }

func (e *FutureError) Error() string { return "signed in the future, at " + e.SignedAt }

// CertificateTimeError means that a certificate of the signature is not valid now.
type CertificateTimeError struct{ From, Until string }

func (e *CertificateTimeError) Error() string {
	return fmt.Sprintf("its certificates are valid from %s to %s only", e.From, e.Until)
}

// AnnotationError means that a required annotation is not signed, or differs.
type AnnotationError struct {
	Key, Want, Got string
	Missing        bool
}

func (e *AnnotationError) Error() string {
	if e.Missing {
		return fmt.Sprintf("annotation %s=%s is not signed", e.Key, e.Want)
	}
	return fmt.Sprintf("annotation %s is %q, not %q", e.Key, e.Got, e.Want)
}

// CandidateError means that a referrer calls itself a signature and is none.
type CandidateError struct{ Reason string }

func (e *CandidateError) Error() string { return e.Reason }

const maxListed = 8

func list(reasons []Rejection) string {
	parts := make([]string, len(reasons))
	for i, r := range reasons {
		parts[i] = r.Error()
	}
	return limited(parts)
}

// limited keeps one message on a screen, however many candidates there were.
func limited(parts []string) string {
	if n := len(parts) - maxListed; n > 0 {
		parts = append(parts[:maxListed:maxListed], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(parts, "; ")
}

func asErrors(reasons []Rejection) []error {
	errs := make([]error, len(reasons))
	for i, r := range reasons {
		errs[i] = r
	}
	return errs
}

// short abbreviates a digest for messages that also name the subject in full.
func short(d digest.Digest) string {
	if s := d.String(); len(s) > 19 {
		return s[:19]
	}
	return d.String()
}
