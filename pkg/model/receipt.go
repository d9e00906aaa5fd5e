// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// What is kept beside an installed model.
const (
	evidenceDir   = reservedName
	receiptName   = evidenceDir + "/receipt.json"
	manifestName  = evidenceDir + "/manifest.json"
	configName    = evidenceDir + "/config.json"
	signaturesDir = evidenceDir + "/signatures"
	layersDir     = evidenceDir + "/layers"

	maxReceiptSize  = 1 << 20
	maxSignatures   = 256
	receiptVersion  = 1
	maxEvidenceSize = 4 << 20
)

// evidenceNames are those that a pull makes, also while it renews the signatures.
var evidenceNames = lazyregexp.New(`^\.aegis(/(receipt\.json(\.(new|tmp))?|manifest\.json|config\.json(\.tmp)?|signatures(\.(new|old))?(/[0-9]+\.(manifest\.json|envelope))?|layers(/[0-9]+\.skeleton)?))?$`)

// receipt is written last: a directory without one is not a complete model. It
// is a note for the next run and for people. Nothing in it is trusted.
type receipt struct {
	Version     int           `json:"version"`
	Digest      digest.Digest `json:"digest"`
	MediaType   string        `json:"mediaType"`
	Policy      string        `json:"policy,omitempty"`
	SignedAt    time.Time     `json:"signedAt,omitzero"`
	InstalledAt time.Time     `json:"installedAt"`
	Files       int           `json:"files"`
	Size        int64         `json:"size"`
	// Layers are the numbers of the layers that are installed, as in "0-2,5", when
	// these are not all.
	Layers     string             `json:"layers,omitempty"`
	Signatures []receiptSignature `json:"signatures"`
}

type receiptSignature struct {
	Format            string `json:"format"`
	Key               string `json:"key,omitempty"`
	KeyVersion        int    `json:"keyVersion,omitempty"`
	EnvelopeMediaType string `json:"envelopeMediaType"`
}

// signedAt is the newest signing time that a counted signature claims.
func signedAt(v verify.Verified) time.Time {
	var newest time.Time
	for _, a := range v.Accepted() {
		if a.Claims.SignedAt.After(newest) {
			newest = a.Claims.SignedAt
		}
	}
	return newest
}

// writeEvidence puts manifest, config, signatures and receipt into the tree.
func (u *unpacking) writeEvidence(t *tree) error {
	if err := makeDirs(t.root, signaturesDir, t.dirs); err != nil {
		return err
	}
	if err := t.write(manifestName, u.m.raw); err != nil {
		return err
	}
	if u.config != nil {
		if err := t.write(configName, u.config); err != nil {
			return err
		}
	}
	if err := u.writeSignatures(signaturesDir, t.write); err != nil {
		return err
	}
	data, err := u.receipt(t.files, t.size)
	if err != nil {
		return err
	}
	return writeNew(t.root, receiptName, data)
}

func (t *tree) write(name string, data []byte) error {
	t.names = append(t.names, name)
	return writeNew(t.root, name, data)
}

// writeSignatures writes what counted into a directory, numbered from zero.
func (u *unpacking) writeSignatures(dir string, write func(name string, data []byte) error) error {
	for i, a := range u.verified.Accepted() {
		if err := write(signatureName(dir, i, "manifest.json"), a.ManifestBytes); err != nil {
			return err
		}
		if err := write(signatureName(dir, i, "envelope"), a.Envelope); err != nil {
			return err
		}
	}
	return nil
}

func signatureName(dir string, i int, what string) string {
	return fmt.Sprintf("%s/%d.%s", dir, i, what)
}

func (u *unpacking) receipt(files int, size int64) ([]byte, error) {
	r := receipt{
		Version:     receiptVersion,
		Digest:      u.m.subject.Digest(),
		MediaType:   u.m.subject.MediaType(),
		Policy:      u.verified.Policy(),
		SignedAt:    signedAt(u.verified),
		InstalledAt: u.o.Now().UTC().Truncate(time.Second),
		Files:       files,
		Size:        size,
		Layers:      u.receiptLayers(),
	}
	for _, a := range u.verified.Accepted() {
		r.Signatures = append(r.Signatures, receiptSignature{
			Format: string(a.Format), Key: a.Key, KeyVersion: a.KeyVersion, EnvelopeMediaType: a.EnvelopeMediaType,
		})
	}
	return r.encode()
}

