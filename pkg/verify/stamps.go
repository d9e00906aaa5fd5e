// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// StampJudge judges RFC 3161 timestamps, without asking anybody.
type StampJudge interface {
	// Judge returns when a stamp was made. An error means that the stamp is not by
	// an authority that is trusted, or not over this signature.
	Judge(ctx context.Context, s signature.Stamp) (signature.Stamped, error)
}

// Stamps says which timestamps are trusted and when one is needed. With the zero
// value none is, and a signature whose certificates have expired never counts.
//
// A stamp proves that a signature existed then, and not that it did not before:
// whoever may write to a registry can have an old one stamped anew. So a stamp
// makes a signature older than it claims to be, and never younger.
type Stamps struct {
	Judge StampJudge
	// Required refuses signatures without a trusted stamp.
	Required bool
	// AfterExpiry looks at stamps only once a certificate has expired, as
	// verifyTimestamp: afterCertExpiry of a notation policy.
	AfterExpiry bool
	// Revocation looks up the certificates of the authority whose stamp counts; nil
	// asks nobody.
	Revocation RevocationJudge
}

// TimestampError means that a signature's timestamps do not count.
type TimestampError struct{ Reason string }

func (e *TimestampError) Error() string { return e.Reason }

// Rule names the rule that refused.
func (e *TimestampError) Rule() string { return RuleTimestamp }

// trustedStamp is the timestamp that counts: the earliest of those that are trusted. The
// zero value without an error means that there is none, or that none is looked at.
func (o *opened) trustedStamp() (signature.Stamped, error) {
	if !o.stampJudged {
		o.stamped, o.stampErr = o.judgeStamps()
		o.stampJudged = true
	}
	return o.stamped, o.stampErr
}

func (o *opened) judgeStamps() (signature.Stamped, error) {
	st, s := o.statement, o.req.Stamps
	if s.Judge == nil || (s.AfterExpiry && !o.certificateExpired()) {
		return signature.Stamped{}, nil
	}
	if len(st.Stamps) == 0 {
		if s.Required || s.AfterExpiry {
			return signature.Stamped{}, &MissingClaimError{For: RuleTimestamp, Claim: claimStamp}
		}
		return signature.Stamped{}, nil
	}
	var best signature.Stamped
	var reasons []error
	for _, one := range st.Stamps {
		got, err := s.Judge.Judge(o.ctx, one)
		if err == nil {
			err = o.stampFits(got)
		}
		switch {
		case err != nil:
			reasons = append(reasons, err)
		case best.Until.IsZero() || got.Until.Before(best.Until):
			best = got
		}
	}
	if best.Until.IsZero() {
		return signature.Stamped{}, &TimestampError{Reason: errors.Join(reasons...).Error()}
	}
	return best, nil
}

// stampFits holds a stamp against the clock and the signature's certificates
// (Notary Project, "Trust Store and Trust Policy", authentic timestamp): each must
// have been valid in all of the time in which the stamp can have been made.
func (o *opened) stampFits(at signature.Stamped) error {
	st := o.statement
	if at.From.After(o.now.Add(ClockSkew)) {
		return fmt.Errorf("timestamp in the future, at %s", stamp(at.From))
	}
	if !st.ValidUntil.IsZero() && (at.From.Before(st.ValidFrom) || at.Until.After(st.ValidUntil)) {
		return fmt.Errorf("timestamp of %s, and its certificates are valid from %s to %s only", stamp(at.Until), stamp(st.ValidFrom), stamp(st.ValidUntil))
	}
	return nil
}

func (o *opened) certificateExpired() bool {
	return !o.statement.ValidUntil.IsZero() && o.now.After(o.statement.ValidUntil)
}

func stampTrusted(o *opened) (string, error) {
	at, err := o.trustedStamp()
	switch {
	case err == nil && !at.Until.IsZero():
		return stamp(at.Until) + " by " + at.Chain[0].Subject.String(), nil
	case len(o.statement.Stamps) == 0:
		return "no timestamp", err
	case err == nil:
		return "not looked at, no certificate has expired", nil
	}
	return "a timestamp that is not trusted", err
}

// claimStamp is what a stamp is called beside claims.
const claimStamp = "trusted RFC 3161 timestamp"

// madeAt is the latest time at which the signature can have been made: the
// holder's claim, or the stamp where it is earlier. It is zero without either.
// stamped demands the stamp.
func (o *opened) madeAt(stamped bool) time.Time {
	at := o.statement.Claims.SignedAt
	trusted, err := o.trustedStamp()
	if err != nil || trusted.Until.IsZero() {
		if stamped {
			return time.Time{}
		}
		return at
	}
	if (stamped && at.IsZero()) || (!at.IsZero() && trusted.Until.Before(at)) {
		return trusted.Until
	}
	return at
}
