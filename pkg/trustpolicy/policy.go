// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Policy is a parsed trust policy. It is immutable and safe for concurrent use.
// The zero value has no statement and covers nothing.
type Policy struct {
	statements []statement
}

// statement is a Statement and where it applies.
type statement struct {
	scopes []scope
	Statement
}

// Statement is what the policy asks of the repositories in its scopes. Each zero
// value asks for nothing, but for Require.
type Statement struct {
	Name string
	// Scopes are the repositories it is for, with their registries in lower case.
	Scopes []string
	// Require is how many distinct signers must have signed, from 1 to the number
	// of Keys. A signer is one entry of Keys and counts once.
	Require int
	// Formats are the signature formats that count; empty means every format.
	Formats []signature.Format
	// Timestamps says which RFC 3161 stamps are trusted.
	Timestamps Timestamps
	MaxAge     MaxAge
	// NotBefore is the earliest signing time that counts.
	NotBefore time.Time
	// RequireRepository demands that the signed repository claim is the repository
	// that was asked for.
	RequireRepository bool
	// Annotations and Builder are claims that must be signed, with these values.
	Annotations map[string]string
	Builder     map[string]string
	Revoked     Revoked
	// Keys is never empty when it comes from Match.
	Keys []Key
}

// What an age is measured from.
const (
	// OfClaim is the signing time that the key's holder claims.
	OfClaim = "claim"
	// OfTimestamp is the time in an RFC 3161 stamp, which nobody but its authority
	// can set.
	OfTimestamp = "timestamp"
)

// Timestamps names the roots of timestamp authorities. Without any no stamp is
// trusted.
type Timestamps struct {
	// CertificatesFile is a path as that of Key. TrustStores are a notation policy's,
	// as in "tsa:acme". One excludes the other.
	CertificatesFile string
	TrustStores      []string
	// Required refuses signatures without a trusted stamp.
	Required bool
	// AfterExpiry looks at stamps only once a certificate has expired, and demands
	// one then.
	AfterExpiry bool
	// Revocation is for the authorities' certificates.
	Revocation Revocation
}

// Given reports whether any authority is trusted.
func (t Timestamps) Given() bool { return t.CertificatesFile != "" || len(t.TrustStores) > 0 }

// Revocation is what follows from looking up, at the OCSP responders and CRLs that
// certificates name, whether they are revoked.
type Revocation string

const (
	// NotLookedUp asks nobody.
	NotLookedUp Revocation = ""
	// Enforce refuses what is revoked, and does not accept what cannot be told.
	Enforce Revocation = "enforce"
	// Log says so and goes on.
	Log Revocation = "log"
)

// MaxAge is how old a signature may be. A zero Is sets no limit.
type MaxAge struct {
	// Of is OfClaim or OfTimestamp.
	Of string
	Is time.Duration
}

// Revoked names what no longer counts, whoever has signed it.
type Revoked struct {
	// Subjects are manifests.
	Subjects []digest.Digest
	// Versions are single versions of Transit keys.
	Versions []KeyVersion
	// Keys are SHA-256 digests of public keys (DER SubjectPublicKeyInfo).
	Keys []digest.Digest
}

// KeyVersion is one version of the key that an entry names.
type KeyVersion struct {
	Name    string
	Version int
}

// Key is one signer. At least one of Transit, PublicKey, PublicKeyFile,
// CertificatesFile and TrustStores is set; the last two exclude the others, and
// PublicKey and PublicKeyFile each other. Where Transit stands beside a public
// key, both must accept; the caller sees to that.
type Key struct {
	Name string
	// Transit is the URI of a Transit key as it was written: its scheme is
	// hashivault or openbao, the rest is unchecked.
	Transit string
	// MinVersion is the lowest version of the Transit key that counts; zero means
	// every one.
	MinVersion int
	// PublicKey is PEM that signature.ParsePublicKeys has accepted.
	PublicKey []byte
	// PublicKeyFile and CertificatesFile are paths as they were written; where
	// they are relative, to the policy file.
	PublicKeyFile    string
	CertificatesFile string
	// TrustStores are a notation policy's, as in "ca:acme"; see ParseNotation.
	TrustStores []string
	// Identities are the subjects that a certificate may have, "x509.subject: ..."
	// or "*" alone.
	Identities []string
	// Revocation is for the certificates that CertificatesFile or TrustStores trust.
	Revocation Revocation
	// Vault says where Transit is asked; what is empty there is as for every other
	// key.
	Vault Vault
}

// Vault is the server of one key.
type Vault struct {
	Address string
	// CAFile is a path as PublicKeyFile is.
	CAFile    string
	Namespace string
}

// Match returns the statement whose scope covers repository ("registry/path",
// no tag, no digest) most closely. Where none does the error is *NoMatchError.
// The caller may change what it gets; the policy does not change with it.
func (p Policy) Match(repository string) (Statement, error) {
	name, reason := normalise(repository)
	if reason != "" {
		return Statement{}, &NoMatchError{Repository: repository, Reason: reason}
	}
	var best *statement
	var closest scope
	for i := range p.statements {
		for _, s := range p.statements[i].scopes {
			if s.covers(name) && (best == nil || s.closerThan(closest)) {
				best, closest = &p.statements[i], s
			}
		}
	}
	if best == nil {
		return Statement{}, &NoMatchError{Repository: repository}
	}
	return best.clone(), nil
}

func (s *statement) clone() Statement {
	c := s.Statement
	c.Scopes = slices.Clone(c.Scopes)
	c.Formats = slices.Clone(c.Formats)
	c.Timestamps.TrustStores = slices.Clone(c.Timestamps.TrustStores)
	c.Annotations = maps.Clone(c.Annotations)
	c.Builder = maps.Clone(c.Builder)
	c.Revoked = Revoked{
		Subjects: slices.Clone(c.Revoked.Subjects),
		Versions: slices.Clone(c.Revoked.Versions),
		Keys:     slices.Clone(c.Revoked.Keys),
	}
	c.Keys = slices.Clone(c.Keys)
	for i := range c.Keys {
		k := &c.Keys[i]
		k.PublicKey = bytes.Clone(k.PublicKey)
		k.TrustStores = slices.Clone(k.TrustStores)
		k.Identities = slices.Clone(k.Identities)
	}
	return c
}

// Statements returns the statements in the document's order, as Match does.
func (p Policy) Statements() []Statement {
	all := make([]Statement, 0, len(p.statements))
	for i := range p.statements {
		all = append(all, p.statements[i].clone())
	}
	return all
}
