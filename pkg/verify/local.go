// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Statement judges one envelope that stands alone, beside what it signs: a key must
// accept it, and every rule of req must hold but for those about a manifest. What
// it signs is for the caller to compare; a statement is no evidence about any
// manifest. Of several signers only one can have signed it, so that a requirement
// of more is never met. Errors are those of Verify.
func (v *Verifier) Statement(ctx context.Context, env *signature.Envelope, req Requirement) (signature.Statement, Accepted, error) {
	if err := req.check(); err != nil {
		return signature.Statement{}, Accepted{}, err
	}
	var refused RejectedError
	var unsure UndecidedError
	for _, k := range localFirst(req.Keys) {
		o := signature.Open(ctx, k, []*signature.Envelope{env})[0]
		id := k.ID()
		var bad *signature.StatementError
		err := o.Err
		if err != nil && !errors.Is(err, signature.ErrInvalid) && !errors.As(err, &bad) {
			unsure.Causes = append(unsure.Causes, err)
			continue
		}
		if err == nil {
			what := &opened{
				ctx: ctx, req: &req, now: v.opts.Now(), key: id.Name, keyVersion: o.KeyVersion, spki: o.SPKI, format: env.Format(), statement: o.Statement,
			}
			err = what.broken(RuleSubject)
		}
		switch {
		case doubtful(err):
			unsure.Causes = append(unsure.Causes, err)
			continue
		case err != nil:
			refused.Reasons = append(refused.Reasons, Rejection{Key: id.Name, Err: err})
			continue
		case req.signers() > 1:
			return signature.Statement{}, Accepted{}, &RejectedError{Reasons: []Rejection{{Err: &SignersError{Want: req.signers(), Have: []string{id.Name}}}}}
		}
		return o.Statement, Accepted{Format: env.Format(), Key: id.Name, KeyType: id.Type, KeyVersion: o.KeyVersion, Claims: o.Statement.Claims}, nil
	}
	if len(unsure.Causes) > 0 {
		unsure.Reasons = refused.Reasons
		return signature.Statement{}, Accepted{}, &unsure
	}
	return signature.Statement{}, Accepted{}, &refused
}
