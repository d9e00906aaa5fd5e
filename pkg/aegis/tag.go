// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// TagResult is what Tag did.
type TagResult struct {
	Reference string        `json:"reference"`
	Digest    digest.Digest `json:"digest"`
	Tags      []string      `json:"tags"`
}

// Tag gives what ref names further tags. It resolves once and writes those very
// bytes, so that a tag moved meanwhile is not followed.
func (c *Client) Tag(ctx context.Context, ref registry.Reference, tags []string) (TagResult, error) {
	if err := checkTags(ref, tags); err != nil {
		return TagResult{}, err
	}
	repo, err := c.registry.Repository(ref)
	if err != nil {
		return TagResult{}, err
	}
	pinned, err := repo.Resolve(ctx)
	if err != nil {
		return TagResult{}, err
	}
	for _, t := range tags {
		if err := repo.TagManifest(ctx, pinned, t); err != nil {
			return TagResult{}, fmt.Errorf("tag %s: %w", t, err)
		}
	}
	return TagResult{Reference: pinned.Reference(), Digest: pinned.Subject().Digest(), Tags: tags}, nil
}
