// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// MaxEnvelopeSize bounds one envelope, in bytes.
const MaxEnvelopeSize = 1 << 20

// Claims are what the key's holder says about a signature, under the signature.
// They are the holder's own word, signing time included. Zero values are claims
// that were not made.
type Claims struct {
	SignedAt    time.Time         `json:"signedAt,omitzero"`
	Expires     time.Time         `json:"expires,omitzero"`
	Repository  string            `json:"repository,omitempty"`
	Tag         string            `json:"tag,omitempty"`
	Builder     map[string]string `json:"builder,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Statement is the content of an envelope that a key has accepted: the subject
// it names and what is claimed. MediaType and Size are empty and zero in a
// format that does not carry them.
type Statement struct {
	Digest    digest.Digest
	MediaType string
	Size      int64
	Claims    Claims
	// ValidFrom and ValidUntil bound the time at which every certificate of the
	// envelope is valid; zero in formats without certificates.
	ValidFrom, ValidUntil time.Time
	// Chain is the certificates of the envelope, leaf first; nil in formats without.
	Chain []*x509.Certificate
	// Files are what is signed beside or instead of a manifest, in the format that
	// signs files.
	Files []File
	// Ignored are the paths, of files or directories, that the signer left out.
	Ignored []string
	// Stamps are the envelope's RFC 3161 timestamps. Nobody has judged them.
	Stamps []Stamp
}

// File is one signed file: its path with slashes, "." for a model that is one
// file, and the SHA-256 of its content.
type File struct {
	Path   string
	Digest digest.Digest
}

// Stamp is a timestamp token (RFC 3161) and what it has to be over.
type Stamp struct {
	Token []byte
	// Content is the primitive signature as the envelope has it; Hash is the
	// signature's own hash, and the weakest that the token may have used.
	Content []byte
	Hash    crypto.Hash
}

// MaxStamps bounds the timestamps of one envelope, each of which costs whoever
// judges it several signatures.
const MaxStamps = 4

// Stamped is what a stamp that was judged says: what it is over existed at Until
// at the latest, by the word of Chain's leaf. The authority's accuracy is in From
// and Until.
type Stamped struct {
	From, Until time.Time
	// Chain is the authority's certificates, leaf first, root last.
	Chain []*x509.Certificate
}

// Timestamper has a timestamp authority stamp a signature (RFC 3161).
type Timestamper interface {
	// Timestamp returns a token over content, hashed with hash, with the
	// authority's certificates in it.
	Timestamp(ctx context.Context, content []byte, hash crypto.Hash) ([]byte, error)
}

// Envelope is a parsed and untrusted signature. It has no accessor for what it
// says: Open is the only door.
type Envelope struct {
	format    Format
	message   []byte
	primitive []byte
	hint      int
	chain     []*x509.Certificate
	stamps    []Stamp
	decode    func() (Statement, error)
}

// NewEnvelope is for the packages that parse formats. message is the exact bytes
// that were signed, primitive the signature over them, and decode reads the
// statement out of message; it is called only after a key has accepted.
func NewEnvelope(f Format, message, primitive []byte, decode func() (Statement, error)) *Envelope {
	return &Envelope{format: f, message: message, primitive: primitive, decode: decode}
}

// Format is the envelope's format, told by its media type.
func (e *Envelope) Format() Format { return e.format }

// Signature returns the primitive signature's bytes. They say nothing and prove
// nothing: they can be looked for in the key holder's log.
func (e *Envelope) Signature() []byte { return bytes.Clone(e.primitive) }

// VersionHint is the key version that an unsigned hint names, zero for none.
func (e *Envelope) VersionHint() int { return e.hint }

// WithVersionHint returns a copy that carries the key version which an unsigned
// hint names. It orders attempts and decides nothing.
func (e *Envelope) WithVersionHint(version int) *Envelope {
	c := *e
	c.hint = version
	return &c
}

// WithChain returns a copy that carries the envelope's certificates, leaf first.
// Who parses a format has checked that they are what the format demands; only a
// key says whether they are trusted.
func (e *Envelope) WithChain(chain []*x509.Certificate) *Envelope {
	c := *e
	c.chain = slices.Clone(chain)
	return &c
}

// WithStamps returns a copy that carries timestamps of the envelope. They are not
// signed by the key and nobody has judged them.
func (e *Envelope) WithStamps(stamps []Stamp) *Envelope {
	c := *e
	c.stamps = slices.Clone(stamps)
	return &c
}

// Same reports whether both envelopes carry the same signature over the same
// message, the same hint, certificates and timestamps, so that asking about one
// answers for both. Certificates and timestamps are not signed: a copy with
// others must not stand for the original.
func (e *Envelope) Same(o *Envelope) bool {
	return e.format == o.format && e.hint == o.hint && string(e.primitive) == string(o.primitive) && string(e.message) == string(o.message) &&
		slices.EqualFunc(e.chain, o.chain, (*x509.Certificate).Equal) &&
		slices.EqualFunc(e.stamps, o.stamps, func(a, b Stamp) bool { return bytes.Equal(a.Token, b.Token) })
}

// Opened is the outcome for one envelope. Statement is set only when Err is nil.
// Err is ErrInvalid (by errors.Is) when the key refused, a *StatementError when
// the key accepted and the content is unusable, and anything else when the key
// could not be asked.
type Opened struct {
	Statement  Statement
	KeyVersion int
	SPKI       []byte
	Err        error
}

// StatementError means that the key did sign the bytes and they are not a
// signature over a manifest in this format.
type StatementError struct{ Err error }

func (e *StatementError) Error() string { return "signed content: " + e.Err.Error() }
func (e *StatementError) Unwrap() error { return e.Err }

var errMiscounted = errors.New("the key answered another number of checks than it was asked")

// Open asks k about every envelope, in one batch, and decodes those it accepts.
// The results are in the envelopes' order.
func Open(ctx context.Context, k Key, envs []*Envelope) []Opened {
	checks := make([]Check, len(envs))
	for i, e := range envs {
		checks[i] = Check{Format: e.format, Message: e.message, Signature: e.primitive, VersionHint: e.hint, Chain: e.chain}
	}
	opened := make([]Opened, len(envs))
	verdicts := k.Check(ctx, checks)
	if len(verdicts) != len(checks) {
		// A Key that loses count must not turn into acceptances.
		for i := range opened {
			opened[i].Err = errMiscounted
		}
		return opened
	}
	for i, v := range verdicts {
		v.Err = leafAccepts(checks[i], v)
		opened[i] = Opened{KeyVersion: v.KeyVersion, SPKI: v.SPKI, Err: v.Err}
		if v.Err != nil {
			continue
		}
		st, err := envs[i].decode()
		if err != nil {
			opened[i].Err = &StatementError{Err: err}
			continue
		}
		st.Chain, st.Stamps = slices.Clone(envs[i].chain), slices.Clone(envs[i].stamps)
		opened[i].Statement = st
	}
	return opened
}

// leafAccepts holds a key's acceptance against the certificate: the key that
// accepted must be the leaf's. A key whose holder does not show its public half
// has accepted the bytes, and the leaf has to accept them as well.
func leafAccepts(c Check, v Verdict) error {
	if v.Err != nil || len(c.Chain) == 0 {
		return v.Err
	}
	_, spki := c.Leaf()
	if v.SPKI != nil {
		if !bytes.Equal(v.SPKI, spki) {
			return fmt.Errorf("%w: the certificate is of another key", ErrInvalid)
		}
		return nil
	}
	if !AcceptedByLeaf(c) {
		return fmt.Errorf("%w: the certificate is of another key", ErrInvalid)
	}
	return nil
}
