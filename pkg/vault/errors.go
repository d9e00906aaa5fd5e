// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Kind is the class of an Error, for callers that act on it.
type Kind int

// The kinds of errors.
const (
	// Unreachable: no answer came, or one that broke off.
	Unreachable Kind = iota + 1
	// TLS: the server's certificate is not trusted, or one side does not speak TLS.
	TLS
	// Sealed, Standby, Uninitialized: the server is there and cannot serve.
	Sealed
	Standby
	Uninitialized
	// Denied: the token is valid and lacks Capability on Path.
	Denied
	// TokenInvalid: the token is unknown, expired, revoked or bound elsewhere.
	TokenInvalid
	// NoToken: there is no token to use.
	NoToken
	// BadRequest: the server refused the request itself.
	BadRequest
	// KeyNotFound: no such key, version, mount or namespace.
	KeyNotFound
	// KeyUnsuitable: the key exists and cannot make signatures of this kind.
	KeyUnsuitable
	// RateLimited: a quota was hit for the whole budget.
	RateLimited
	// Unavailable: any other 5xx, or 412.
	Unavailable
	// Insecure: it would need an unauthenticated connection.
	Insecure
	// Malformed: the answer makes no sense.
	Malformed
	// LongLived: Config.RequireShortLived refuses the token.
	LongLived
	// BadConfig: a setting is wrong (address, CA file, token file).
	BadConfig
	// NotAsked: a limit kept the question from being asked in full.
	NotAsked
	// LoginRefused: the server knows the auth method and did not let this role,
	// identity or secret in; Detail holds what the identity says of itself.
	LoginRefused
	// NoIdentity: there is no identity token (JWT) to log in with.
	NoIdentity
	// WrappingUsed: the wrapping token is not valid any more. If nobody of ours
	// has used it, somebody else has.
	WrappingUsed
	// WrappingForeign: the wrapping token holds something else than a secret_id of
	// the role: it was exchanged on its way.
	WrappingForeign
	// OutcomeUnknown: the request was sent, cannot be repeated, and how it ended
	// could not be told.
	OutcomeUnknown
)

func (k Kind) String() string {
	switch k {
	case Unreachable:
		return "Vault cannot be reached"
	case TLS:
		return "no authenticated TLS connection to Vault"
	case Sealed:
		return "Vault is sealed"
	case Standby:
		return "this Vault node is a standby"
	case Uninitialized:
		return "Vault is not initialized"
	case Denied:
		return "Vault denied it"
	case TokenInvalid:
		return "the Vault token is not valid"
	case NoToken:
		return "no Vault token"
	case BadRequest:
		return "Vault refused the request"
	case KeyNotFound:
		return "no such Transit key"
	case KeyUnsuitable:
		return "the Transit key cannot sign"
	case RateLimited:
		return "Vault limits the rate of requests"
	case Unavailable:
		return "Vault is not available"
	case Insecure:
		return "refused as insecure"
	case Malformed:
		return "Vault's answer is malformed"
	case LongLived:
		return "the Vault token is not short-lived"
	case BadConfig:
		return "wrong setting"
	case NotAsked:
		return "the key was not asked"
	case LoginRefused:
		return "Vault refused the login"
	case NoIdentity:
		return "no identity token"
	case WrappingUsed:
		return "the wrapping token was used already, or has expired"
	case WrappingForeign:
		return "the wrapping token holds something else"
	case OutcomeUnknown:
		return "could not tell how it ended"
	}
	return "unknown"
}

// Error is every error of this package but *KeyRefError. It never holds a token.
type Error struct {
	// Op is what was being done: "sign with hashivault://models".
	Op string
	// Path is the API path that was asked, without /v1/; "" when none was.
	Path string
	Kind Kind
	// Status is the HTTP status, zero when there was no answer.
	Status int
	// Capability is what a policy must grant on Path, when Kind is Denied.
	Capability string
	// Detail is one line: the server's own words or the reason in ours.
	Detail string
	// Hint is a command or setting that helps, "" for none.
	Hint string
	// RequestID names the request in Vault's audit log where known.
	RequestID string
	// Err is the cause, nil for none; a cancelled context is found through it.
	Err error

	retryAfter time.Duration
	vague      bool // a refusal that may be about the token itself
	sent       bool // a connection was there: the server may have seen the request
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(e.Kind.String())
	switch {
	case e.Kind == Denied && e.Capability != "":
		fmt.Fprintf(&b, ": the token needs %q on %s", e.Capability, e.Path)
	case e.Path != "" && e.Detail == "":
		b.WriteString(": " + e.Path)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Retryable reports that the same request may succeed later.
func (e *Error) Retryable() bool {
	switch e.Kind {
	case Unreachable, Sealed, Standby, Uninitialized, RateLimited, Unavailable:
		return true
	}
	return false
}

// AnySignature reports that the key would say the same of any signature: it could not be
// asked. An answer that is about what was sent may be the work of whoever made that.
func (e *Error) AnySignature() bool {
	switch e.Kind {
	case BadRequest, KeyUnsuitable, NotAsked, Malformed:
		return false
	}
	return true
}

// clip makes one printable line of at most n bytes of what a server said.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}
