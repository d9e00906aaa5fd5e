// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Explanation is a decision and everything that led to it.
type Explanation struct {
	// Verified is the evidence; zero when Err is set.
	Verified Verified
	// Err is the refusal that Verify would have returned.
	Err error
	// Signers are the keys that count.
	Signers []string
	// Candidates are the referrers that were looked at, in the order tried;
	// Truncated reports that the cap left others out.
	Candidates []Explained
	Truncated  bool
}

// Explained is one referrer.
type Explained struct {
	Descriptor ocispec.Descriptor
	// Format is empty where the referrer did not get that far.
	Format signature.Format
	// State is "judged" when keys were asked, "other" for what is no signature,
	// "rejected" or "undecided" for what no key had to be asked about.
	State  string
	Reason string
	Keys   []ExplainedKey

	candidate *candidate
}

// ExplainedKey is what one key, and then each rule, says about one candidate.
type ExplainedKey struct {
	Key string
	// Outcome is "counts", "rejected" or "undecided".
	Outcome    string
	KeyVersion int
	// SPKI is the SHA-256 digest of the accepting public key where it is known.
	SPKI   digest.Digest
	Reason string
	// Rules has the signature itself first. What follows it is there only when
	// the key accepted: nobody learns what a signature says before.
	Rules []RuleResult
}

// RuleResult is one rule and what it saw.
type RuleResult struct {
	Rule   string
	Holds  bool
	Saw    string
	Reason string
}

// Explain decides as Verify does and tells how. It asks every key about every
// candidate, and judges every rule, also where the decision stood before; the
// decision is Verify's all the same.
func (v *Verifier) Explain(ctx context.Context, subject signature.Subject, src Source, req Requirement) Explanation {
	j := v.judgement(subject, req)
	j.explained = new([]Explained)
	err := v.run(ctx, j, src)
	e := Explanation{Err: err, Signers: j.signers(), Candidates: *j.explained, Truncated: j.more}
	if err == nil {
		e.Verified = j.verified()
	}
	return e
}

// tell records what became of a candidate before any key was asked.
func (j *judgement) tell(c *candidate, state string, err error) {
	if j.explained == nil {
		return
	}
	e := Explained{Descriptor: c.desc, State: state, candidate: c}
	if c.envelope != nil {
		e.Format = c.envelope.Format()
	}
	if err != nil {
		e.Reason = err.Error()
	}
	*j.explained = append(*j.explained, e)
}

// answer records what a key said about a candidate. what is nil when the key
// could not be asked, and err is why the candidate does not count.
func (j *judgement) answer(c *candidate, k signature.Key, o signature.Opened, what *opened, err error) {
	if j.explained == nil {
		return
	}
	e := ExplainedKey{Key: k.ID().Name, KeyVersion: o.KeyVersion, SPKI: spkiDigest(o.SPKI), Outcome: "counts"}
	switch {
	case what == nil || doubtful(err):
		e.Outcome = "undecided"
	case err != nil:
		e.Outcome = "rejected"
	}
	if err != nil {
		e.Reason = err.Error()
	}
	sig := RuleResult{Rule: RuleSignature, Holds: o.Err == nil, Saw: "accepted by the key"}
	if o.Err != nil {
		sig.Saw, sig.Reason = "not accepted", o.Err.Error()
	}
	e.Rules = append(e.Rules, sig)
	if o.Err == nil && what != nil {
		e.Rules = append(e.Rules, what.results()...)
	}
	list := *j.explained
	for i := range list {
		if list[i].candidate == c {
			list[i].Keys = append(list[i].Keys, e)
		}
	}
}
