// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// recordVersion is raised when a reader of an older record would misread a new
// one.
const recordVersion = 1

// Record is one decision with all that it was made from, so that it can be made
// again without a registry and without Vault. It proves nothing to anybody but
// its writer: whoever can change the file can change the answers in it.
type Record struct {
	Version int `json:"recordVersion"`
	// Reference is as it was asked for, and Repository what scopes are compared
	// with.
	Reference  string        `json:"reference"`
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	// Time is the clock of the decision.
	Time   time.Time      `json:"time"`
	Policy RecordedPolicy `json:"policy"`
	// Decision and Candidates are what was concluded.
	Decision   Decision    `json:"decision"`
	Candidates []Candidate `json:"candidates"`
	// Truncated reports that more is attached than was looked at.
	Truncated bool `json:"truncated,omitempty"`
	// Evidence is what it was concluded from.
	Evidence Evidence `json:"evidence"`
}

// RecordedPolicy is the policy document and the statement that applied.
type RecordedPolicy struct {
	// Kind is "aegis" or "notation".
	Kind      string `json:"kind"`
	Document  string `json:"document"`
	Statement string `json:"statement"`
	Require   int    `json:"require"`
	// Keys are the names of the statement's entries.
	Keys []string `json:"keys"`
}

// Decision is a conclusion in words.
type Decision struct {
	// Outcome is "accepted", "rejected", "unsigned" or "undecided".
	Outcome string `json:"outcome"`
	// Signers are the keys that count.
	Signers []string `json:"signers"`
	Reason  string   `json:"reason,omitempty"`
}

// Candidate is one referrer that was looked at.
type Candidate struct {
	Digest digest.Digest    `json:"digest"`
	Format signature.Format `json:"format,omitempty"`
	// State is "judged" when keys were asked, "other" for what is no signature,
	// "rejected" or "undecided" for what no key had to be asked about.
	State  string         `json:"state"`
	Reason string         `json:"reason,omitempty"`
	Keys   []CandidateKey `json:"keys,omitempty"`
}