func readReceipt(root *os.Root) (receipt, error) {
	data, err := readSmall(root, receiptName, maxReceiptSize)
	if err != nil {
		return receipt{}, err
	}
	var r receipt
	if err := strictjson.UnmarshalKnown(data, &r); err != nil {
		return receipt{}, fmt.Errorf("%s: %w", receiptName, err)
	}
	if r.Version != receiptVersion {
		return receipt{}, fmt.Errorf("%s has version %d, and this program reads %d", receiptName, r.Version, receiptVersion)
	}
	return r, nil
}

func (r receipt) encode() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	return append(data, '\n'), err
}

// sameEvidence reports whether exactly the signatures that count now are kept, and the
// receipt is theirs.
func (u *unpacking) sameEvidence(there *Installed) bool {
	accepted := u.verified.Accepted()
	if len(accepted) != len(there.signatures) || len(accepted) != len(there.receipt.Signatures) || !signedAt(u.verified).Equal(there.signedAt) {
		return false
	}
	for i, a := range accepted {
		kept := there.signatures[i]
		if !bytes.Equal(a.ManifestBytes, kept.Manifest) || !bytes.Equal(a.Envelope, kept.Envelope) {
			return false
		}
	}
	return true
}

const (
	newSignatures = signaturesDir + ".new"
	oldSignatures = signaturesDir + ".old"
	newReceipt    = receiptName + ".new"
)

// renewEvidence replaces the signatures beside a model whose files were just checked. A
// full disk takes nothing away: everything is written before what was there goes. The
// receipt changes last. A run that is killed before that leaves the older one, of which
// the next run finds that it, or its signatures, are others.
func (u *unpacking) renewEvidence(s *site) error {
	if err := u.writeNewEvidence(s); err != nil {
		return errors.Join(err, s.base.RemoveAll(newSignatures), s.base.RemoveAll(newReceipt))
	}
	// None of these steps leaves half a list, which could not be read.
	if err := s.base.Rename(signaturesDir, oldSignatures); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.base.Rename(newSignatures, signaturesDir); err != nil {
		return errors.Join(err, s.base.Rename(oldSignatures, signaturesDir))
	}
	if err := s.base.Rename(newReceipt, receiptName); err != nil {
		return err
	}
	return errors.Join(rootfile.SyncDir(s.base, evidenceDir), s.base.RemoveAll(oldSignatures))
}

func (u *unpacking) writeNewEvidence(s *site) error {
	if err := errors.Join(s.base.RemoveAll(newSignatures), s.base.RemoveAll(newReceipt), s.base.RemoveAll(oldSignatures)); err != nil {
		return err
	}
	if err := makeDirs(s.base, newSignatures, map[string]bool{}); err != nil {
		return err
	}
	err := u.writeSignatures(newSignatures, func(name string, data []byte) error { return writeNew(s.base, name, data) })
	if err != nil {
		return err
	}
	data, err := u.receipt(u.res.Files, u.res.Size)
	if err != nil {
		return err
	}
	if err := writeNew(s.base, newReceipt, data); err != nil {
		return err
	}
	return rootfile.SyncDir(s.base, newSignatures)
}

// StoredSignature is a signature as it was kept beside a model. It is as
// untrusted as one from a registry.
type StoredSignature struct {
	Manifest          []byte
	Envelope          []byte
	EnvelopeMediaType string
}

// readSignatures reads the kept signatures, numbered from zero.
func readSignatures(root *os.Root, r receipt) ([]StoredSignature, error) {
	var all []StoredSignature
	for i := range maxSignatures {
		manifest, err := readSmall(root, signatureName(signaturesDir, i, "manifest.json"), maxEvidenceSize)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		envelope, err := readSmall(root, signatureName(signaturesDir, i, "envelope"), maxEvidenceSize)
		if err != nil {
			return nil, err
		}
		s := StoredSignature{Manifest: manifest, Envelope: envelope}
		if i < len(r.Signatures) {
			s.EnvelopeMediaType = r.Signatures[i].EnvelopeMediaType
		}
		all = append(all, s)
	}
	return all, nil
}
