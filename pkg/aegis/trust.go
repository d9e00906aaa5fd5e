// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"fmt"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// KeyOpener opens what the keys of a policy name.
type KeyOpener interface {
	// ReadFile returns a file of public keys. path is as the policy has it; where
	// it is relative, to the policy.
	ReadFile(path string) ([]byte, error)
	// Transit opens the Transit key of k at the Vault that k names. identified
	// asks for a key whose acceptances say which public key it was, if that can
	// be had.
	Transit(ctx context.Context, k trustpolicy.Key, identified bool) (signature.Key, error)
	// TrustStore returns the certificates of a named store, "ca:NAME" or
	// "tsa:NAME", as PEM.
	TrustStore(name string) ([]byte, error)
	// Revocation looks up certificates where the policy asks for it; nil where
	// nobody can be asked.
	Revocation() RevocationChecker
	// Warn says something that does not stand in the way.
	Warn(message string)
}

// CertificateError means that a policy trusts certificates in a way that cannot
// be enforced.
type CertificateError struct{ Key, Reason string }

func (e *CertificateError) Error() string { return fmt.Sprintf("key %q: %s", e.Key, e.Reason) }

// RequirementOf turns a statement into what has to hold for repository
// ("registry/repository" as it was asked for). Where an entry names a Transit key
// and a public key, both must accept: neither a fake Vault nor a swapped file is
// enough. Two entries that share a public key are a *verify.DuplicateKeyError.
func RequirementOf(ctx context.Context, st trustpolicy.Statement, repository string, open KeyOpener) (verify.Requirement, error) {
	req := verify.Requirement{
		Name:        st.Name,
		Require:     st.Require,
		Formats:     st.Formats,
		MaxAge:      verify.MaxAge{Is: st.MaxAge.Is, Stamped: st.MaxAge.Of == trustpolicy.OfTimestamp},
		NotBefore:   st.NotBefore,
		Annotations: st.Annotations,
		Builder:     st.Builder,
		Revoked:     RevokedOf(st.Revoked),
	}
	if st.RequireRepository {
		req.Repository = repository
	}
	var err error
	if req.Stamps, err = stampsOf(st.Timestamps, open); err != nil {
		return verify.Requirement{}, err
	}
	for _, k := range st.Keys {
		if judge := revocationOf(k.Revocation, open); judge != nil {
			if req.Revocation == nil {
				req.Revocation = make(map[string]verify.RevocationJudge)
			}
			req.Revocation[k.Name] = judge
		}
		if k.MinVersion > 0 {
			if req.MinVersions == nil {
				req.MinVersions = make(map[string]int)
			}
			req.MinVersions[k.Name] = k.MinVersion
		}
		key, err := openKey(ctx, k, open, req.NeedsIdentity())
		if err != nil {
			return verify.Requirement{}, err
		}
		req.Keys = append(req.Keys, key)
	}
	if err := verify.Distinct(req.Keys); err != nil {
		return verify.Requirement{}, err
	}
	return req, nil
}

// stampsOf opens the roots of timestamp authorities.
func stampsOf(t trustpolicy.Timestamps, open KeyOpener) (verify.Stamps, error) {
	if !t.Given() {
		return verify.Stamps{}, nil
	}
	roots, err := collect("timestamps", t.TrustStores, t.CertificatesFile, open)
	if err != nil {
		return verify.Stamps{}, err
	}
	judge, err := timestamp.NewJudge("timestamps", roots)
	if err != nil {
		return verify.Stamps{}, &CertificateError{Key: "timestamps", Reason: err.Error()}
	}
	return verify.Stamps{Judge: judge, Required: t.Required, AfterExpiry: t.AfterExpiry, Revocation: revocationOf(t.Revocation, open)}, nil
}

// RevokedOf is r as a requirement has it.
func RevokedOf(r trustpolicy.Revoked) verify.Revoked {
	out := verify.Revoked{Subjects: r.Subjects, Keys: r.Keys}
	for _, v := range r.Versions {
		out.Versions = append(out.Versions, verify.KeyVersion{Key: v.Name, Version: v.Version})
	}
	return out
}

func openKey(ctx context.Context, k trustpolicy.Key, open KeyOpener, identified bool) (signature.Key, error) {
	if k.CertificatesFile != "" || len(k.TrustStores) > 0 {
		return openCertificates(k, open)
	}
	var parts []signature.Key
	pem := k.PublicKey
	if k.PublicKeyFile != "" {
		var err error
		if pem, err = open.ReadFile(k.PublicKeyFile); err != nil {
			return nil, &signature.KeyFileError{Name: k.Name, Reason: err.Error()}
		}
	}
	if len(pem) > 0 || k.PublicKeyFile != "" {
		p, err := signature.ParsePublicKeys(k.Name, pem)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if k.Transit != "" {
		// The public key beside it says who it is already.
		p, err := open.Transit(ctx, k, identified && len(parts) == 0)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return signature.All(k.Name, parts...), nil
}

// openCertificates opens the certificates that an entry trusts.
func openCertificates(k trustpolicy.Key, open KeyOpener) (signature.Key, error) {
	roots, err := collect(k.Name, k.TrustStores, k.CertificatesFile, open)
	if err != nil {
		return nil, err
	}
	key, err := notary.NewAuthority(k.Name, roots, k.Identities)
	if err != nil {
		return nil, &CertificateError{Key: k.Name, Reason: err.Error()}
	}
	return key, nil
}

// collect reads the certificates of stores, or of a file.
func collect(name string, stores []string, file string, open KeyOpener) ([]byte, error) {
	var roots []byte
	for _, store := range stores {
		b, err := open.TrustStore(store)
		if err != nil {
			return nil, &CertificateError{Key: name, Reason: fmt.Sprintf("trust store %s: %v", store, err)}
		}
		roots = append(append(roots, b...), '\n')
	}
	if file == "" {
		return roots, nil
	}
	b, err := open.ReadFile(file)
	if err != nil {
		return nil, &CertificateError{Key: name, Reason: err.Error()}
	}
	return b, nil
}
