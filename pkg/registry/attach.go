// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const opAttach = "attach"

// Attach pushes a manifest of the media type that refers to subject, whose blobs are
// there already, and sees to it that it is listed. On a registry without the referrers
// API it adds an entry to the list under the tag sha256-<hex>; with the API it waits
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
func (r *Repository) Attach(ctx context.Context, subject signature.Subject, mediaType string, manifest []byte) (ocispec.Descriptor, error) {
	entry, err := referrer.Entry(subject, mediaType, manifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach to %s@%s: %w", r.Name(), subject.Digest(), err)
	}
	a := &attachment{repo: r, subject: subject, entry: entry, manifest: manifest,
		list:  &referrerList{repo: r, subject: subject},
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
		var own []byte
		if own, err = json.Marshal(entry); err == nil {
			_, err = a.join(ctx, listEntry{entry.Digest.String(), own})
		}
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return entry, nil
}

// attachment is one Attach under way.
type attachment struct {
	repo     *Repository
	subject  signature.Subject
	entry    ocispec.Descriptor
	manifest []byte
	list     list
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
