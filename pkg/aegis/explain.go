// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// The kinds of policy documents.
const (
	PolicyAegis    = "aegis"
	PolicyNotation = "notation"
)

// ParsePolicy reads a document of the kind given.
func ParsePolicy(kind string, document []byte) (trustpolicy.Policy, error) {
	switch kind {
	case PolicyAegis:
		return trustpolicy.Parse(document)
	case PolicyNotation:
		return trustpolicy.ParseNotation(document)
	}
	return trustpolicy.Policy{}, fmt.Errorf("unknown kind of policy %q", kind)
}

// ExplainOptions says what to decide about, and by what.
type ExplainOptions struct {
	Ref registry.Reference
	// Kind is PolicyAegis or PolicyNotation, Document the policy.
	Kind     string
	Document []byte
	Open     KeyOpener
}

// Explain decides as Verify does under a policy, and returns the decision with
// each rule's view of each candidate and everything it was made from. A refusal
// is a Record; an error means that nothing could be decided about: no such
// reference, no usable policy, no statement.
func (c *Client) Explain(ctx context.Context, o ExplainOptions) (Record, error) {
	policy, err := ParsePolicy(o.Kind, o.Document)
	if err != nil {
		return Record{}, err
	}
	st, err := policy.Match(o.Ref.Name())
	if err != nil {
		return Record{}, err
	}
	r := &recorder{evidence: Evidence{
		Files: map[string][]byte{}, Content: map[digest.Digest]RecordedContent{},
		Referrers: []RecordedReferrer{}, Verdicts: []RecordedVerdict{}, MaxCandidates: c.opts.MaxCandidates,
	}}
	req, err := RequirementOf(ctx, st, o.Ref.Name(), &recordingOpener{KeyOpener: o.Open, r: r})
	if err != nil {
		return Record{}, err
	}
	repo, err := c.registry.Repository(o.Ref)
	if err != nil {
		return Record{}, err
	}
	pinned, err := repo.Resolve(ctx)
	if err != nil {
		return Record{}, err
	}
	rec := Record{
		Version: recordVersion, Reference: o.Ref.String(), Repository: o.Ref.Name(), Digest: pinned.Subject().Digest(),
		Time:   c.now()().UTC().Round(0),
		Policy: RecordedPolicy{Kind: o.Kind, Document: string(o.Document), Statement: st.Name, Require: st.Require, Keys: keyNames(st)},
	}
	e := explainAt(rec.Time, c.opts.MaxCandidates).Explain(ctx, pinned.Subject(), &recordingSource{Source: source{registryRepository{repo, c}}, r: r}, req)
	rec.describe(e)
	rec.Evidence = r.evidence
	rec.Evidence.MediaType, rec.Evidence.Manifest = pinned.Subject().MediaType(), pinned.Manifest()
	return rec, nil
}

func explainAt(now time.Time, maxCandidates int) *verify.Verifier {
	return verify.New(verify.Options{MaxCandidates: maxCandidates, Now: func() time.Time { return now }})
}

func keyNames(st trustpolicy.Statement) []string {
	names := make([]string, len(st.Keys))
	for i, k := range st.Keys {
		names[i] = k.Name
	}
	return names
}
