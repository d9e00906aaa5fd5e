// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/formats"
)

// Signing says how to sign.
type Signing struct {
	// Signer makes the signatures. It has been asked whether it may.
	Signer signature.Signer
	// SelfVerify checks each signature before it is attached. Nil means the
	// signer's own public key where it is known, and no check otherwise.
	SelfVerify signature.Key
	// Formats to write; empty means sigstore.
	Formats []signature.Format
	// Annotations and Builder are signed claims.
	Annotations map[string]string
	Builder     map[string]string
	// Expiry is how long the signature holds; zero means for ever.
	Expiry time.Duration
	// Certificates are the key's own and its issuers', leaf first, which the
	// Notary formats need.
	Certificates []*x509.Certificate
	// Timestamper stamps the signatures of formats that can carry a timestamp.
	Timestamper signature.Timestamper
	// Repository is the signed claim where the manifest is in a layout, which has no name
	// that says anything elsewhere. A registry's is that of the reference.
	Repository string
	// Agent names the program that signs.
	Agent string
}

// check refuses what cannot be signed before anything is sent.
func (s Signing) check() error {
	if s.Signer == nil {
		return &OptionError{Option: "Signing.Signer", Reason: "there is no signer"}
	}
	if s.Expiry < 0 {
		return &OptionError{Option: "Signing.Expiry", Reason: "it is negative: " + s.Expiry.String()}
	}
	if NeedCertificates(s.Formats) && len(s.Certificates) == 0 {
		f := s.Formats[slices.IndexFunc(s.Formats, needsCertificate)]
		return &NoCertificateError{Format: f, Key: s.Signer.ID().Name}
	}
	return CheckFormats(s.Formats, s.Signer.ID().Type)
}

// refers reports whether any of the signatures refers to its subject.
func (s Signing) refers() bool {
	return len(s.Formats) == 0 || slices.ContainsFunc(s.Formats, func(f signature.Format) bool { return f != signature.CosignTag })
}

// OptionError means that an option cannot be used. It is the caller's mistake,
// and nothing was sent.
type OptionError struct{ Option, Reason string }

func (e *OptionError) Error() string { return e.Option + ": " + e.Reason }

// SelfVerifyError means that a fresh signature does not verify under the key that
// should have made it. Nothing was attached.
type SelfVerifyError struct {
	Key string
	Err error
}

func (e *SelfVerifyError) Error() string {
	return fmt.Sprintf("the new signature does not verify under %s: %v", e.Key, e.Err)
}

func (e *SelfVerifyError) Unwrap() error { return e.Err }

// Sign signs the manifest that ref names, in place: the manifest is resolved
// once, signed by digest, and the signature attached as a referrer.
func (c *Client) Sign(ctx context.Context, ref Reference, s Signing) (SignResult, error) {
	watch := newStopwatch(c.now())
	if err := s.check(); err != nil {
		return SignResult{}, err
	}
	repo, err := c.open(ref)
	if err != nil {
		return SignResult{}, err
	}
	defer repo.Close() //nolint:errcheck // what was written is in place
	pinned, err := repo.Pin(ctx)
	if err != nil {
		return SignResult{}, err
	}
	if l, ok := repo.(layoutRepository); ok {
		// What has no place to go must not be signed: the audit log would have a
		// signature that is nowhere.
		if err := l.Writable(ctx); err != nil {
			return SignResult{}, err
		}
	}
	watch.lap("resolve")
	made, err := c.signAndAttach(ctx, repo, pinned, tagOf(ref), s)
	if err != nil {
		return SignResult{}, err
	}
	watch.lap("sign")
	return SignResult{
		Reference:  pinned.Reference(),
		Digest:     pinned.Subject().Digest(),
		MediaType:  pinned.Subject().MediaType(),
		Signatures: made,
		Durations:  watch.total(),
	}, nil
}

func (c *Client) signAndAttach(ctx context.Context, repo Repository, pinned Pinned, tag string, s Signing) ([]SignatureMade, error) {
	drafts, err := prepare(pinned, c.claims(pinned, tag, s), s)
	if err != nil {
		return nil, err
	}
	if r, ok := repo.(registryRepository); ok && s.refers() {
		// As with a layout: what cannot be attached is not signed.
		if err := r.Listable(ctx, pinned.Subject()); err != nil {
			return nil, fmt.Errorf("attach the signature: %w", err)
		}
	}
	attachments, err := signature.Sign(ctx, s.Signer, drafts...)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", pinned.Subject(), err)
	}
	checked := make([]bool, len(attachments))
	for i, a := range attachments {
		// All of them before the first one is seen by anybody.
		if checked[i], err = c.selfVerify(ctx, a, pinned.Subject(), s); err != nil {
			return nil, err
		}
	}
	made, err := attach(ctx, repo, pinned.Subject(), attachments)
	if err != nil {
		return nil, err
	}
	for i := range made {
		made[i].Key, made[i].SelfVerified = s.Signer.ID().Name, checked[i]
	}
	return made, nil
}

func (c *Client) claims(pinned Pinned, tag string, s Signing) signature.Claims {
	claims := c.signedClaims(s)
	// Not a layout's path: that says much about this machine.
	claims.Tag, claims.Repository = tag, s.Repository
	if _, ok := pinned.(registry.Pinned); ok {
		claims.Repository = pinned.Name()
	}
	return claims
}

