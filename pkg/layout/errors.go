// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"fmt"
	"strings"
	"unicode"
)

// Kind says what went wrong with a layout, for a caller that has to act.
type Kind int

// The kinds.
const (
	// NotFound: no layout there, or no such tag, manifest or blob in it.
	NotFound Kind = iota + 1
	// Malformed: not what the image-spec says.
	Malformed
	// Corrupt: bytes that are not those of their digest or size.
	Corrupt
	// TooLarge: over a limit of this package.
	TooLarge
	// ReadOnly: a tar that is there already is never changed.
	ReadOnly
	// NotEmpty: a directory to write a layout to holds something else.
	NotEmpty
)

var kindText = map[Kind]string{
	NotFound:  "not found",
	Malformed: "not a usable image layout",
	Corrupt:   "content does not match its digest",
	TooLarge:  "too large",
	ReadOnly:  "a tar file is written once",
	NotEmpty:  "the destination is not empty",
}

func (k Kind) String() string { return kindText[k] }

// Error is a layout, or something in it, that cannot be used.
type Error struct {
	// Op is what was being done, Reference what to.
	Op, Reference string
	Kind          Kind
	Detail        string
	Err           error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s %s: %s", e.Op, e.Reference, e.Kind)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

func newError(op, about string, kind Kind, format string, args ...any) *Error {
	return &Error{Op: op, Reference: about, Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// ReferenceError says why a string names nothing in a layout. It is the caller's
// mistake.
type ReferenceError struct{ Input, Reason string }

func (e *ReferenceError) Error() string { return fmt.Sprintf("layout %q: %s", e.Input, e.Reason) }

// printable cuts text that others wrote short, and drops what could move a cursor.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "..."
	}
	return s
}
