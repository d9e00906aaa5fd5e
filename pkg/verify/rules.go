// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// opened is a signature that a key has accepted, and what it is judged by. It
// lives as long as the call that ctx is of.
type opened struct {
	ctx     context.Context
	req     *Requirement
	subject signature.Subject
	now     time.Time

	key        string
	keyVersion int
	spki       []byte
	format     signature.Format
	statement  signature.Statement

	stampJudged bool
	stamped     signature.Stamped
	stampErr    error
	// lookedUp is what those who were asked said, by whom it is about.
	lookedUp map[string][]CertificateStatus
}

// rule is one thing that must hold of an opened signature. judge says what it
// saw, and why that does not do.
type rule struct {
	name  string
	asked func(*Requirement) bool // nil: always
	judge func(*opened) (saw string, err error)
}

// rules are all of them, in the order in which they must hold. What needs the
// public key, or somebody who is asked, comes last: only a signature that counts
// otherwise may end in doubt because nobody says.
func rules() []rule {
	return []rule{
		{RuleSubject, nil, subjectMatches},
		{RuleFormats, func(r *Requirement) bool { return len(r.Formats) > 0 }, formatAllowed},
		{RuleExpiry, nil, notExpired},
		{RuleClock, nil, notFromTheFuture},
		{RuleTimestamp, func(r *Requirement) bool { return r.Stamps.Judge != nil }, stampTrusted},
		{RuleCertificate, nil, certificatesValid},
		{RuleMaxAge, func(r *Requirement) bool { return r.MaxAge.Is > 0 }, youngEnough},
		{RuleNotBefore, func(r *Requirement) bool { return !r.NotBefore.IsZero() }, lateEnough},
		{RuleRepository, func(r *Requirement) bool { return r.Repository != "" }, repositoryMatches},
		{RuleAnnotations, func(r *Requirement) bool { return len(r.Annotations) > 0 }, annotationsMatch},
		{RuleBuilder, func(r *Requirement) bool { return len(r.Builder) > 0 }, builderMatches},
		{RuleMinVersion, func(r *Requirement) bool { return len(r.MinVersions) > 0 }, versionAllowed},
		{RuleRevoked, func(r *Requirement) bool { return len(r.Revoked.Versions)+len(r.Revoked.Keys) > 0 }, keyNotRevoked},
		{RuleSigner, (*Requirement).several, identityKnown},
		{RuleRevocation, (*Requirement).looksUp, certificatesNotRevoked},
	}
}

func (r *Requirement) several() bool { return r.Require > 1 }

// broken returns why o does not count; nil when every rule holds, but for those
// named.
func (o *opened) broken(but ...string) error {
	for _, r := range rules() {
		if slices.Contains(but, r.name) || r.asked != nil && !r.asked(o.req) {
			continue
		}
		if _, err := r.judge(o); err != nil {
			return err
		}
	}
	return nil
}

// results judges every rule, whatever the others say.
func (o *opened) results() []RuleResult {
	var out []RuleResult
	for _, r := range rules() {
		if r.asked != nil && !r.asked(o.req) {
			continue
		}
		saw, err := r.judge(o)
		res := RuleResult{Rule: r.name, Saw: saw, Holds: err == nil}
		if err != nil {
			res.Reason = err.Error()
		}
		out = append(out, res)
	}
	return out
}

func subjectMatches(o *opened) (string, error) {
	st, s := o.statement, o.subject
	if st.Digest != s.Digest() ||
		(st.MediaType != "" && st.MediaType != s.MediaType()) ||
		(st.Size != 0 && st.Size != s.Size()) {
		return st.Digest.String(), &SubjectError{Signed: st.Digest, Want: s.Digest()}
	}
	return st.Digest.String(), nil
}

func formatAllowed(o *opened) (string, error) {
	if !o.req.allows(o.format) {
		return string(o.format), &FormatError{Format: o.format, Allowed: o.req.Formats}
	}
	return string(o.format), nil
}

func notExpired(o *opened) (string, error) {
	c := o.statement.Claims
	if c.Expires.IsZero() {
		return "no expiry", nil
	}
	if o.now.Add(-ClockSkew).After(c.Expires) {
		return stamp(c.Expires), &ExpiredError{Expires: stamp(c.Expires)}
	}
	return stamp(c.Expires), nil
}

func notFromTheFuture(o *opened) (string, error) {
	c := o.statement.Claims
	if c.SignedAt.After(o.now.Add(ClockSkew)) {
		return stamp(c.SignedAt), &FutureError{SignedAt: stamp(c.SignedAt)}
	}
	return orNone(c.SignedAt, "no signing time"), nil
}

// certificatesValid holds the certificates of formats that have them against the
// clock. Whoever stole a key could claim any signing time, so that only a trusted
// timestamp from before they expired can stand for now.
func certificatesValid(o *opened) (string, error) {
	st := o.statement
	if st.ValidUntil.IsZero() {
		return "no certificate", nil
	}
	saw := stamp(st.ValidFrom) + " to " + stamp(st.ValidUntil)
	expired := o.now.Add(-ClockSkew).After(st.ValidUntil)
	if at, err := o.trustedStamp(); expired && err == nil && !at.Until.IsZero() {
		return saw + ", timestamped before", nil
	}
	if expired || o.now.Add(ClockSkew).Before(st.ValidFrom) {
		return saw, &CertificateTimeError{From: stamp(st.ValidFrom), Until: stamp(st.ValidUntil)}
	}
	return saw, nil
}

