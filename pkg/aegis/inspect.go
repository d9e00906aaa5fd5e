// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// InspectResult is what a reference names and what is attached to it. Only a
// signature whose Status is "accepted" has been judged by a key.
type InspectResult struct {
	Reference    string               `json:"reference"`
	Digest       digest.Digest        `json:"digest"`
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType,omitempty"`
	Size         int64                `json:"size"`
	Annotations  map[string]string    `json:"annotations,omitempty"`
	Files        []InspectedFile      `json:"files"`
	Signatures   []InspectedSignature `json:"signatures"`
	// Referrers are attached and no signatures.
	Referrers []InspectedReferrer `json:"referrers"`
	// Truncated reports that more is attached than was looked at.
	Truncated bool `json:"truncated,omitempty"`
}

// InspectedFile is one layer.
type InspectedFile struct {
	Path      string        `json:"path"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	Digest    digest.Digest `json:"digest"`
}

// InspectedSignature is one signature. Created and KeyVersion come from unsigned
// hints unless Status is "accepted".
type InspectedSignature struct {
	Format signature.Format `json:"format"`
	// Manifest is the digest of the referrer's manifest.
	Manifest digest.Digest `json:"digest"`
	Created  string        `json:"created,omitempty"`
	// Status is "accepted", "rejected", "undecided", or "unjudged" without a key.
	Status         string            `json:"status"`
	Key            string            `json:"key,omitempty"`
	KeyVersion     int               `json:"keyVersion,omitempty"`
	Claims         *signature.Claims `json:"claims,omitempty"`
	Reasons        []string          `json:"reasons,omitempty"`
	VaultRequestID string            `json:"vaultRequestID,omitempty"`
}

// InspectedReferrer is attached and no signature.
type InspectedReferrer struct {
	Digest       digest.Digest `json:"digest"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Size         int64         `json:"size"`
}

// Inspect shows what ref names. keys may be empty; then no signature is judged.
func (c *Client) Inspect(ctx context.Context, ref Reference, keys []signature.Key) (InspectResult, error) {
	repo, err := c.open(ref)
	if err != nil {
		return InspectResult{}, err
	}
	defer repo.Close() //nolint:errcheck // only read
	pinned, err := repo.Pin(ctx)
	if err != nil {
		return InspectResult{}, err
	}
	s := pinned.Subject()
	r := InspectResult{
		Reference:  pinned.Reference(),
		Digest:     s.Digest(),
		MediaType:  s.MediaType(),
		Size:       s.Size(),
		Files:      []InspectedFile{},
		Signatures: []InspectedSignature{},
		Referrers:  []InspectedReferrer{},
	}
	if err := r.describe(pinned); err != nil {
		return InspectResult{}, err
	}
	findings, more, err := c.verifier().Examine(ctx, s, source{repo}, keys)
	if err != nil {
		return InspectResult{}, fmt.Errorf("list signatures of %s: %w", pinned.Reference(), err)
	}
	r.Truncated = more
	for _, f := range findings {
		r.add(f, len(keys) > 0)
	}
	return r, nil
}

func (r *InspectResult) describe(pinned Pinned) error {
	h, err := model.Describe(pinned.Subject(), pinned.Manifest())
	if err != nil {
		return err
	}
	r.ArtifactType, r.Annotations = h.ArtifactType, h.Annotations
	for _, l := range h.Layers {
		r.Files = append(r.Files, InspectedFile{Path: l.Path, MediaType: l.Descriptor.MediaType, Size: l.Descriptor.Size, Digest: l.Descriptor.Digest})
		r.Size += l.Descriptor.Size
	}
	return nil
}

func (r *InspectResult) add(f verify.Finding, judged bool) {
	if !f.Signature && len(f.Errs) == 0 {
		r.Referrers = append(r.Referrers, InspectedReferrer{
			Digest: f.Descriptor.Digest, ArtifactType: f.Descriptor.ArtifactType, Size: f.Descriptor.Size,
		})
		return
	}
	s := InspectedSignature{
		Format:         f.Format,
		Manifest:       f.Descriptor.Digest,
		Created:        f.Annotations[ocispec.AnnotationCreated],
		VaultRequestID: f.Annotations[signature.AnnotationRequestID],
		Status:         status(f, judged),
	}
	s.KeyVersion, _ = strconv.Atoi(f.Annotations[signature.AnnotationKeyVersion])
	if f.Accepted != nil {
		s.Key, s.Claims = f.Accepted.Key, &f.Accepted.Claims
		if f.Accepted.KeyVersion > 0 {
			s.KeyVersion = f.Accepted.KeyVersion
		}
	}
	for _, err := range f.Errs {
		s.Reasons = append(s.Reasons, err.Error())
	}
	r.Signatures = append(r.Signatures, s)
}

func status(f verify.Finding, judged bool) string {
	switch {
	case f.Accepted != nil:
		return "accepted"
	case !f.Signature || f.Undecided:
		return "undecided"
	case len(f.Errs) > 0:
		return "rejected"
	case !judged:
		return "unjudged"
	}
	return "rejected"
}
