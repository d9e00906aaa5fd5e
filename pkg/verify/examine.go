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
	// Annotations are the manifest's own: unsigned hints.
	Annotations map[string]string
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
	for _, c := range examine(ctx, src, subject, descs, v.opts.Concurrency) {
		f := Finding{Descriptor: c.desc, Annotations: c.annotations, Signature: !c.foreign && c.unfetched == nil}
		switch {
		case c.unfetched != nil:
			f.Errs = []error{c.unfetched}
		case c.reason != nil:
			f.Errs = []error{c.reason}
		case c.envelope != nil:
			v.examineOne(ctx, subject, c, keys, &f)
		}
		findings = append(findings, f)
	}
	return findings, more, nil
}

func (v *Verifier) examineOne(ctx context.Context, subject signature.Subject, c *candidate, keys []signature.Key, f *Finding) {
	j := &judgement{subject: subject, now: v.opts.Now(), keys: localFirst(keys)}
	if a, ok := j.judge(ctx, []*candidate{c}); ok {
		f.Accepted = &a
		return
	}
	f.Undecided = len(j.causes) > 0
	f.Errs = append(asErrors(j.reasons), j.causes...)
}
