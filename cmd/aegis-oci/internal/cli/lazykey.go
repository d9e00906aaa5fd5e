// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// lazyKey is a Transit key whose Vault is contacted when there is something to
// ask it: beside a local key that accepts, a Vault that is down is nobody's
// problem, and an unsigned model needs no Vault to be refused.
type lazyKey struct {
	app   *app
	flags *vaultFlags
	ref   vault.KeyRef
	key   signature.Key // nil until the first Check
}

var _ signature.Key = (*lazyKey)(nil)

func (k *lazyKey) ID() signature.KeyID {
	if k.key != nil {
		return k.key.ID()
	}
	return signature.KeyID{Name: k.ref.String(), Version: k.ref.Version}
}

func (k *lazyKey) Local() bool { return false }

// Check opens the session, which all keys of a command share.
func (k *lazyKey) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	if k.key == nil {
		s, err := k.app.session(ctx, k.flags)
		if err != nil {
			verdicts := make([]signature.Verdict, len(checks))
			for i := range verdicts {
				verdicts[i].Err = err
			}
			return verdicts
		}
		k.key = s.Key(k.ref)
	}
	return k.key.Check(ctx, checks)
}
