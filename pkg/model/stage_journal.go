// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/json"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
)

const (
	journalName    = "journal.json"
	maxJournalSize = 128 << 20

	stateFetching = "fetching"
	statePlacing  = "placing"
	// stateExtending moves further layers of a model beside those that are there.
	stateExtending = "extending"
)

// journal says which manifest is staged, and while files are moved into an
// existing destination, which names are in motion. It holds no hash state:
// staged bytes are always hashed again.
type journal struct {
	Version int           `json:"version"`
	Digest  digest.Digest `json:"digest"`
	State   string        `json:"state"`
	// Old are the files of the model that is being replaced, New those of its
	// successor, relative to the destination, New in the order of their move.
	Old []string `json:"old,omitempty"`
	New []string `json:"new,omitempty"`
	// Layers are those that the receipt names when the model was extended.
	Layers string `json:"layers,omitempty"`
}

// readJournal returns the zero journal when there is none that can be used.
func (s *site) readJournal() journal {
	data, err := readSmall(s.root, journalName, maxJournalSize)
	if err != nil {
		return journal{}
	}
	var j journal
	if strictjson.UnmarshalKnown(data, &j) != nil || j.Version != 1 {
		return journal{}
	}
	for _, names := range [][]string{j.Old, j.New} {
		for _, name := range names {
			if !filepath.IsLocal(filepath.FromSlash(name)) {
				return journal{}
			}
		}
	}
	return j
}

func (s *site) writeJournal(j journal) error {
	j.Version = 1
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return replaceFile(s.root, journalName, data)
}
