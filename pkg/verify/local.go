// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Statement judges one envelope that stands alone, beside what it signs: some key
// must accept it, and its claims must hold. What it signs is for the caller to
// compare; a statement is no evidence about any manifest. Errors are those of
// Verify.
func (v *Verifier) Statement(ctx context.Context, env *signature.Envelope, keys []signature.Key, annotations map[string]string) (signature.Statement, Accepted, error) {
	if len(keys) == 0 {
		return signature.Statement{}, Accepted{}, errors.New("verify: no key to verify with")
	}
	now := v.opts.Now()
	var refused RejectedError
	var unsure UndecidedError
	for _, k := range localFirst(keys) {
		o := signature.Open(ctx, k, []*signature.Envelope{env})[0]
		name := k.ID().Name
		var bad *signature.StatementError
		err := o.Err
		if err != nil && !errors.Is(err, signature.ErrInvalid) && !errors.As(err, &bad) {
			unsure.Causes = append(unsure.Causes, err)
			continue
		}
		if err == nil {
			err = errors.Join(notExpired(o.Statement.Claims, now), notFromTheFuture(o.Statement.Claims, now), annotationsMatch(o.Statement.Claims, annotations))
		}
		if err != nil {
			refused.Reasons = append(refused.Reasons, Rejection{Key: name, Err: err})
			continue
		}
		return o.Statement, Accepted{Format: env.Format(), Key: name, KeyType: k.ID().Type, KeyVersion: o.KeyVersion, Claims: o.Statement.Claims}, nil
	}
	if len(unsure.Causes) > 0 {
		unsure.Reasons = refused.Reasons
		return signature.Statement{}, Accepted{}, &unsure
	}
	return signature.Statement{}, Accepted{}, &refused
}