func youngEnough(o *opened) (string, error) {
	claim := "signedAt"
	if o.req.MaxAge.Stamped {
		claim = claimStamp
	}
	at := o.madeAt(o.req.MaxAge.Stamped)
	if at.IsZero() {
		return "no " + claim, &MissingClaimError{For: RuleMaxAge, Claim: claim}
	}
	// The future is no age: a stamp from there would never grow old.
	if at.After(o.now.Add(ClockSkew)) {
		return stamp(at), &FutureError{SignedAt: stamp(at)}
	}
	if age := o.now.Sub(at); age-ClockSkew > o.req.MaxAge.Is {
		return stamp(at), &AgeError{At: stamp(at), Age: age.Truncate(time.Second), Max: o.req.MaxAge.Is}
	}
	return stamp(at), nil
}

func lateEnough(o *opened) (string, error) {
	// A claim of later than the stamp is none: the signature was there before.
	at := o.madeAt(false)
	if at.IsZero() {
		return "no signedAt", &MissingClaimError{For: RuleNotBefore, Claim: "signedAt"}
	}
	if at.Before(o.req.NotBefore) {
		return stamp(at), &NotBeforeError{SignedAt: stamp(at), NotBefore: stamp(o.req.NotBefore)}
	}
	return stamp(at), nil
}

func repositoryMatches(o *opened) (string, error) {
	claimed := o.statement.Claims.Repository
	if claimed == "" {
		return "no repository", &MissingClaimError{For: RuleRepository, Claim: "repository"}
	}
	if foldHost(claimed) != foldHost(o.req.Repository) {
		return claimed, &RepositoryError{Claimed: claimed, Want: o.req.Repository}
	}
	return claimed, nil
}

// foldHost lowers the registry's host, which has no case. ASCII alone is lowered:
// strings.ToLower makes a k of the Kelvin sign.
func foldHost(repository string) string {
	host, path, found := strings.Cut(repository, "/")
	host = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, host)
	if !found {
		return host
	}
	return host + "/" + path
}

func annotationsMatch(o *opened) (string, error) {
	got := o.statement.Claims.Annotations
	key, missing, ok := mismatch(got, o.req.Annotations)
	if !ok {
		return shown(got, o.req.Annotations), &AnnotationError{Key: key, Want: o.req.Annotations[key], Got: got[key], Missing: missing}
	}
	return shown(got, o.req.Annotations), nil
}

func builderMatches(o *opened) (string, error) {
	got := o.statement.Claims.Builder
	key, missing, ok := mismatch(got, o.req.Builder)
	if !ok {
		return shown(got, o.req.Builder), &BuilderError{Key: key, Want: o.req.Builder[key], Got: got[key], Missing: missing}
	}
	return shown(got, o.req.Builder), nil
}

// mismatch returns the first key of want that got lacks or has otherwise.
func mismatch(got, want map[string]string) (key string, missing, ok bool) {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, found := got[k]; !found || v != want[k] {
			return k, !found, false
		}
	}
	return "", false, true
}

// shown are the values that were asked for.
func shown(got, want map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, found := got[k]; found {
			parts = append(parts, k+"="+v)
		} else {
			parts = append(parts, "no "+k)
		}
	}
	return strings.Join(parts, ", ")
}

func versionAllowed(o *opened) (string, error) {
	least := o.req.MinVersions[o.key]
	if least > 0 && o.keyVersion < least {
		return versionShown(o), &VersionError{Key: o.key, Version: o.keyVersion, Min: least}
	}
	return versionShown(o), nil
}

func versionShown(o *opened) string {
	if o.keyVersion == 0 {
		return "no version"
	}
	return fmt.Sprintf("version %d", o.keyVersion)
}

func keyNotRevoked(o *opened) (string, error) {
	saw := versionShown(o)
	if slices.Contains(o.req.Revoked.Versions, KeyVersion{Key: o.key, Version: o.keyVersion}) {
		return saw, &RevokedError{What: fmt.Sprintf("version %d of key %s", o.keyVersion, o.key)}
	}
	if len(o.req.Revoked.Keys) == 0 {
		return saw, nil
	}
	if o.spki == nil {
		return saw + ", unknown public key", &KeyUnreadableError{Key: o.key, For: RuleRevoked}
	}
	d := spkiDigest(o.spki)
	if slices.Contains(o.req.Revoked.Keys, d) {
		return d.String(), &RevokedError{What: "public key " + d.String()}
	}
	return d.String(), nil
}

// identityKnown is asked where several signers must sign: a key that does not say
// which public key accepted could be another entry's key.
func identityKnown(o *opened) (string, error) {
	if o.spki == nil {
		return "unknown public key", &KeyUnreadableError{Key: o.key, For: RuleSigner}
	}
	return spkiDigest(o.spki).String(), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func orNone(t time.Time, none string) string {
	if t.IsZero() {
		return none
	}
	return stamp(t)
}
