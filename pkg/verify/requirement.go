// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Requirement is what has to hold. With Keys alone it is a signature that any one
// of them accepts; each further field narrows that, and a candidate that lacks
// what a field asks for does not count.
type Requirement struct {
	// Name is reported with the result.
	Name string
	// Keys are the signers that may count. Each counts once, whatever versions,
	// formats or certificates it signs with.
	Keys []signature.Key
	// Require is how many distinct signers must have signed. Zero means 1.
	Require int
	// Formats are those that count; empty means every format.
	Formats []signature.Format
	// Stamps says which RFC 3161 timestamps are trusted.
	Stamps Stamps
	// MaxAge is how old a signature may be.
	MaxAge MaxAge
	// NotBefore is the earliest signing time that counts. It stops the rollback
	// to a manifest that was signed before.
	NotBefore time.Time
	// Repository, when set, is the "registry/repository" that the signature must
	// claim: a signature copied there from another repository does not count.
	Repository string
	// Annotations and Builder are claims that the signature must carry, with these
	// values.
	Annotations map[string]string
	Builder     map[string]string
	// MinVersions is the lowest version that counts, by the key's name.
	MinVersions map[string]int
	// Revoked names what does not count.
	Revoked Revoked
	// Revocation looks up the certificates of what the key of that name accepts.
	Revocation map[string]RevocationJudge
}

// MaxAge bounds the age of a signature. A zero Is bounds nothing.
type MaxAge struct {
	Is time.Duration
	// Stamped asks for a trusted RFC 3161 stamp, and measures from it where the
	// time that is claimed is later, or not there.
	Stamped bool
}

// Revoked names what does not count, however well it is signed.
type Revoked struct {
	Subjects []digest.Digest
	Versions []KeyVersion
	// Keys are SHA-256 digests of DER SubjectPublicKeyInfo.
	Keys []digest.Digest
}

// KeyVersion is one version of the key of that name.
type KeyVersion struct {
	Key     string
	Version int
}

// NeedsIdentity reports whether each key must say which public key accepted: two
// signers must be two keys, and a revoked one must be known when it is seen.
func (r Requirement) NeedsIdentity() bool { return r.Require > 1 || len(r.Revoked.Keys) > 0 }

// DuplicateKeyError means that two signers are one public key, so that one
// signature could count twice.
type DuplicateKeyError struct {
	Key, Other string
	SPKI       digest.Digest
}

func (e *DuplicateKeyError) Error() string {
	return fmt.Sprintf("keys %q and %q share the public key %s: one signer under two names", e.Other, e.Key, e.SPKI)
}

// Distinct reports two keys that share a public key, as far as that is known
// without asking anybody; the error is a *DuplicateKeyError.
func Distinct(keys []signature.Key) error {
	owners := make(map[string]int)
	for i, k := range keys {
		for _, spki := range signature.KnownSPKIs(k) {
			if owner, found := owners[string(spki)]; found && owner != i {
				return &DuplicateKeyError{Key: k.ID().Name, Other: keys[owner].ID().Name, SPKI: spkiDigest(spki)}
			}
			owners[string(spki)] = i
		}
	}
	return nil
}

func spkiDigest(spki []byte) digest.Digest {
	if spki == nil {
		return ""
	}
	sum := sha256.Sum256(spki)
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

func (r Requirement) signers() int { return max(r.Require, 1) }

// check finds what can never be met, before anybody is asked anything.
func (r Requirement) check() error {
	if len(r.Keys) == 0 {
		return errors.New("verify: no key to verify with")
	}
	if r.signers() > len(r.Keys) {
		return fmt.Errorf("verify: %d signers are required and there are %d keys", r.signers(), len(r.Keys))
	}
	if r.Require > 1 {
		return Distinct(r.Keys)
	}
	return nil
}

func (r Requirement) allows(f signature.Format) bool {
	return len(r.Formats) == 0 || slices.Contains(r.Formats, f)
}
