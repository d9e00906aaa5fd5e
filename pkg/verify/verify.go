// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
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

// Verify judges the signatures of subject and returns evidence that req is met.
// Keys that need nobody are asked first; the others are asked about all
// candidates in one call each, twice at most. It ends as soon as enough signers
// count, even where another key or candidate could not be asked.
func (v *Verifier) Verify(ctx context.Context, subject signature.Subject, src Source, req Requirement) (Verified, error) {
	j := v.judgement(subject, req)
	if err := v.run(ctx, j, src); err != nil {
		return Verified{}, err
	}
	return j.verified(), nil
}

func (v *Verifier) judgement(subject signature.Subject, req Requirement) *judgement {
	return &judgement{subject: subject, now: v.opts.Now(), req: req, keys: localFirst(req.Keys), owners: make(map[string]int)}
}

// run returns nil when the requirement is met.
func (v *Verifier) run(ctx context.Context, j *judgement, src Source) error {
	if j.subject.IsZero() {
		return errors.New("verify: no subject")
	}
	if err := j.req.check(); err != nil {
		return err
	}
	// Whatever is attached, and before anybody is asked.
	if d := j.subject.Digest(); slices.Contains(j.req.Revoked.Subjects, d) {
		return &RejectedError{Subject: d, Reasons: []Rejection{{Err: &RevokedError{What: "manifest " + d.String()}}}}
	}
	descs, more, err := ordered(ctx, src, j.subject, v.opts.MaxCandidates)
	if err != nil {
		return &UndecidedError{Subject: j.subject.Digest(), Causes: []error{err}}
	}
	if more {
		j.more = true
		j.causes = append(j.causes, fmt.Errorf("%w (%d)", ErrTooMany, v.opts.MaxCandidates))
	}
	for _, wave := range waves(descs) {
		found := examine(ctx, src, j.subject, wave, v.opts.Concurrency)
		if j.judge(ctx, found) {
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return &UndecidedError{Subject: j.subject.Digest(), Causes: []error{err}}
		}
	}
	if j.met() {
		return nil
	}
	return j.refusal()
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
	req     Requirement
	keys    []signature.Key

	foreign int
	more    bool
	reasons []Rejection
	causes  []error

	accepted []counted
	// owners says under which key a public key counts.
	owners map[string]int
	// explained is set where everything is to be judged and told.
	explained *[]Explained
}

// counted is an accepted signature and the key that it counts for.
type counted struct {
	Accepted
	key       int
	candidate *candidate
}

// met reports that enough distinct signers count.
func (j *judgement) met() bool {
	return len(j.signers()) >= j.req.signers()
}

// signers are the names of the keys that count.
func (j *judgement) signers() []string {
	var names []string
	seen := make(map[int]bool)
	for _, a := range j.accepted {
		if !seen[a.key] {
			seen[a.key] = true
			names = append(names, a.Key)
		}
	}
	return names
}

func (j *judgement) verified() Verified {
	v := Verified{subject: j.subject, policy: j.req.Name}
	for _, a := range j.accepted {
		v.accepted = append(v.accepted, a.Accepted)
	}
	return v
}

// judge asks each key about the candidates that no key before it accepted, and
// reports whether that is enough. An explanation asks on.
func (j *judgement) judge(ctx context.Context, found []*candidate) bool {
	open := j.usable(found)
	for i, k := range j.keys {
		left := slices.DeleteFunc(slices.Clone(open), func(c *candidate) bool {
			return slices.ContainsFunc(j.accepted, func(a counted) bool { return a.candidate == c })
		})
		if len(left) == 0 {
			break
		}
		envs := make([]*signature.Envelope, len(left))
		for n, c := range left {
			envs[n] = c.envelope
		}
		for n, o := range signature.Open(ctx, k, envs) {
			if a, ok := j.decide(ctx, i, k, left[n], o); ok {
				j.accepted = append(j.accepted, counted{Accepted: a, key: i, candidate: left[n]})
			}
		}
		if j.explained == nil && j.met() {
			return true
		}
	}
	return j.explained == nil && j.met()
}

