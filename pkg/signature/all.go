// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"context"
	"fmt"
)

// All returns a Key that accepts what every one of keys accepts: two independent
// roots of trust, of which one alone is not enough. With one key it is that key
// under another name.
func All(name string, keys ...Key) Key { return &all{name: name, keys: keys} }

type all struct {
	name string
	keys []Key
}

func (a *all) ID() KeyID {
	id := KeyID{Name: a.name}
	for _, k := range a.keys {
		if other := k.ID(); id.Type == KeyUnknown {
			id.Type, id.SPKI = other.Type, other.SPKI
		}
	}
	return id
}

// Local reports whether none of the keys asks anybody.
func (a *all) Local() bool {
	for _, k := range a.keys {
		if !k.Local() {
			return false
		}
	}
	return true
}

// Check asks each key in turn, and each only about what those before accepted.
func (a *all) Check(ctx context.Context, checks []Check) []Verdict {
	verdicts := make([]Verdict, len(checks))
	if len(a.keys) == 0 {
		for i := range verdicts {
			verdicts[i].Err = ErrInvalid
		}
		return verdicts
	}
	left := make([]int, len(checks))
	for i := range left {
		left[i] = i
	}
	for _, k := range a.keys {
		ask := make([]Check, len(left))
		for n, i := range left {
			ask[n] = checks[i]
		}
		answers := k.Check(ctx, ask)
		var passed []int
		for n, i := range left {
			answer := Verdict{Err: errMiscounted}
			if len(answers) == len(ask) {
				answer = answers[n]
			}
			verdicts[i] = merge(verdicts[i], answer)
			if verdicts[i].Err == nil {
				passed = append(passed, i)
			}
		}
		if left = passed; len(left) == 0 {
			break
		}
	}
	return verdicts
}

// merge adds a key's answer to those before it. Two keys that accept one message
// must be the same key where both say which they are.
func merge(before, answer Verdict) Verdict {
	if answer.Err != nil {
		return answer
	}
	if before.SPKI != nil && answer.SPKI != nil && !bytes.Equal(before.SPKI, answer.SPKI) {
		return Verdict{Err: fmt.Errorf("%w: the keys that must agree are different ones", ErrInvalid)}
	}
	if answer.KeyVersion == 0 {
		answer.KeyVersion = before.KeyVersion
	}
	if answer.SPKI == nil {
		answer.SPKI = before.SPKI
	}
	return answer
}
