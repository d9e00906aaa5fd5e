// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// VerifyDirOptions says which directory to judge, as what.
type VerifyDirOptions struct {
	Dir string
	// Digest, when set, is the only manifest that is accepted.
	Digest digest.Digest
	// Reference is reported; it decides nothing here.
	Reference string
	Check     model.CheckOptions
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// DigestError means that a directory holds another model than the one asked for.
type DigestError struct{ Dir, Want, Got string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s: it holds %s, not %s", e.Dir, e.Got, e.Want)
}

// VerifyDir judges a directory that Pull has filled, without any registry: the
// signatures that were kept beside the model are verified again under req,
// expiry included, and every file is hashed. Nothing that the directory says
// about itself is trusted. A nil error means that dir holds exactly the signed
// model, or where o.Check asks for less, layers of it and nothing else.
func VerifyDir(ctx context.Context, o VerifyDirOptions, req verify.Requirement) (VerifyResult, error) {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	watch := newStopwatch(now)
	installed, err := model.OpenInstalled(o.Dir)
	if err != nil {
		return VerifyResult{}, err
	}
	subject, err := signature.SubjectOf(installed.MediaType(), installed.Manifest())
	if err != nil {
		return VerifyResult{}, err
	}
	if o.Digest != "" && o.Digest != subject.Digest() {
		return VerifyResult{}, &DigestError{Dir: o.Dir, Want: o.Digest.String(), Got: subject.Digest().String()}
	}
	v, err := verify.New(verify.Options{Now: now}).Verify(ctx, subject, newEvidence(installed.Signatures()), req)
	if err != nil {
		return VerifyResult{}, &SubjectRefusal{Reference: o.Dir + " (" + subject.String() + ")", Err: err}
	}
	watch.lap("verify")
	checked, err := installed.Check(ctx, v, o.Check)
	if err != nil {
		return VerifyResult{}, err
	}
	watch.lap("hash")
	return VerifyResult{
		Reference:  o.Reference,
		Digest:     subject.Digest(),
		Verified:   !v.IsZero(),
		Policy:     v.Policy(),
		Signatures: counted(v),
		Path:       o.Dir,
		Files:      checked.Files,
		Size:       checked.Size,
		Partial:    checked.Partial,
		Durations:  watch.total(),
	}, nil
}

// evidence is a verify.Source over the signatures that Pull kept. It is as
// untrusted as a registry: what it offers is judged in the same way.
type evidence struct {
	manifests []ocispec.Descriptor
	content   map[digest.Digest][]byte
}

func newEvidence(stored []model.StoredSignature) *evidence {
	e := &evidence{content: make(map[digest.Digest][]byte)}
	for _, s := range stored {
		e.content[digest.FromBytes(s.Envelope)] = s.Envelope
		d := digest.FromBytes(s.Manifest)
		e.content[d] = s.Manifest
		var m ocispec.Manifest
		// A manifest that does not parse is listed all the same, and rejected with
		// its reason where every candidate is judged.
		_ = strictjson.Unmarshal(s.Manifest, &m)
		e.manifests = append(e.manifests, ocispec.Descriptor{
			MediaType:    ocispec.MediaTypeImageManifest,
			ArtifactType: m.ArtifactType,
			Digest:       d,
			Size:         int64(len(s.Manifest)),
			Annotations:  m.Annotations,
		})
	}
	return e
}

func (e *evidence) Referrers(context.Context, signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for _, d := range e.manifests {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (e *evidence) FetchManifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return e.fetch(desc)
}

func (e *evidence) FetchBlob(_ context.Context, desc ocispec.Descriptor, _ int64) ([]byte, error) {
	return e.fetch(desc)
}

func (e *evidence) fetch(desc ocispec.Descriptor) ([]byte, error) {
	b, ok := e.content[desc.Digest]
	if !ok || int64(len(b)) != desc.Size {
		return nil, fmt.Errorf("%s is not kept beside the model", desc.Digest)
	}
	return bytes.Clone(b), nil
}
