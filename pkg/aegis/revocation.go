// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// RevocationChecker looks certificates up, as a *revocation.Checker does.
type RevocationChecker interface {
	Check(ctx context.Context, chain []*x509.Certificate) []revocation.Answer
}

// revocationOf is what a policy asks for: nil where nothing is looked up.
func revocationOf(mode trustpolicy.Revocation, open KeyOpener) verify.RevocationJudge {
	switch mode {
	case trustpolicy.Enforce:
		return revocationJudge{check: open.Revocation()}
	case trustpolicy.Log:
		return revocationJudge{check: open.Revocation(), log: open.Warn}
	}
	return nil
}

// revocationJudge is a checker as the verifier has it. With log nothing that it
// finds stands in the way, and what would have is said.
type revocationJudge struct {
	check RevocationChecker
	log   func(string)
}

var _ verify.RevocationJudge = revocationJudge{}

func (j revocationJudge) LookUp(ctx context.Context, chain []*x509.Certificate) []verify.CertificateStatus {
	var answers []revocation.Answer
	if j.check != nil {
		answers = j.check.Check(ctx, chain)
	}
	out := make([]verify.CertificateStatus, len(chain))
	for i := range chain {
		a := revocation.Answer{Err: errors.New("there is nobody to ask")}
		if len(answers) == len(chain) {
			a = answers[i]
		}
		out[i] = statusOf(a)
		if j.log != nil && (out[i].Status == verify.IsRevoked || out[i].Status == verify.NotKnown) {
			what := "is revoked"
			if out[i].Status == verify.NotKnown {
				what = "may be revoked"
			}
			j.log(fmt.Sprintf("the certificate %q %s, which the policy only logs: %s", chain[i].Subject, what, out[i].Saw))
			out[i] = verify.CertificateStatus{Status: verify.NotRevoked, Saw: out[i].Saw + " (logged)"}
		}
	}
	return out
}

func statusOf(a revocation.Answer) verify.CertificateStatus {
	switch a.Status {
	case revocation.Good:
		return verify.CertificateStatus{Status: verify.NotRevoked, Saw: "good by " + a.Source}
	case revocation.Revoked:
		return verify.CertificateStatus{Status: verify.IsRevoked, Saw: fmt.Sprintf("since %s by %s", a.RevokedAt.UTC().Format(time.RFC3339), a.Source)}
	case revocation.Unnamed:
		return verify.CertificateStatus{Status: verify.NotRevocable, Saw: "names nobody to ask"}
	}
	text := "nobody could tell"
	if a.Err != nil {
		text = a.Err.Error()
	}
	if a.Source != "" {
		text = a.Source + ": " + text
	}
	return verify.CertificateStatus{Saw: text}
}

// RecordedRevocation is what was found about the certificates of one chain.
type RecordedRevocation struct {
	// Chain is the SHA-256 digest of the certificates, one after the other.
	Chain   digest.Digest    `json:"chain"`
	Answers []RecordedAnswer `json:"answers"`
}

// RecordedAnswer is what was found about one certificate.
type RecordedAnswer struct {
	// Status is "good", "revoked", "unnamed" or "unknown".
	Status    string    `json:"status"`
	Source    string    `json:"source,omitempty"`
	RevokedAt time.Time `json:"revokedAt,omitzero"`
	Error     string    `json:"error,omitempty"`
}

var statusNames = map[revocation.Status]string{
	revocation.Good: "good", revocation.Revoked: "revoked", revocation.Unnamed: "unnamed", revocation.Unknown: "unknown",
}

func chainDigest(chain []*x509.Certificate) digest.Digest {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw) // DER says its own length
	}
	return digest.NewDigest(digest.SHA256, h)
}

// recordingChecker remembers what it found.
type recordingChecker struct {
	RevocationChecker
	r *recorder
}

func (c *recordingChecker) Check(ctx context.Context, chain []*x509.Certificate) []revocation.Answer {
	answers := c.RevocationChecker.Check(ctx, chain)
	rec := RecordedRevocation{Chain: chainDigest(chain), Answers: []RecordedAnswer{}}
	for _, a := range answers {
		one := RecordedAnswer{Status: statusNames[a.Status], Source: a.Source, RevokedAt: a.RevokedAt}
		if a.Err != nil {
			one.Error = a.Err.Error()
		}
		rec.Answers = append(rec.Answers, one)
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.evidence.Revocations = append(c.r.evidence.Revocations, rec)
	return answers
}

func (o *recordingOpener) Revocation() RevocationChecker {
	c := o.KeyOpener.Revocation()
	if c == nil {
		return nil
	}
	return &recordingChecker{RevocationChecker: c, r: o.r}
}

// Revocation answers from what was recorded: the first answer about a chain, and
// nothing about any other.
func (o *replayOpener) Revocation() RevocationChecker { return replayChecker(o.evidence.Revocations) }

// Warn says nothing: it was said when it was found.
func (o *replayOpener) Warn(string) {}

type replayChecker []RecordedRevocation

func (c replayChecker) Check(_ context.Context, chain []*x509.Certificate) []revocation.Answer {
	id := chainDigest(chain)
	for _, rec := range c {
		if rec.Chain != id {
			continue
		}
		var out []revocation.Answer
		for _, one := range rec.Answers {
			a := revocation.Answer{Source: one.Source, RevokedAt: one.RevokedAt}
			for status, name := range statusNames {
				if name == one.Status {
					a.Status = status
				}
			}
			if one.Error != "" {
				a.Err = errors.New(one.Error)
			}
			out = append(out, a)
		}
		return out
	}
	out := make([]revocation.Answer, len(chain))
	for i := range out {
		out[i].Err = errors.New("the record has no answer to this question")
	}
	return out
}
