// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// trust is the verifier's three outcomes, and a policy without a statement.
func trust(err error, o *outcome) bool {
	var (
		none      *verify.NoSignatureError
		rejected  *verify.RejectedError
		undecided *verify.UndecidedError
		noScope   *trustpolicy.NoMatchError
		self      *aegis.SelfVerifyError
		subject   *signature.ManifestError
		digests   *aegis.DigestError
		differs   *differsError
		bundle    *aegis.BundleError
	)
	switch {
	case errors.As(err, &bundle):
		return o.set(exitRejected, "bundle_invalid", "")
	case errors.As(err, &none):
		return o.set(exitRejected, "unsigned", "sign it first: aegis-oci sign --key hashivault://NAME "+refusedReference(err))
	case errors.As(err, &rejected):
		return o.set(exitRejected, rejectedCode(rejected), "aegis-oci inspect --key KEY "+refusedReference(err))
	case errors.As(err, &noScope):
		return o.set(exitRejected, "policy_no_match", "add the repository to a statement's scopes; nothing is allowed by default")
	case errors.As(err, &differs):
		return o.set(exitRejected, "record_differs", "the record was changed, or another version of aegis-oci made it")
	case errors.As(err, &digests):
		return o.set(exitRejected, "digest_differs", "")
	case errors.As(err, &subject):
		return o.set(exitRejected, "manifest_invalid", "")
	case errors.As(err, &self):
		return o.set(exitUndecided, "self_verify", "is --public-key that of this key and version?")
	case errors.As(err, &undecided):
		return undecidedOutcome(undecided, o)
	}
	return false
}

// undecidedOutcome takes code and hint from the first cause that is known.
func undecidedOutcome(u *verify.UndecidedError, o *outcome) bool {
	message := o.message
	for _, cause := range u.Causes {
		if errors.Is(cause, verify.ErrTooMany) {
			continue
		}
		if fromVault(cause, o) || fromRegistry(cause, o) || fromLayout(cause, o) {
			// Whatever the cause, no judgement was reached: a signature that was
			// changed on its way is not the model's fault.
			o.message = message
			if o.exit != exitUsage {
				o.exit = exitUndecided
			}
			if o.code == "content_differs" {
				o.set(exitUndecided, "signature_unreadable", "the registry or a proxy changed a signature: sign again, or fetch it from elsewhere")
			}
			return true
		}
	}
	var unreadable *verify.KeyUnreadableError
	if errors.As(u, &unreadable) {
		return o.set(exitUndecided, "key_unreadable", "grant \"read\" on the Transit key, or put publicKeyFile beside it in the policy")
	}
	var unknown *verify.RevocationUnknownError
	if errors.As(u, &unknown) {
		o.retryable = true
		return o.set(exitUndecided, "revocation_unknown", "does the network let this host ask the OCSP responder or fetch the CRL that the certificate names?")
	}
	if errors.Is(u, verify.ErrTooMany) {
		return o.set(exitUndecided, "too_many_signatures", "somebody attaches junk to this digest: remove referrers, or sign again so that yours is the newest")
	}
	return o.set(exitUndecided, "undecided", "")
}

// ruleCodes are the codes of refusals by one rule.
var ruleCodes = map[string]string{
	verify.RuleSubject:     "subject_differs",
	verify.RuleFormats:     "format_not_allowed",
	verify.RuleExpiry:      "expired",
	verify.RuleClock:       "signed_in_future",
	verify.RuleTimestamp:   "timestamp_invalid",
	verify.RuleRevocation:  "revoked",
	verify.RuleMaxAge:      "too_old",
	verify.RuleNotBefore:   "not_before",
	verify.RuleRepository:  "repository_differs",
	verify.RuleAnnotations: "annotation_differs",
	verify.RuleBuilder:     "builder_differs",
	verify.RuleMinVersion:  "key_version_too_old",
	verify.RuleRevoked:     "revoked",
	verify.RuleRequire:     "too_few_signers",
}

// rejectedCode names the reason when all signatures that a key accepts share one,
// and whenever there were too few signers. Those that no key accepts are anybody's
// and say nothing beside them.
func rejectedCode(r *verify.RejectedError) string {
	code := ""
	for _, reason := range r.Reasons {
		var rule verify.RuleError
		if !errors.As(reason.Err, &rule) {
			if errors.Is(reason.Err, signature.ErrInvalid) {
				continue
			}
			return "rejected"
		}
		c := first(ruleCodes[rule.Rule()], "rejected")
		if c == ruleCodes[verify.RuleRequire] {
			return c
		}
		if code != "" && c != code {
			return "rejected"
		}
		code = c
	}
	return first(code, "rejected")
}

func refusedReference(err error) string {
	var s *aegis.SubjectRefusal
	if errors.As(err, &s) {
		ref, _, _ := strings.Cut(s.Reference, " ")
		return ref
	}
	return "REF"
}
