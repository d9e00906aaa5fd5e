// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const opAttach = "attach"

// Attach pushes a manifest of the media type that refers to subject, whose blobs are
// there already, and sees to it that it is listed.
func (r *Repository) Attach(ctx context.Context, subject signature.Subject, mediaType string, manifest []byte) (ocispec.Descriptor, error) {
	entry, err := referrer.Entry(subject, mediaType, manifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach to %s@%s: %w", r.Name(), subject.Digest(), err)
	}
	if err := r.putManifest(ctx, opAttach, aboutSubject(r, subject), entry.Digest.String(), mediaType, manifest); err != nil {
		return ocispec.Descriptor{}, err
	}
	withData := entry
	withData.Data = manifest
	return entry, r.Enlist(ctx, subject, withData)
}

// Enlist sees to it that manifests that refer to subject, and are there already, are
// listed. On a registry without the referrers API it adds their entries to the list under
// the tag sha256-<hex>, in one write; with the API it waits until the list shows them. Either
// is bounded by the retry budget, and Kind NotListed says that it was spent. The Data of
// an entry, its manifest, is not listed: it is pushed again where a registry with the API
// loses it.
//
// Registries have no compare-and-swap for tags, so writers of a fallback list
// can overwrite one another. Enlist reads the list again after a random wait and
// once more after a settle delay in which nobody wrote, and repairs what was
// lost, other writers' entries too. That narrows the race to a writer that is
// slower than the settle delay between its read and its write; it does not close
// it. Enlisting the same manifest again repairs such a loss. Replaced lists are
// not deleted: that would need a permission to delete.
func (r *Repository) Enlist(ctx context.Context, subject signature.Subject, entries ...ocispec.Descriptor) error {
	if len(entries) == 0 {
		return nil
	}
	about := aboutSubject(r, subject)
	if subject.IsZero() {
		return errors.New("attach: the subject names nothing")
	}
	own := make([]listEntry, len(entries))
	for i, e := range entries {
		if err := checkDescriptor(opAttach, about, e); err != nil {
			return err
		}
		e.Data = nil
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		own[i] = listEntry{e.Digest.String(), raw, e.Digest}
	}
	api, err := r.probed(ctx, subject)
	if err != nil {
		return err
	}
	a := &attachment{repo: r, subject: subject, list: &referrerList{repo: r, subject: subject},
		about: about, budget: r.client.options.Retry.Budget}
	if api {
		return a.awaitListing(ctx, entries)
	}
	_, err = a.join(ctx, own...)
	return err
}

// Listable asks whether what refers to subject can be listed, before anything is signed:
// without the referrers API there must be no other manifest where the list goes. The
// error is then a *FallbackError. An Enlist for the subject after it does not ask again.
func (r *Repository) Listable(ctx context.Context, subject signature.Subject) error {
	api, err := r.HasReferrersAPI(ctx, subject)
	if err != nil {
		return err
	}
	if !api {
		if _, err := r.readFallback(ctx, opAttach, aboutSubject(r, subject), subject); err != nil {
			return err
		}
	}
	r.hasAPI.Store(subject.Digest(), api)
	return nil
}

// probed is what HasReferrersAPI says, or has said to Listable.
func (r *Repository) probed(ctx context.Context, subject signature.Subject) (bool, error) {
	if api, ok := r.hasAPI.LoadAndDelete(subject.Digest()); ok {
		return api.(bool), nil
	}
	return r.HasReferrersAPI(ctx, subject)
}

func aboutSubject(r *Repository, subject signature.Subject) string {
	return r.Name() + "@" + subject.Digest().String()
}

// attachment is one Enlist under way, or AppendClassic.
type attachment struct {
	repo    *Repository
	subject signature.Subject
	list    list
	about   string
	missing digest.Digest // one of ours that is not seen to be kept
	budget  time.Duration
	spent   time.Duration
	slowest time.Duration // round trip seen so far
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
		return newError(opAttach, a.about, NotListed, "%s, after %s", a.missing, a.budget)
	}
	if err := a.repo.client.options.Sleep(ctx, d); err != nil {
		return fmt.Errorf("%s %s: %w", opAttach, a.about, err)
	}
	return nil
}

// awaitListing lists until the entries are shown. Some registries lose one that
// is pushed beside another, so now and then what is missing is pushed again.
func (a *attachment) awaitListing(ctx context.Context, entries []ocispec.Descriptor) error {
	for n := 0; ; n++ {
		var err error
		if entries, err = a.unlisted(ctx, entries); err != nil || len(entries) == 0 {
			return err
		}
		a.missing = entries[0].Digest
		if err := a.wait(ctx, backoff(n)); err != nil {
			return err
		}
		if n%3 == 2 {
			for _, e := range entries[:min(len(entries), maxPushAgain)] {
				if err := a.timed(func() error { return a.pushAgain(ctx, e) }); err != nil {
					return err
				}
			}
		}
	}
}

// maxPushAgain bounds how much is pushed again before the list is read once more: a
// registry that does not list at all must not be sent everything again and again.
const maxPushAgain = 16

// unlisted returns those of entries that the registry does not list.
func (a *attachment) unlisted(ctx context.Context, entries []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	missing := make(map[digest.Digest]bool, len(entries))
	for _, e := range entries {
		missing[e.Digest] = true
	}
	err := a.timed(func() error {
		for desc, err := range a.repo.Referrers(ctx, a.subject) {
			if err != nil {
				return err
			}
			if delete(missing, desc.Digest); len(missing) == 0 {
				break
			}
		}
		return nil
	})
	return slices.DeleteFunc(slices.Clone(entries), func(e ocispec.Descriptor) bool { return !missing[e.Digest] }), err
}

func (a *attachment) pushAgain(ctx context.Context, desc ocispec.Descriptor) (err error) {
	manifest := desc.Data
	if manifest == nil {
		manifest, err = a.repo.FetchManifest(ctx, desc)
	}
	if isKind(err, NotFound) {
		return nil // lost, or not to be had yet: it is not listed in any case
	}
	if err != nil {
		return err
	}
	return a.repo.putManifest(ctx, opAttach, a.about, desc.Digest.String(), desc.MediaType, manifest)
}
