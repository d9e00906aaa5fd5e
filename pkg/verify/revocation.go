// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// RevocationJudge looks up whether certificates are revoked.
type RevocationJudge interface {
	// LookUp says what is known of each certificate of chain, leaf first and root
	// last: len(result) == len(chain).
	LookUp(ctx context.Context, chain []*x509.Certificate) []CertificateStatus
}

// Revocation is what is known of one certificate.
type Revocation int

// The statuses. NotKnown is the zero value: who says nothing has not vouched.
const (
	NotKnown Revocation = iota
	NotRevoked
	IsRevoked
	// NotRevocable is a certificate that names nobody who could tell, or a root.
	NotRevocable
)

// CertificateStatus is what one certificate was found to be.
type CertificateStatus struct {
	Status Revocation
	// Saw is who said so, or why nobody could.
	Saw string
}

// CertificateRevokedError means that a certificate of the signature, or of the
// authority of its timestamp, is revoked.
type CertificateRevokedError struct{ Subject, Saw string }

func (e *CertificateRevokedError) Error() string {
	return fmt.Sprintf("the certificate %q is revoked: %s", e.Subject, e.Saw)
}

// Rule names the rule that refused.
func (e *CertificateRevokedError) Rule() string { return RuleRevocation }

// RevocationUnknownError means that nobody could tell whether a certificate is
// revoked. It is doubt and no refusal.
type RevocationUnknownError struct{ Subject, Saw string }

func (e *RevocationUnknownError) Error() string {
	return fmt.Sprintf("it is not known whether the certificate %q is revoked: %s", e.Subject, e.Saw)
}

// Rule names the rule that cannot decide.
func (e *RevocationUnknownError) Rule() string { return RuleRevocation }

// doubtful reports whether err is no refusal, though a key accepts: something that
// a rule has to know could not be had.
func doubtful(err error) bool {
	var unreadable *KeyUnreadableError
	var unknown *RevocationUnknownError
	return errors.As(err, &unreadable) || errors.As(err, &unknown)
}

func (r *Requirement) looksUp() bool { return len(r.Revocation) > 0 || r.Stamps.Revocation != nil }

// certificatesNotRevoked has the certificates of the signature looked up, and those
// of the authority whose stamp counts.
func certificatesNotRevoked(o *opened) (string, error) {
	saw, err := o.lookUp("signature", o.req.Revocation[o.key], o.statement.Chain)
	if err != nil {
		return saw, err
	}
	at, stampErr := o.trustedStamp()
	if stampErr != nil || len(at.Chain) == 0 || o.req.Stamps.Revocation == nil {
		return saw, nil
	}
	more, err := o.lookUp("timestamp", o.req.Stamps.Revocation, at.Chain)
	return saw + "; " + more, err
}

// lookUp asks once, whoever judges the rule again.
func (o *opened) lookUp(what string, judge RevocationJudge, chain []*x509.Certificate) (string, error) {
	if judge == nil || len(chain) == 0 {
		return what + ": not looked up", nil
	}
	statuses, asked := o.lookedUp[what]
	if !asked {
		statuses = judge.LookUp(o.ctx, chain)
		if o.lookedUp == nil {
			o.lookedUp = make(map[string][]CertificateStatus)
		}
		o.lookedUp[what] = statuses
	}
	var saw []string
	var unknown error
	for i, c := range chain {
		s := CertificateStatus{Saw: "nobody was asked"}
		if len(statuses) == len(chain) {
			s = statuses[i]
		}
		switch s.Status {
		case NotRevoked, NotRevocable:
		case IsRevoked:
			return what + ": " + s.Saw, &CertificateRevokedError{Subject: c.Subject.String(), Saw: s.Saw}
		default:
			if unknown == nil {
				unknown = &RevocationUnknownError{Subject: c.Subject.String(), Saw: s.Saw}
			}
		}
		saw = append(saw, s.Saw)
	}
	return what + ": " + strings.Join(saw, ", "), unknown
}
