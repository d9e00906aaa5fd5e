// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/jitter"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// minSettle and maxSettle bound the delay after which an unchanged list
	// counts as kept. Between them it is settleFactor round trips: who wants to
	// overwrite it must be that much slower than the slowest request seen.
	minSettle    = 500 * time.Millisecond
	maxSettle    = 10 * time.Second
	settleFactor = 8
	// calmReads ends the wait in a repository where others never stop writing.
	calmReads = 4
)

// list is a manifest under a tag that several writers share.
type list interface {
	// read gets it as it stands; a missing one is empty.
	read(ctx context.Context, op, about string) (snapshot, error)
	// tag is its name.
	tag() string
	// with returns the media type and the bytes of the list of which now is the
	// last reading, with entries added at its end, and pushes what it refers to.
	with(ctx context.Context, now snapshot, added []json.RawMessage) (mediaType string, manifest []byte, err error)
}

// snapshot is one reading of a list.
type snapshot interface {
	// version is the digest of its bytes, empty for a missing one.
	version() digest.Digest
	// count is the number of its entries, those that cannot be read too.
	count() int
	// keyed maps what tells entries apart to the entries.
	keyed() map[string]json.RawMessage
}

// listEntry is one of a list, and what tells it apart.
type listEntry struct {
	key  string
	raw  json.RawMessage
	dgst digest.Digest
}

// join adds entries to the list, in their order, and stays until they are kept there. It
// returns the digest of the list in which they were seen last.
func (a *attachment) join(ctx context.Context, own ...listEntry) (digest.Digest, error) {
	// known is what the list should hold: our entries, and whatever it held since
	// we began. A writer that overwrites us overwrites those as well.
	known := make(map[string]json.RawMessage)
	place := make(map[string]int) // of ours
	a.missing = own[0].dgst
	for i, e := range own {
		if _, twice := known[e.key]; !twice {
			known[e.key], place[e.key] = e.raw, i+1
		}
	}
	var settled digest.Digest
	calm, writes := 0, 0
	for {
		index, listed, err := a.read(ctx)
		if err != nil {
			return "", err
		}
		lost, names := remember(known, listed, place)
		if i := slices.IndexFunc(names, func(key string) bool { return place[key] > 0 }); i >= 0 {
			a.missing = own[place[names[i]]-1].dgst
		}
		if len(lost) == 0 {
			calm++
			if index.version() == settled || calm > calmReads {
				return index.version(), nil
			}
			settled = index.version()
			if err := a.wait(ctx, a.settle(writes)); err != nil {
				return "", err
			}
			continue
		}
		settled, calm = "", 0
		err = a.write(ctx, index, lost)
		if errors.Is(err, errMissingContent) && forget(known, names, place) {
			err = nil
		}
		if err != nil {
			return "", err
		}
		writes++
		if err := a.wait(ctx, spread(writes)); err != nil {
			return "", err
		}
	}
}

// settle grows when our own writes were lost: there is a crowd.
func (a *attachment) settle(writes int) time.Duration {
	d := max(minSettle, settleFactor*a.slowest)
	if writes > 1 {
		d *= 2
	}
	d = min(d, maxSettle)
	return d + rand.N(d/2)
}

// spread is the random wait after the n-th write, before the list is read again:
// the wider, the fewer writers meet.
func spread(n int) time.Duration {
	return 10*time.Millisecond + rand.N(min(2*time.Second, 50*time.Millisecond<<min(n, 10)))
}

// remember adds what is listed to known, and returns those known that the list
// lacks, in a fixed order, ours last and by their place, with their keys.
func remember(known, listed map[string]json.RawMessage, place map[string]int) (lost []json.RawMessage, names []string) {
	for _, key := range slices.SortedFunc(maps.Keys(known), func(a, b string) int {
		return cmp.Or(cmp.Compare(place[a], place[b]), cmp.Compare(a, b))
	}) {
		if _, ok := listed[key]; !ok {
			lost, names = append(lost, known[key]), append(names, key)
		}
	}
	maps.Copy(known, listed)
	return lost, names
}

// read gets the list and its entries by their keys.
func (a *attachment) read(ctx context.Context) (snapshot, map[string]json.RawMessage, error) {
	var index snapshot
	err := a.timed(func() error {
		var err error
		index, err = a.list.read(ctx, opAttach, a.about)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	listed := index.keyed()
	if n := len(listed); n >= maxReferrers {
		return nil, nil, newError(opAttach, a.about, TooLarge, "the list holds %d entries", n)
	}
	return index, listed, nil
}

// errMissingContent means that the registry refuses a list since it lacks
// something that the list names.
var errMissingContent = errors.New("the list names what the registry does not have")

// write puts the merged list. It is not retried as it is: by then another writer
// may have been there, so a failure that may pass leads back to a read.
func (a *attachment) write(ctx context.Context, index snapshot, lost []json.RawMessage) error {
	if n := index.count() + len(lost); n >= maxReferrers {
		// Nobody would read it again, to verify or to add to it.
		return newError(opAttach, a.about, TooLarge, "the list would have %d entries", n)
	}
	mediaType, manifest, err := a.list.with(ctx, index, lost)
	if err != nil {
		return err
	}
	if len(manifest) > signature.MaxManifestSize {
		return newError(opAttach, a.about, TooLarge, "the list would have %d bytes", len(manifest))
	}
	put := a.repo.manifestPut(opAttach, a.about, a.list.tag(), mediaType, manifest)
	err = a.timed(func() error {
		_, err := a.repo.send(ctx, put)
		return err
	})
	var e *Error
	switch {
	case err == nil || !errors.As(err, &e):
		return err
	case e.Retryable():
		a.repo.retries.Add(1)
		return a.wait(ctx, max(jitter.After(e.retryAfter, a.budget-a.spent), backoff(0)))
	case e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound:
		return fmt.Errorf("%w (%w)", err, errMissingContent)
	}
	return err
}

// forget drops entries that others had and that vanished: somebody may have
// deleted them, and registries refuse a list that names what they do not have.
func forget(known map[string]json.RawMessage, lost []string, own map[string]int) bool {
	dropped := false
	for _, key := range lost {
		if own[key] == 0 {
			delete(known, key)
			dropped = true
		}
	}
	return dropped
}
