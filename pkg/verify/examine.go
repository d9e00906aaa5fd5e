// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Finding is what Examine says about one referrer.
type Finding struct {
	Descriptor ocispec.Descriptor
	// Signature is false for a referrer that is something else.
	Signature bool
	// Format is what the manifest says it is; empty where it is of no known one.
	Format signature.Format
	// Annotations are the manifest's own: unsigned hints.
	Annotations map[string]string
	// Envelope is untrusted, and nil when the referrer is none or is unusable.
	Envelope *signature.Envelope
	// Accepted is set when a key accepted the signature.
	Accepted *Accepted
	// Undecided reports that a key could not be asked.
	Undecided bool
	// Errs are the reasons why it is not accepted, one for each key asked, or the
	// one reason why no key was asked.
	Errs []error
}

// Examine looks at every referrer of subject, up to the cap, and says of each
// what it is and whether one of keys accepts it. It is for showing, and decides
// nothing: without keys no signature is judged. more reports that the cap left
// referrers out.
func (v *Verifier) Examine(ctx context.Context, subject signature.Subject, src Source, keys []signature.Key) (findings []Finding, more bool, err error) {
	descs, more, err := ordered(ctx, src, subject, v.opts.MaxCandidates)
	if err != nil {
		return nil, false, err
	}
	found := examine(ctx, src, subject, descs, v.opts.Concurrency)
	findings = make([]Finding, len(found))
	for i, c := range found {
		findings[i] = finding(c)
	}
	v.judgeEach(ctx, subject, found, findings, keys)
	return findings, more, nil
}

func finding(c *candidate) Finding {
	f := Finding{Descriptor: c.desc, Format: c.format.Name, Annotations: c.annotations, Envelope: c.envelope, Signature: !c.foreign && c.unfetched == nil}
	switch {
	case c.unfetched != nil:
		f.Undecided = true
		f.Errs = []error{c.unfetched}
	case c.reason != nil:
		f.Errs = []error{c.reason}
	}
	return f
}

// judgeEach asks every key about all signatures that no key before it accepted,
// in one call.
func (v *Verifier) judgeEach(ctx context.Context, subject signature.Subject, found []*candidate, findings []Finding, keys []signature.Key) {
	for _, k := range localFirst(keys) {
		var envs []*signature.Envelope
		var at []int
		for i, c := range found {
			if c.envelope != nil && findings[i].Accepted == nil {
				envs, at = append(envs, c.envelope), append(at, i)
			}
		}
		if len(envs) == 0 {
			return
		}
		for n, o := range signature.Open(ctx, k, envs) {
			f := &findings[at[n]]
			j := &judgement{subject: subject, now: v.opts.Now()}
			if a, ok := j.decide(ctx, 0, k, found[at[n]], o); ok {
				f.Accepted, f.Undecided, f.Errs = &a, false, nil
				continue
			}
			f.Undecided = f.Undecided || len(j.causes) > 0
			f.Errs = append(append(f.Errs, asErrors(j.reasons)...), j.causes...)
		}
	}
}