// signedClaims are those that do not depend on what is signed.
func (c *Client) signedClaims(s Signing) signature.Claims {
	// Whole seconds: what every format can carry.
	now := c.now()().UTC().Truncate(time.Second)
	claims := signature.Claims{SignedAt: now, Builder: s.Builder, Annotations: s.Annotations}
	if s.Expiry > 0 {
		claims.Expires = now.Add(s.Expiry)
	}
	return claims
}

// selfVerify checks a signature before anybody else sees it: Transit signs a
// wrong hash as readily as a right one.
func (c *Client) selfVerify(ctx context.Context, a signature.Attachment, subject signature.Subject, s Signing) (bool, error) {
	env, err := formats.Parse(a)
	if err != nil {
		return false, &SelfVerifyError{Key: s.Signer.ID().Name, Err: err}
	}
	return c.selfVerifyEnvelope(ctx, env, a, s, func(st signature.Statement) bool { return st.Digest == subject.Digest() })
}

// selfVerifyEnvelope asks the key, and means to find what was to be signed.
func (c *Client) selfVerifyEnvelope(ctx context.Context, env *signature.Envelope, a signature.Attachment, s Signing, means func(signature.Statement) bool) (bool, error) {
	id := s.Signer.ID()
	key := s.SelfVerify
	if key == nil && id.SPKI != nil {
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: id.SPKI})
		public, err := signature.ParsePublicKeys(id.Name, block)
		if err != nil {
			return false, &SelfVerifyError{Key: id.Name, Err: err}
		}
		key = public
	}
	if key == nil {
		c.warn(fmt.Sprintf("the %s signature by %s was not checked: the token may not read the key or call verify; give --public-key", a.Format, id.Name))
		return false, nil
	}
	opened := signature.Open(ctx, key, []*signature.Envelope{env.WithVersionHint(a.Primitive.KeyVersion)})[0]
	switch {
	case opened.Err == nil && means(opened.Statement):
		return true, nil
	case opened.Err == nil:
		return false, &SelfVerifyError{Key: id.Name, Err: errors.New("it names another subject")}
	case errors.Is(opened.Err, signature.ErrInvalid):
		return false, &SelfVerifyError{Key: key.ID().Name, Err: opened.Err}
	}
	c.warn(fmt.Sprintf("the signature by %s was not checked: %v", id.Name, opened.Err))
	return false, nil
}

// attach pushes the envelopes and their manifests, and sees them in the listings: those
// that share a list in one write of it, and cosign's beside it, since on a registry
// without the referrers API each write has to settle.
func attach(ctx context.Context, repo Repository, subject signature.Subject, all []signature.Attachment) ([]SignatureMade, error) {
	var (
		made    = make([]SignatureMade, len(all))
		entries []ocispec.Descriptor
		lists   sync.WaitGroup // both are seen through
		errs    [2]error
	)
	for i, a := range all {
		if a.Format == signature.CosignTag {
			continue
		}
		entry, err := pushSignature(ctx, repo, subject, a)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
		made[i] = signatureMade(a, entry.Digest)
	}
	for i, a := range all {
		if a.Format != signature.CosignTag {
			continue
		}
		if err := pushBytes(ctx, repo, a.Layer(), a.Envelope); err != nil {
			return nil, fmt.Errorf("push the signature: %w", err)
		}
		lists.Go(func() {
			var dgst digest.Digest
			dgst, errs[1] = repo.AppendClassic(ctx, subject, a.Layer())
			made[i] = signatureMade(a, dgst)
		})
	}
	errs[0] = repo.Enlist(ctx, subject, entries...)
	lists.Wait()
	err := cmp.Or(errs[0], errs[1])
	if errs[0] != nil && errs[1] != nil {
		err = fmt.Errorf("%w; %w", errs[0], errs[1])
	}
	if err != nil {
		return nil, fmt.Errorf("attach the signature: %w", err)
	}
	return made, nil
}

// pushSignature pushes an envelope and the manifest that refers to subject.
func pushSignature(ctx context.Context, repo Repository, subject signature.Subject, a signature.Attachment) (ocispec.Descriptor, error) {
	manifest, err := a.Manifest(subject)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	entry, err := referrer.Entry(subject, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := pushBytes(ctx, repo, ocispec.DescriptorEmptyJSON, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push the signature's config: %w", err)
	}
	if err := pushBytes(ctx, repo, a.Layer(), a.Envelope); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push the signature: %w", err)
	}
	if _, err := repo.Put(ctx, ocispec.MediaTypeImageManifest, manifest); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("attach the signature: %w", err)
	}
	entry.Data = manifest
	return entry, nil
}

func signatureMade(a signature.Attachment, manifest digest.Digest) SignatureMade {
	return SignatureMade{
		Format:         a.Format,
		Digest:         manifest,
		MediaType:      a.MediaType,
		KeyVersion:     a.Primitive.KeyVersion,
		VaultRequestID: a.Primitive.RequestID,
		Envelope:       a.Envelope,
	}
}

func pushBytes(ctx context.Context, repo Repository, desc ocispec.Descriptor, content []byte) error {
	_, err := repo.PushBlob(ctx, desc, func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content[offset:])), nil
	})
	return err
}