// usable sorts out the candidates that no key needs to be asked about.
func (j *judgement) usable(found []*candidate) []*candidate {
	var open []*candidate
	for _, c := range found {
		switch reason := j.unusable(c, open); {
		case c.foreign:
			j.foreign++
			j.tell(c, "other", nil)
		case c.unfetched != nil:
			j.causes = append(j.causes, c.unfetched)
			j.tell(c, "undecided", c.unfetched)
		case reason != nil:
			j.reasons = append(j.reasons, Rejection{Manifest: c.desc.Digest, Err: reason})
			j.tell(c, "rejected", reason)
		default:
			open = append(open, c)
			j.tell(c, "judged", nil)
		}
	}
	return open
}

// unusable says why no key needs to be asked about c.
func (j *judgement) unusable(c *candidate, open []*candidate) error {
	switch {
	case c.reason != nil || c.envelope == nil:
		return c.reason
	case !j.req.allows(c.envelope.Format()):
		return &FormatError{Format: c.envelope.Format(), Allowed: j.req.Formats}
	case slices.ContainsFunc(open, func(o *candidate) bool { return o.envelope.Same(c.envelope) }):
		// A copy under another manifest: judged once. One whose hint differs is
		// no copy, or a false hint in front could hide the true one.
		return &CandidateError{"a copy of another candidate"}
	}
	return nil
}

// decide turns one key's answer about one candidate into an acceptance or a
// recorded reason.
func (j *judgement) decide(ctx context.Context, i int, k signature.Key, c *candidate, o signature.Opened) (Accepted, bool) {
	id := k.ID()
	err := o.Err
	var bad *signature.StatementError
	if err != nil && !errors.Is(err, signature.ErrInvalid) && !errors.As(err, &bad) {
		j.causes = append(j.causes, fmt.Errorf("%s: %w", id.Name, err))
		j.answer(c, k, o, nil, err)
		return Accepted{}, false
	}
	what := &opened{
		ctx: ctx, req: &j.req, subject: j.subject, now: j.now, key: id.Name, keyVersion: o.KeyVersion, spki: o.SPKI,
		format: c.envelope.Format(), statement: o.Statement,
	}
	if err == nil {
		err = what.broken()
	}
	if err == nil {
		err = j.countsOnce(i, c, o)
	}
	j.answer(c, k, o, what, err)
	switch {
	case doubtful(err):
		j.causes = append(j.causes, err)
		return Accepted{}, false
	case err != nil:
		j.reasons = append(j.reasons, Rejection{Manifest: c.desc.Digest, Key: id.Name, Err: err})
		return Accepted{}, false
	}
	if o.SPKI != nil && j.owners != nil {
		j.owners[string(o.SPKI)] = i
	}
	return Accepted{
		Format:            c.envelope.Format(),
		Manifest:          c.desc.Digest,
		Key:               id.Name,
		KeyType:           id.Type,
		KeyVersion:        o.KeyVersion,
		Claims:            o.Statement.Claims,
		ManifestBytes:     c.manifest,
		Envelope:          c.envelopeBytes,
		EnvelopeMediaType: c.layer.MediaType,
	}, true
}

// countsOnce refuses a second count of one public key, and of one message: (r, s)
// and (r, n-s) are both valid, and whoever copies a signature can make the other.
func (j *judgement) countsOnce(i int, c *candidate, o signature.Opened) error {
	if owner, taken := j.owners[string(o.SPKI)]; taken && o.SPKI != nil && owner != i {
		return &SharedKeyError{Key: j.keys[i].ID().Name, Other: j.keys[owner].ID().Name}
	}
	for _, a := range j.accepted {
		if a.key == i && a.candidate.envelope.SameMessage(c.envelope) {
			return &CandidateError{"the same message, signed by the same key, counts already"}
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
	case len(j.accepted) > 0:
		few := Rejection{Err: &SignersError{Want: j.req.signers(), Have: j.signers()}}
		return &RejectedError{Subject: dgst, Reasons: append([]Rejection{few}, j.reasons...)}
	case len(j.reasons) > 0:
		return &RejectedError{Subject: dgst, Reasons: j.reasons}
	}
	return &NoSignatureError{Subject: dgst, Referrers: j.foreign}
}
