// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// allCandidates is more than a registry's list may hold, so that the list's own
// limit, which is an error, comes first: an audit leaves nothing out in silence.
const allCandidates = 1 << 20

// Signatures lists every signature attached to what refs name, for
// auditlog.New. A reference with a tag or digest stands for that one manifest;
// one without stands for every tag of the repository, and for the subjects of
// the lists that a registry without the referrers API keeps under tags. What no
// tag names any more cannot be found: give it by digest. No signature is judged.
func (c *Client) Signatures(ctx context.Context, refs []registry.Reference) ([]auditlog.Signature, error) {
	list := []auditlog.Signature{}
	for _, ref := range refs {
		repo, err := c.registry.Repository(ref)
		if err != nil {
			return nil, err
		}
		subjects := []named{{ref: ref}}
		if ref.Tag == "" && ref.Digest == "" {
			if subjects, err = c.tagged(ctx, repo); err != nil {
				return nil, err
			}
		} else if ref.Tag != "" {
			subjects[0].tags = []string{ref.Tag}
		}
		for _, s := range subjects {
			found, err := c.attached(ctx, s)
			if err != nil {
				return nil, err
			}
			list = append(list, found...)
		}
	}
	return list, nil
}

// named is one manifest and the tags that lead to it.
type named struct {
	ref  registry.Reference
	tags []string
	// maybe allows it to be gone: only a list of referrers speaks of it.
	maybe bool
}

// tagged resolves every tag of a repository, each digest once.
func (c *Client) tagged(ctx context.Context, repo *registry.Repository) ([]named, error) {
	var all []named
	at := make(map[digest.Digest]int)
	add := func(d digest.Digest) *named {
		i, ok := at[d]
		if !ok {
			ref := repo.Reference()
			ref.Tag, ref.Digest = "", d
			i = len(all)
			at[d], all = i, append(all, named{ref: ref, maybe: true})
		}
		return &all[i]
	}
	for tag, err := range repo.Tags(ctx) {
		if err != nil {
			return nil, err
		}
		if d, ok := registry.FallbackSubject(tag); ok {
			add(d)
			continue
		}
		d, ok, err := repo.ResolveTag(ctx, tag)
		if err != nil {
			return nil, err
		}
		if ok {
			n := add(d)
			n.tags, n.maybe = append(n.tags, tag), false
		}
	}
	return all, nil
}

// attached lists the signatures of one manifest.
func (c *Client) attached(ctx context.Context, n named) ([]auditlog.Signature, error) {
	repo, err := c.registry.Repository(n.ref)
	if err != nil {
		return nil, err
	}
	pinned, err := repo.Resolve(ctx)
	var (
		e    *registry.Error
		none *signature.ManifestError
	)
	switch {
	case n.maybe && errors.As(err, &e) && e.Kind == registry.NotFound:
		return nil, nil
	case errors.As(err, &none):
		// Nobody signs what means two things, or is no manifest.
		c.warn(fmt.Sprintf("left out: %s: %v", n.ref, none))
		return nil, nil
	case err != nil:
		return nil, err
	}
	v := verify.New(verify.Options{MaxCandidates: allCandidates, Now: c.now()})
	findings, _, err := v.Examine(ctx, pinned.Subject(), source{registryRepository{repo, c}}, nil)
	if err != nil {
		return nil, fmt.Errorf("list signatures of %s: %w", pinned.Reference(), err)
	}
	var list []auditlog.Signature
	for _, f := range findings {
		if !f.Signature && len(f.Errs) == 0 {
			continue
		}
		list = append(list, auditable(pinned, n.tags, f))
	}
	return list, nil
}

func auditable(pinned registry.Pinned, tags []string, f verify.Finding) auditlog.Signature {
	s := auditlog.Signature{
		Reference: pinned.Reference(),
		Tags:      slices.Clone(tags),
		Digest:    f.Descriptor.Digest.String(),
		Format:    string(f.Format),
		RequestID: f.Annotations[signature.AnnotationRequestID],
	}
	if f.Envelope == nil {
		s.Problem = "it is not usable"
		if len(f.Errs) > 0 {
			s.Problem = f.Errs[0].Error()
		}
		return s
	}
	s.Format, s.Bytes, s.KeyVersion = string(f.Envelope.Format()), f.Envelope.Signature(), f.Envelope.VersionHint()
	return s
}
