// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import "strings"

// printedError ends a command whose result is on stdout already and says it all:
// the error gives exit code and reason, and no second object on stdout.
type printedError struct {
	exit                int
	code, message, hint string
}

func (e *printedError) Error() string { return e.message }

// trimEnd is the text of a file without the newline that editors put at its end.
func trimEnd(raw []byte) string { return strings.TrimRight(string(raw), "\r\n") }
