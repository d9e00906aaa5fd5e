// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"slices"
	"strings"
)

// extend moves further layers beside those of the same model that are there and
// were checked. Until the receipt names them they are files too many to every
// reader; the receipt of what was there stays until then.
func (u *unpacking) extend(s *site, t *tree) error {
	for _, name := range t.names {
		if strings.HasPrefix(name, evidenceDir+"/") {
			if err := removeName(s.base, name); err != nil {
				return err
			}
		}
	}
	if err := s.mustBeFree(t.names); err != nil {
		return err
	}
	j := journal{Digest: u.m.subject.Digest(), State: stateExtending, New: slices.Clone(t.names), Layers: u.receiptLayers()}
	if err := s.writeJournal(j); err != nil {
		return err
	}
	if err := u.placeEach(s, t, j); err != nil {
		return err
	}
	if u.config != nil {
		if err := replaceFile(s.base, configName, u.config); err != nil {
			return err
		}
	}
	if err := u.recordExtension(s); err != nil {
		return fmt.Errorf("write the evidence: %w", err)
	}
	return nil
}

// recordExtension makes the receipt name the layers that have come. Signatures
// that are newer than those counted now are kept with what it says of them.
func (u *unpacking) recordExtension(s *site) error {
	if there := u.part; there.complete && signedAt(u.verified).Before(there.signedAt) {
		r := there.receipt
		r.Files, r.Size, r.Layers = u.res.Files, u.res.Size, u.receiptLayers()
		data, err := r.encode()
		if err != nil {
			return err
		}
		return replaceFile(s.base, receiptName, data)
	}
	return u.renewEvidence(s)
}

// receiptLayers is what the receipt says of the layers that are installed.
func (u *unpacking) receiptLayers() string {
	if !u.res.Partial {
		return ""
	}
	return u.wanted.String()
}

// finished reports whether the run that wrote j came as far as the receipt.
func (s *site) finished(j journal) bool {
	if j.State != stateExtending && !slices.Contains(j.New, receiptName) {
		return false
	}
	there, err := readInstalled(s.base, s.dst)
	return err == nil && there.complete && there.digest() == j.Digest && (j.State == statePlacing || there.receipt.Layers == j.Layers)
}
