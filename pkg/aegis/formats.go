// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

// FormatError means that a signature format cannot be written: it is not known,
// is given twice, or has no algorithm for the type of key.
type FormatError struct {
	Format signature.Format
	// Reason is empty for a format that is not known.
	Reason string
}

func (e *FormatError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("unknown signature format %q", e.Format)
	}
	return fmt.Sprintf("signature format %q: %s", e.Format, e.Reason)
}

// NoCertificateError means that a format needs a certificate for the key and
// there is none.
type NoCertificateError struct {
	Format signature.Format
	Key    string
}

func (e *NoCertificateError) Error() string {
	return fmt.Sprintf("signature format %s needs a certificate and %s has none", e.Format, e.Key)
}

// CheckFormats reports the first of formats that cannot be written with a key of
// type t, which may be signature.KeyUnknown. Errors are *FormatError.
func CheckFormats(formats []signature.Format, t signature.KeyType) error {
	for i, f := range formats {
		switch {
		case !slices.Contains(signature.Formats(), f):
			return &FormatError{f, ""}
		case slices.Contains(formats[:i], f):
			return &FormatError{f, "it is given twice"}
		case len(signature.Algorithms(f, t)) == 0:
			return &FormatError{f, fmt.Sprintf("it does not take keys of type %s", t)}
		}
	}
	return nil
}

// needsCertificate reports whether verifiers of f look for a certificate.
func needsCertificate(f signature.Format) bool {
	return f == signature.Notary || f == signature.NotaryCOSE
}

// NeedCertificates reports whether one of formats needs a certificate.
func NeedCertificates(formats []signature.Format) bool {
	return slices.ContainsFunc(formats, needsCertificate)
}

// carriesStamp reports whether an RFC 3161 timestamp has a place in f.
func carriesStamp(f signature.Format) bool {
	return f == signature.Sigstore || needsCertificate(f)
}

// CarryStamps reports whether one of formats has a place for a timestamp.
func CarryStamps(formats []signature.Format) bool {
	return slices.ContainsFunc(formats, carriesStamp)
}

// prepare makes the statement of every format, before anybody is asked to sign:
// what one format cannot carry must not leave the others signed.
func prepare(pinned Pinned, claims signature.Claims, s Signing) ([]signature.Draft, error) {
	formats := s.Formats
	if len(formats) == 0 {
		formats = []signature.Format{signature.Sigstore}
	}
	if err := CheckFormats(formats, s.Signer.ID().Type); err != nil {
		return nil, err
	}
	drafts := make([]signature.Draft, len(formats))
	for i, f := range formats {
		var err error
		if drafts[i], err = draft(f, pinned, claims, s); err != nil {
			return nil, err
		}
	}
	return drafts, nil
}

func draft(f signature.Format, pinned Pinned, claims signature.Claims, s Signing) (signature.Draft, error) {
	switch f {
	case signature.Sigstore:
		d, err := sigstore.Prepare(pinned.Subject(), claims)
		if err != nil {
			return nil, err
		}
		return d.WithTimestamper(s.Timestamper), nil
	case signature.CosignTag:
		return simplesigning.Prepare(pinned.Subject(), claims)
	case signature.Notary, signature.NotaryCOSE:
		if len(s.Certificates) == 0 {
			return nil, &NoCertificateError{Format: f, Key: s.Signer.ID().Name}
		}
		return notary.Prepare(f, pinned.Subject(), claims, notary.Options{
			Chain: s.Certificates, Agent: s.Agent, Timestamper: s.Timestamper,
		})
	}
	if f == signature.OMS {
		return omsDraft(pinned, claims)
	}
	return nil, errors.New("aegis: format " + string(f) + " has no writer")
}

// omsDraft signs the files by the digests that the manifest has for them: a raw
// layer is a file, and nothing is hashed again.
func omsDraft(pinned Pinned, claims signature.Claims) (signature.Draft, error) {
	if pinned.Subject().IsIndex() {
		return nil, &FormatError{signature.OMS, "it signs files, and an index has none"}
	}
	m, err := model.Describe(pinned.Subject(), pinned.Manifest())
	if err != nil {
		return nil, err
	}
	o := oms.Model{Name: path.Base(pinned.Name()), Manifest: pinned.Subject(), Ignored: []string{evidenceDir}}
	for _, l := range m.Layers {
		if l.Archive {
			return nil, &FormatError{signature.OMS, "it needs the digest of every file, and the manifest has archives"}
		}
		o.Files = append(o.Files, signature.File{Path: l.Path, Digest: l.Descriptor.Digest})
	}
	if len(m.Unknown) > 0 {
		return nil, &FormatError{signature.OMS, "it needs the digest of every file, and the manifest has layers of unknown types"}
	}
	return oms.Prepare(o, claims)
}

// evidenceDir is what pull leaves beside a model's files.
const evidenceDir = ".aegis"
