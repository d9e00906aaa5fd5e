// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
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
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const opAttach = "attach"

// Attach pushes a manifest that refers to subject, whose blobs are there already,
// and sees to it that it is listed. On a registry without the referrers API it
// adds an entry to the list under the tag sha256-<hex>; with the API it waits
// until the list shows the manifest. Either is bounded by the retry budget, and
// Kind NotListed says that it was spent.
//
// Registries have no compare-and-swap for tags, so writers of a fallback list
// can overwrite one another. Attach reads the list again after a random wait and
// once more after a settle delay in which nobody wrote, and repairs what was
// lost, other writers' entries too. That narrows the race to a writer that is
// slower than the settle delay between its read and its write; it does not close
// it. Attaching the same manifest again repairs such a loss. Replaced lists are
// not deleted: that would need a permission to delete.
func (r *Repository) Attach(ctx context.Context, subject signature.Subject, manifest []byte) (ocispec.Descriptor, error) {
	entry, err := referrerEntry(subject, manifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach to %s@%s: %w", r.Name(), subject.Digest(), err)
	}
	a := &attachment{repo: r, subject: subject, entry: entry, manifest: manifest,
		about: r.Name() + "@" + subject.Digest().String(), budget: r.client.options.Retry.Budget}
	if err := a.put(ctx); err != nil {
		return ocispec.Descriptor{}, err
	}
	api, err := r.HasReferrersAPI(ctx, subject)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if api {
		err = a.awaitListing(ctx)
	} else {
		err = a.join(ctx)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return entry, nil
}

// referrerEntry is the descriptor of a referrer as lists show it: artifactType
// and annotations come from the manifest (distribution spec 1.1, "Pushing
// Manifests with Subject").
func referrerEntry(subject signature.Subject, manifest []byte) (ocispec.Descriptor, error) {
	if subject.IsZero() {
		return ocispec.Descriptor{}, errors.New("the subject names nothing")
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("the referrer's manifest: %w", err)
	}
	s, err := signature.SubjectOf(m.MediaType, manifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("the referrer's manifest: %w", err)
	}
	if m.Subject == nil || m.Subject.Digest != subject.Digest() {
		return ocispec.Descriptor{}, errors.New("the referrer's manifest has another subject")
	}
	entry := s.Descriptor()
	entry.Annotations = m.Annotations
	if entry.ArtifactType = m.ArtifactType; entry.ArtifactType == "" {
		entry.ArtifactType = m.Config.MediaType
	}
	return entry, nil
}

// attachment is one Attach under way.
type attachment struct {
	repo     *Repository
	subject  signature.Subject
	entry    ocispec.Descriptor
	manifest []byte
	about    string
	budget   time.Duration
	spent    time.Duration
	slowest  time.Duration // round trip seen so far
}

func (a *attachment) put(ctx context.Context) error {
	return a.repo.putManifest(ctx, opAttach, a.about, a.entry.Digest.String(), a.entry.MediaType, a.manifest)
}

// timed charges the budget with what fn takes.
func (a *attachment) timed(fn func() error) error {
	now := a.repo.client.options.Now
	began := now()
	err := fn()
	took := now().Sub(began)
	a.spent += took
	a.slowest = max(a.slowest, took)
	return err
}

// wait sleeps, and fails with NotListed when the budget is spent.
func (a *attachment) wait(ctx context.Context, d time.Duration) error {
	if a.spent += d; a.spent > a.budget {
		return newError(opAttach, a.about, NotListed, "%s, after %s", a.entry.Digest, a.budget)
	}
	if err := a.repo.client.options.Sleep(ctx, d); err != nil {
		return fmt.Errorf("%s %s: %w", opAttach, a.about, err)
	}
	return nil
}

// awaitListing lists until the referrer is shown. Some registries lose one that
// is pushed beside another, so now and then it is pushed again.
func (a *attachment) awaitListing(ctx context.Context) error {
	for n := 0; ; n++ {
		listed := false
		err := a.timed(func() error {
			for desc, err := range a.repo.Referrers(ctx, a.subject) {
				if err != nil {
					return err
				}
				if desc.Digest == a.entry.Digest {
					listed = true
					break
				}
			}
			return nil
		})
		if err != nil || listed {
			return err
		}
		if err := a.wait(ctx, backoff(n)); err != nil {
			return err
		}
		if n%3 == 2 {
			if err := a.timed(func() error { return a.put(ctx) }); err != nil {
				return err
			}
		}
	}
}

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

// join adds the entry to the fallback list and stays until it is kept there.
func (a *attachment) join(ctx context.Context) error {
	own, err := json.Marshal(a.entry)
	if err != nil {
		return err
	}
	// known is what the list should hold: our entry, and whatever it held since
	// we began. A writer that overwrites us overwrites those as well.
	known := map[digest.Digest]json.RawMessage{a.entry.Digest: own}
	var settled digest.Digest
	calm, writes := 0, 0
	for {
		index, err := a.read(ctx)
		if err != nil {
			return err
		}
		lost := remember(known, index)
		if len(lost) == 0 {
			calm++
			if index.dgst == settled || calm > calmReads {
				return nil
			}
			settled = index.dgst
			if err := a.wait(ctx, a.settle(writes)); err != nil {
				return err
			}
			continue
		}
		settled, calm = "", 0
		if err := a.write(ctx, index, lost, known); err != nil {
			return err
		}
		writes++
		if err := a.wait(ctx, spread(writes)); err != nil {
			return err
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

// remember adds the list's entries to known, and returns those known that the
// list lacks, in a fixed order.
func remember(known map[digest.Digest]json.RawMessage, index *fallbackIndex) []json.RawMessage {
	listed := index.byDigest()
	var lost []json.RawMessage
	for _, dgst := range slices.Sorted(maps.Keys(known)) {
		if _, ok := listed[dgst]; !ok {
			lost = append(lost, known[dgst])
		}
	}
	maps.Copy(known, listed)
	return lost
}

func (a *attachment) read(ctx context.Context) (*fallbackIndex, error) {
	var index *fallbackIndex
	err := a.timed(func() error {
		var err error
		index, err = a.repo.readFallback(ctx, opAttach, a.about, a.subject)
		return err
	})
	if err == nil && len(index.manifests) >= maxReferrers {
		err = newError(opAttach, a.about, TooLarge, "the list holds %d referrers", len(index.manifests))
	}
	return index, err
}

// write puts the merged list. It is not retried as it is: by then another writer
// may have been there, so a failure that may pass leads back to a read.
func (a *attachment) write(ctx context.Context, index *fallbackIndex, lost []json.RawMessage, known map[digest.Digest]json.RawMessage) error {
	list, err := index.with(lost)
	if err != nil {
		return err
	}
	if len(list) > signature.MaxManifestSize {
		return newError(opAttach, a.about, TooLarge, "the list of referrers would have %d bytes", len(list))
	}
	put := a.repo.manifestPut(opAttach, a.about, fallbackTag(a.subject.Digest()), ocispec.MediaTypeImageIndex, list)
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
		return a.wait(ctx, max(e.retryAfter, backoff(0)))
	case (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) && a.forget(known, lost):
		return nil
	}
	return err
}

// forget drops entries that others had and that vanished: somebody may have
// deleted them, and registries refuse a list that names what they do not have.
func (a *attachment) forget(known map[digest.Digest]json.RawMessage, lost []json.RawMessage) bool {
	dropped := false
	for dgst := range (&fallbackIndex{manifests: lost}).byDigest() {
		if dgst != a.entry.Digest {
			delete(known, dgst)
			dropped = true
		}
	}
	return dropped
}
