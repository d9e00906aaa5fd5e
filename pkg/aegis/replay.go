// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
)

// RecordError says why a file is no record.
type RecordError struct{ Reason string }

func (e *RecordError) Error() string { return "record: " + e.Reason }

// ParseRecord reads what Explain has returned, as JSON. Errors are *RecordError.
func ParseRecord(data []byte) (Record, error) {
	var r Record
	if err := strictjson.UnmarshalKnown(data, &r); err != nil {
		return Record{}, &RecordError{err.Error()}
	}
	if r.Version != recordVersion {
		return Record{}, &RecordError{fmt.Sprintf("version %d, not %d", r.Version, recordVersion)}
	}
	for d, c := range r.Evidence.Content {
		if c.Error == "" && digest.FromBytes(c.Data) != d {
			return Record{}, &RecordError{fmt.Sprintf("the content kept as %s is another", d)}
		}
	}
	return r, nil
}

// ReplayResult is a decision that was made again.
type ReplayResult struct {
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"`
	Time      time.Time     `json:"time"`
	// Same reports that decision, candidates and rules come out as recorded.
	Same     bool     `json:"same"`
	Decision Decision `json:"decision"`
	Recorded Decision `json:"recorded"`
	// VerifiedAgain are the keys whose signatures were verified now, AsRecorded
	// those whose answers, or part of them, were taken from the record.
	VerifiedAgain []string    `json:"verifiedAgain"`
	AsRecorded    []string    `json:"asRecorded"`
	Candidates    []Candidate `json:"candidates"`
}

// Replay decides a record again: the policy is parsed and matched, the manifest
// hashed, the envelopes parsed, public keys verify and every rule judges as at
// the recorded time. Answers of keys that a server holds are those recorded;
// nobody is asked.
func Replay(ctx context.Context, rec Record) (ReplayResult, error) {
	policy, err := ParsePolicy(rec.Policy.Kind, []byte(rec.Policy.Document))
	if err != nil {
		return ReplayResult{}, err
	}
	st, err := policy.Match(rec.Repository)
	if err != nil {
		return ReplayResult{}, err
	}
	req, err := RequirementOf(ctx, st, rec.Repository, &replayOpener{rec.Evidence})
	if err != nil {
		return ReplayResult{}, err
	}
	subject, err := signature.SubjectOf(rec.Evidence.MediaType, rec.Evidence.Manifest)
	if err != nil {
		return ReplayResult{}, err
	}
	again := Record{
		Version: recordVersion, Reference: rec.Reference, Repository: rec.Repository, Digest: subject.Digest(), Time: rec.Time,
		Policy: RecordedPolicy{Kind: rec.Policy.Kind, Document: rec.Policy.Document, Statement: st.Name, Require: st.Require, Keys: keyNames(st)},
	}
	again.describe(explainAt(rec.Time, rec.Evidence.MaxCandidates).Explain(ctx, subject, &replaySource{rec.Evidence}, req))
	same, err := equal(again, rec)
	if err != nil {
		return ReplayResult{}, err
	}
	result := ReplayResult{
		Reference: rec.Reference, Digest: subject.Digest(), Time: rec.Time, Same: same, Decision: again.Decision, Recorded: rec.Decision,
		VerifiedAgain: []string{}, AsRecorded: []string{}, Candidates: again.Candidates,
	}
	for _, k := range st.Keys {
		if k.Transit == "" {
			result.VerifiedAgain = append(result.VerifiedAgain, k.Name)
		} else {
			result.AsRecorded = append(result.AsRecorded, k.Name)
		}
	}
	return result, nil
}

// equal compares what two records conclude.
func equal(a, b Record) (bool, error) {
	a.Evidence, b.Evidence = Evidence{}, Evidence{}
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	if err != nil {
		return false, err
	}
	return string(x) == string(y), nil
}

// replaySource offers what a registry offered.
type replaySource struct{ evidence Evidence }

func (s *replaySource) Referrers(context.Context, signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for _, d := range s.evidence.Referrers {
			desc := ocispec.Descriptor{
				MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations,
			}
			if !yield(desc, nil) {
				return
			}
		}
		if s.evidence.ListError != "" {
			yield(ocispec.Descriptor{}, errors.New(s.evidence.ListError))
		}
	}
}

func (s *replaySource) FetchManifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return s.fetch(desc.Digest)
}

func (s *replaySource) FetchBlob(_ context.Context, desc ocispec.Descriptor, _ int64) ([]byte, error) {
	return s.fetch(desc.Digest)
}

func (s *replaySource) fetch(d digest.Digest) ([]byte, error) {
	c, found := s.evidence.Content[d]
	switch {
	case !found:
		return nil, fmt.Errorf("%s is not in the record", d)
	case c.Error != "":
		return nil, errors.New(c.Error)
	}
	return bytes.Clone(c.Data), nil
}

// replayOpener opens keys from what was recorded.
type replayOpener struct{ evidence Evidence }

func (o *replayOpener) ReadFile(path string) ([]byte, error) {
	b, found := o.evidence.Files[path]
	if !found {
		return nil, errors.New("it is not in the record")
	}
	return b, nil
}

func (o *replayOpener) TrustStore(name string) ([]byte, error) { return o.ReadFile(name) }

func (o *replayOpener) Transit(_ context.Context, k trustpolicy.Key, _ bool) (signature.Key, error) {
	key := &replayKey{name: k.Transit, verdicts: make(map[digest.Digest]RecordedVerdict)}
	for _, v := range o.evidence.Verdicts {
		if v.Key == k.Name && v.Transit == k.Transit {
			key.verdicts[v.Check] = v
		}
	}
	return key, nil
}

// replayKey answers as a server did.
type replayKey struct {
	name     string
	verdicts map[digest.Digest]RecordedVerdict
}

var _ signature.Key = (*replayKey)(nil)

func (k *replayKey) ID() signature.KeyID { return signature.KeyID{Name: k.name} }

// Local reports false, as the key did: the order of the keys is part of the
// decision.
func (k *replayKey) Local() bool { return false }

func (k *replayKey) Check(_ context.Context, checks []signature.Check) []signature.Verdict {
	out := make([]signature.Verdict, len(checks))
	for i, c := range checks {
		v, found := k.verdicts[checkDigest(c)]
		switch {
		case !found:
			out[i].Err = errors.New("the record has no answer to this question")
		case v.Error != "" || v.Refused:
			out[i].Err = &verdictError{text: v.Error, refused: v.Refused}
		default:
			out[i] = signature.Verdict{KeyVersion: v.KeyVersion, SPKI: v.SPKI}
		}
	}
	return out
}

// verdictError gives a recorded answer its meaning back, and its words.
type verdictError struct {
	text    string
	refused bool
}

func (e *verdictError) Error() string { return e.text }

func (e *verdictError) Is(target error) bool { return e.refused && target == signature.ErrInvalid }