// CandidateKey is what one key and each rule say about a candidate.
type CandidateKey struct {
	Key string `json:"key"`
	// Outcome is "counts", "rejected" or "undecided".
	Outcome    string        `json:"outcome"`
	KeyVersion int           `json:"keyVersion,omitempty"`
	SPKI       digest.Digest `json:"spki,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	Rules      []Rule        `json:"rules"`
}

// Rule is one rule and what it saw.
type Rule struct {
	Rule   string `json:"rule"`
	Holds  bool   `json:"holds"`
	Saw    string `json:"saw"`
	Reason string `json:"reason,omitempty"`
}

// Evidence is everything that came from outside.
type Evidence struct {
	// MediaType and Manifest are the subject.
	MediaType string `json:"mediaType"`
	Manifest  []byte `json:"manifest"`
	// MaxCandidates is the cap that held; zero means verify's default.
	MaxCandidates int `json:"maxCandidates,omitempty"`
	// Files are those that the policy names, by their paths there.
	Files map[string][]byte `json:"files,omitempty"`
	// Referrers is the listing, and ListError how it broke off.
	Referrers []RecordedReferrer `json:"referrers"`
	ListError string             `json:"listError,omitempty"`
	// Content are the manifests and envelopes that were read.
	Content map[digest.Digest]RecordedContent `json:"content"`
	// Verdicts are the answers of keys that a server holds.
	Verdicts []RecordedVerdict `json:"verdicts"`
	// Revocations are what was found about certificates that were looked up.
	Revocations []RecordedRevocation `json:"revocations,omitempty"`
}

// RecordedReferrer is one entry of the listing: untrusted, as it was.
type RecordedReferrer struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// RecordedContent is what a registry answered.
type RecordedContent struct {
	Data  []byte `json:"data,omitempty"`
	Error string `json:"error,omitempty"`
}

// RecordedVerdict is one answer of one key.
type RecordedVerdict struct {
	// Key is the entry's name, Transit the key that it names.
	Key     string `json:"key"`
	Transit string `json:"transit"`
	// Check is the SHA-256 digest of the question.
	Check      digest.Digest `json:"check"`
	KeyVersion int           `json:"keyVersion,omitempty"`
	SPKI       []byte        `json:"spki,omitempty"`
	// Refused tells a refusal from a question that could not be put.
	Refused bool   `json:"refused,omitempty"`
	Error   string `json:"error,omitempty"`
}

// describe writes an explanation down.
func (r *Record) describe(e verify.Explanation) {
	r.Truncated = e.Truncated
	r.Decision = Decision{Outcome: outcome(e.Err), Signers: slices.Concat([]string{}, e.Signers)}
	if e.Err != nil {
		r.Decision.Reason = e.Err.Error()
	}
	r.Candidates = []Candidate{}
	for _, c := range e.Candidates {
		out := Candidate{Digest: c.Descriptor.Digest, Format: c.Format, State: c.State, Reason: c.Reason}
		for _, k := range c.Keys {
			key := CandidateKey{Key: k.Key, Outcome: k.Outcome, KeyVersion: k.KeyVersion, SPKI: k.SPKI, Reason: k.Reason}
			for _, rule := range k.Rules {
				key.Rules = append(key.Rules, Rule(rule))
			}
			out.Keys = append(out.Keys, key)
		}
		r.Candidates = append(r.Candidates, out)
	}
}

func outcome(err error) string {
	var none *verify.NoSignatureError
	var rejected *verify.RejectedError
	switch {
	case err == nil:
		return "accepted"
	case errors.As(err, &none):
		return "unsigned"
	case errors.As(err, &rejected):
		return "rejected"
	}
	return "undecided"
}

// checkDigest names a question to a key.
func checkDigest(c signature.Check) digest.Digest {
	h := sha256.New()
	parts := [][]byte{[]byte(c.Format), c.Message, c.Signature}
	for _, x := range c.Chain {
		parts = append(parts, x.Raw)
	}
	for _, part := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	fmt.Fprint(h, c.VersionHint)
	return digest.NewDigest(digest.SHA256, h)
}

// recorder keeps what passes through it.
type recorder struct {
	mu       sync.Mutex
	evidence Evidence
}

// recordingSource is a Source that remembers.
type recordingSource struct {
	verify.Source
	r *recorder
}

func (s *recordingSource) Referrers(ctx context.Context, subject signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for d, err := range s.Source.Referrers(ctx, subject) {
			s.r.mu.Lock()
			if err != nil {
				s.r.evidence.ListError = err.Error()
			} else {
				s.r.evidence.Referrers = append(s.r.evidence.Referrers, RecordedReferrer{
					MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations,
				})
			}
			s.r.mu.Unlock()
			if !yield(d, err) {
				return
			}
		}
	}
}

func (s *recordingSource) FetchManifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	b, err := s.Source.FetchManifest(ctx, desc)
	s.r.keep(desc.Digest, b, err)
	return b, err
}

func (s *recordingSource) FetchBlob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	b, err := s.Source.FetchBlob(ctx, desc, limit)
	s.r.keep(desc.Digest, b, err)
	return b, err
}

func (r *recorder) keep(d digest.Digest, data []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := RecordedContent{Data: data}
	if err != nil {
		c = RecordedContent{Error: err.Error()}
	}
	r.evidence.Content[d] = c
}

// recordingKey is a Key that remembers its answers.
type recordingKey struct {
	signature.Key
	name, transit string
	r             *recorder
}

func (k *recordingKey) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	verdicts := k.Key.Check(ctx, checks)
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	for i, v := range verdicts {
		if i >= len(checks) {
			break
		}
		rv := RecordedVerdict{Key: k.name, Transit: k.transit, Check: checkDigest(checks[i]), KeyVersion: v.KeyVersion, SPKI: v.SPKI}
		if v.Err != nil {
			rv.Error, rv.Refused = v.Err.Error(), errors.Is(v.Err, signature.ErrInvalid)
		}
		k.r.evidence.Verdicts = append(k.r.evidence.Verdicts, rv)
	}
	return verdicts
}

// recordingOpener remembers files and hands out keys that remember.
type recordingOpener struct {
	KeyOpener
	r *recorder
}

func (o *recordingOpener) ReadFile(path string) ([]byte, error) {
	b, err := o.KeyOpener.ReadFile(path)
	return o.r.file(path, b, err)
}

func (o *recordingOpener) TrustStore(name string) ([]byte, error) {
	b, err := o.KeyOpener.TrustStore(name)
	return o.r.file(name, b, err)
}

func (r *recorder) file(name string, data []byte, err error) ([]byte, error) {
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.evidence.Files[name] = data
	}
	return data, err
}

func (o *recordingOpener) Transit(ctx context.Context, k trustpolicy.Key, identified bool) (signature.Key, error) {
	key, err := o.KeyOpener.Transit(ctx, k, identified)
	if err != nil {
		return nil, err
	}
	return &recordingKey{Key: key, name: k.Name, transit: k.Transit, r: o.r}, nil
}
