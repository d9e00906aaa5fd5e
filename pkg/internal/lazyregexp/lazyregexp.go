// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package lazyregexp compiles patterns when they are used.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New compiles a pattern once it is asked for: with their counted repetitions some take
// milliseconds, and every command of aegis-oci would wait for them. A pattern that does
// not compile panics then.
func New(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}
