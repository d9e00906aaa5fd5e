// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"iter"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// attachments is what is attached to a manifest, in one place.
type attachments interface {
	Referrers(ctx context.Context, s signature.Subject) iter.Seq2[ocispec.Descriptor, error]
	Classic(ctx context.Context, s signature.Subject) (ocispec.Descriptor, bool, error)
	FetchManifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	FetchBlob(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error)
}

// source is a repository with everything in it that may be a signature: the
// referrers, and the manifest under cosign's classic tag.
type source struct{ attachments }

var _ verify.Source = source{}

// Referrers yields the referrers and then the classic manifest. Both lists are
// read before the first is yielded to the end: one that is missing makes the
// whole incomplete.
func (s source) Referrers(ctx context.Context, subject signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		type answer struct {
			desc  ocispec.Descriptor
			found bool
			err   error
		}
		classic := make(chan answer, 1)
		go func() {
			desc, found, err := s.Classic(ctx, subject)
			classic <- answer{desc, found, err}
		}()
		for d, err := range s.attachments.Referrers(ctx, subject) {
			if !yield(d, err) || err != nil {
				return
			}
		}
		switch a := <-classic; {
		case a.err != nil:
			yield(ocispec.Descriptor{}, a.err)
		case a.found:
			a.desc.ArtifactType = simplesigning.MediaType
			yield(a.desc, nil)
		}
	}
}
