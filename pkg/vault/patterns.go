// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"regexp"
	"sync"
)

// whenUsed compiles a pattern once it is asked for: with their counted repetitions
// some take milliseconds, and every command of aegis-oci would wait for them.
func whenUsed(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
