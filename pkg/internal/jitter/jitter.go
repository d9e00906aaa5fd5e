// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package jitter spreads over time what many clients would do at once.
package jitter

import (
	"math/rand/v2"
	"time"
)

// After is how long to wait where a server asks for a time, and room is what may be waited
// at most: longer by up to a tenth, or a second where that is more. A server that is
// overloaded tells all its clients the same, and must not have them back in one instant.
func After(asked, room time.Duration) time.Duration {
	spread := min(max(asked/10, time.Second), room-asked)
	if asked <= 0 || spread <= 0 {
		return asked
	}
	return asked + rand.N(spread) //nolint:gosec // jitter needs no secrecy
}
