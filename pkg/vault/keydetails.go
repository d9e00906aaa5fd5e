// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/pem"
	"maps"
	"net/http"
	"slices"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// KeyDetails is what a key that may be read says of itself.
type KeyDetails struct {
	// Type is Transit's; Key is KeyUnknown for one that no format takes.
	Type string
	Key  signature.KeyType
	// Latest signs unless a version is pinned. Versions below MinVerify verify
	// nothing any more, those below MinSign sign nothing.
	Latest, MinVerify, MinSign int
	// Versions are those that the server shows, oldest first.
	Versions []KeyVersion
}

// KeyVersion is one version of a key.
type KeyVersion struct {
	Version int
	// SPKI is the DER SubjectPublicKeyInfo; PublicKey the same as a PEM block.
	SPKI      []byte
	PublicKey []byte
	// Chain is the PEM certificates stored with it, leaf first; nil without.
	Chain []byte
}

// Details reads a key. It needs "read" on MOUNT/keys/NAME. With a version in
// ref only that version is returned. Errors are *Error.
func (s *Session) Details(ctx context.Context, ref KeyRef) (KeyDetails, error) {
	op := "read " + ref.String()
	info, err := s.info(ctx, op, ref)
	if err != nil {
		return KeyDetails{}, err
	}
	if info == nil {
		return KeyDetails{}, &Error{Op: op, Path: ref.path("keys"), Kind: Denied, Status: http.StatusForbidden, Capability: "read"}
	}
	d := KeyDetails{Type: info.typ, Key: info.keyType(), Latest: info.latest, MinVerify: info.minVerify, MinSign: info.minSign}
	for _, v := range slices.Sorted(maps.Keys(info.spki)) {
		if ref.Version != 0 && v != ref.Version {
			continue
		}
		d.Versions = append(d.Versions, KeyVersion{
			Version: v, SPKI: info.spki[v], Chain: info.chain[v],
			PublicKey: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: info.spki[v]}),
		})
	}
	switch {
	case ref.Version != 0 && len(d.Versions) == 0 && len(info.spki) > 0:
		return KeyDetails{}, noVersion(op, ref, info)
	case len(d.Versions) == 0:
		return KeyDetails{}, unsuitable(op, ref, info.typ)
	}
	return d, nil
}
