// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// ClockSkew is how far the signer's clock may be from ours.
const ClockSkew = 5 * time.Minute

// firstWave is how many candidates are examined before any key that a server
// holds is asked: nearly always the accepted one is among them.
const firstWave = 8

// Options of a Verifier. The zero value is usable.
type Options struct {
	// MaxCandidates bounds the referrers examined. Zero means 100, as notation
	// has it. It stops a pusher of junk from keeping a verifier busy.
	MaxCandidates int
	// Concurrency bounds the requests to the Source at once. Zero means 8.
	Concurrency int
	// Now reports the time used for expiry. Nil means time.Now.
	Now func() time.Time
}

// Verifier judges signatures.
type Verifier struct{ opts Options }

// New returns a Verifier.
func New(o Options) *Verifier {
	if o.MaxCandidates <= 0 {
		o.MaxCandidates = 100
	}
	if o.Concurrency <= 0 {
		o.Concurrency = firstWave
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Verifier{opts: o}
}

// Requirement is what has to hold: a signature that any one of Keys accepts.
type Requirement struct {
	// Name is reported with the result.
	Name string
	Keys []signature.Key
	// Annotations are claims that the signature must carry, with these values.
	Annotations map[string]string
}

// Verify judges the signatures of subject and returns evidence that req is met.
// Keys that need nobody are asked first; the others are asked about all
// candidates in one call each, twice at most. One acceptance is enough, even
// where another key or candidate could not be asked.
func (v *Verifier) Verify(ctx context.Context, subject signature.Subject, src Source, req Requirement) (Verified, error) {
	if subject.IsZero() {
		return Verified{}, errors.New("verify: no subject")
	}
	if len(req.Keys) == 0 {
		return Verified{}, errors.New("verify: no key to verify with")
	}
	descs, more, err := ordered(ctx, src, subject, v.opts.MaxCandidates)
	if err != nil {
		return Verified{}, &UndecidedError{Subject: subject.Digest(), Causes: []error{err}}
	}
	j := &judgement{subject: subject, now: v.opts.Now(), keys: localFirst(req.Keys), annotations: req.Annotations}
	if more {
		j.causes = append(j.causes, fmt.Errorf("%w (%d)", ErrTooMany, v.opts.MaxCandidates))
	}
	for _, wave := range waves(descs) {
		found := examine(ctx, src, subject, wave, v.opts.Concurrency)
		if a, ok := j.judge(ctx, found); ok {
			return Verified{subject: subject, policy: req.Name, accepted: []Accepted{a}}, nil
		}
		if err := context.Cause(ctx); err != nil {
			return Verified{}, &UndecidedError{Subject: subject.Digest(), Causes: []error{err}}
		}
	}
	return Verified{}, j.refusal()
}

func waves(descs []ocispec.Descriptor) [][]ocispec.Descriptor {
	if len(descs) <= firstWave {
		return [][]ocispec.Descriptor{descs}
	}
	return [][]ocispec.Descriptor{descs[:firstWave], descs[firstWave:]}
}

func localFirst(keys []signature.Key) []signature.Key {
	sorted := slices.Clone(keys)
	slices.SortStableFunc(sorted, func(a, b signature.Key) int {
		switch {
		case a.Local() == b.Local():
			return 0
		case a.Local():
			return -1
		}
		return 1
	})
	return sorted
}

// judgement collects what was found, so that the refusal can say all of it.
type judgement struct {
	subject signature.Subject
	now     time.Time
	keys    []signature.Key

	annotations map[string]string

	foreign int
	reasons []Rejection
	causes  []error
}

// judge looks at candidates and returns the first that a key accepts.
func (j *judgement) judge(ctx context.Context, found []*candidate) (Accepted, bool) {
	open := j.usable(found)
	if len(open) == 0 {
		return Accepted{}, false
	}
	envs := make([]*signature.Envelope, len(open))
	for i, c := range open {
		envs[i] = c.envelope
	}
	for _, k := range j.keys {
		for i, o := range signature.Open(ctx, k, envs) {
			if a, ok := j.decide(k, open[i], o); ok {
				return a, true
			}
		}
	}
	return Accepted{}, false
}

// usable sorts out the candidates that no key needs to be asked about.
func (j *judgement) usable(found []*candidate) []*candidate {
	var open []*candidate
	for _, c := range found {
		switch {
		case c.foreign:
			j.foreign++
		case c.unfetched != nil:
			j.causes = append(j.causes, c.unfetched)
		case c.reason != nil:
			j.reasons = append(j.reasons, Rejection{Manifest: c.desc.Digest, Err: c.reason})
		case slices.ContainsFunc(open, func(o *candidate) bool { return o.envelope.Same(c.envelope) }):
			// A copy under another manifest: judged once. One whose hint differs is
			// no copy, or a false hint in front could hide the true one.
			j.reasons = append(j.reasons, Rejection{Manifest: c.desc.Digest, Err: &CandidateError{"a copy of another candidate"}})
		default:
			open = append(open, c)
		}
	}
	return open
}

// decide turns one key's answer about one candidate into an acceptance or a
// recorded reason. The checks stand in the order in which they must hold.
func (j *judgement) decide(k signature.Key, c *candidate, o signature.Opened) (Accepted, bool) {
	name := k.ID().Name
	err := o.Err
	var bad *signature.StatementError
	if err != nil && !errors.Is(err, signature.ErrInvalid) && !errors.As(err, &bad) {
		j.causes = append(j.causes, fmt.Errorf("%s: %w", name, err))
		return Accepted{}, false
	}
	if err == nil {
		err = subjectMatches(o.Statement, j.subject)
	}
	if err == nil {
		err = notExpired(o.Statement.Claims, j.now)
	}
	if err == nil {
		err = notFromTheFuture(o.Statement.Claims, j.now)
	}
	if err == nil {
		err = certificatesValid(o.Statement, j.now)
	}
	if err == nil {
		err = annotationsMatch(o.Statement.Claims, j.annotations)
	}
	if err != nil {
		j.reasons = append(j.reasons, Rejection{Manifest: c.desc.Digest, Key: name, Err: err})
		return Accepted{}, false
	}
	return Accepted{
		Format:            c.envelope.Format(),
		Manifest:          c.desc.Digest,
		Key:               name,
		KeyType:           k.ID().Type,
		KeyVersion:        o.KeyVersion,
		Claims:            o.Statement.Claims,
		ManifestBytes:     c.manifest,
		Envelope:          c.envelopeBytes,
		EnvelopeMediaType: c.layer.MediaType,
	}, true
}

func subjectMatches(st signature.Statement, s signature.Subject) error {
	if st.Digest != s.Digest() ||
		(st.MediaType != "" && st.MediaType != s.MediaType()) ||
		(st.Size != 0 && st.Size != s.Size()) {
		return &SubjectError{Signed: st.Digest, Want: s.Digest()}
	}
	return nil
}

func notExpired(c signature.Claims, now time.Time) error {
	if !c.Expires.IsZero() && now.Add(-ClockSkew).After(c.Expires) {
		return &ExpiredError{Expires: c.Expires.UTC().Format(time.RFC3339)}
	}
	return nil
}

// certificatesValid holds the certificates of formats that have them against the
// clock. Whoever stole a key could claim any signing time, so that only a trusted
// timestamp could stand for now, and none is asked for here.
func certificatesValid(st signature.Statement, now time.Time) error {
	if st.ValidUntil.IsZero() {
		return nil
	}
	if now.Add(-ClockSkew).After(st.ValidUntil) || now.Add(ClockSkew).Before(st.ValidFrom) {
		return &CertificateTimeError{From: st.ValidFrom.UTC().Format(time.RFC3339), Until: st.ValidUntil.UTC().Format(time.RFC3339)}
	}
	return nil
}

func notFromTheFuture(c signature.Claims, now time.Time) error {
	if c.SignedAt.After(now.Add(ClockSkew)) {
		return &FutureError{SignedAt: c.SignedAt.UTC().Format(time.RFC3339)}
	}
	return nil
}

func annotationsMatch(c signature.Claims, want map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got, ok := c.Annotations[k]; !ok || got != want[k] {
			return &AnnotationError{Key: k, Want: want[k], Got: got, Missing: !ok}
		}
	}
	return nil
}

// refusal says which of the three outcomes it is. Doubt comes before judgement:
// what could not be examined might have been the signature that counts.
func (j *judgement) refusal() error {
	dgst := j.subject.Digest()
	switch {
	case len(j.causes) > 0:
		return &UndecidedError{Subject: dgst, Causes: j.causes, Reasons: j.reasons}
	case len(j.reasons) > 0:
		return &RejectedError{Subject: dgst, Reasons: j.reasons}
	}
	return &NoSignatureError{Subject: dgst, Referrers: j.foreign}
}
