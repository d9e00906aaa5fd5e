// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// CopyOptions says what to copy and where to.
type CopyOptions struct {
	From, To Reference
	// Tags are further ones at the destination.
	Tags []string
	// Into reaches the destination's registry. Nil means the Client's own.
	Into *registry.Client
	// NoReferrers leaves signatures and everything else that is attached.
	NoReferrers bool
	// Requirement is what has to hold before the first write. Nil asks for nothing.
	Requirement *verify.Requirement
}

// CopyResult is what Copy did.
type CopyResult struct {
	// Reference is the copy, Source the original, both by digest.
	Reference string        `json:"reference"`
	Source    string        `json:"source"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Tags      []string      `json:"tags"`
	// Verified reports that a requirement was met before the first write.
	Verified   bool               `json:"verified"`
	Policy     string             `json:"policy,omitempty"`
	Signatures []SignatureCounted `json:"signatures"`
	// Manifests counts the manifest, those it lists, and Referrers.
	Manifests int `json:"manifests"`
	// Referrers counts what is attached and was copied, unverified.
	Referrers int `json:"referrers"`
	// Skipped names what is attached and cannot be a referrer.
	Skipped []string `json:"skipped,omitempty"`
	// BytesCopied flowed; BytesMounted were taken over within the registry.
	BytesCopied  int64     `json:"bytesCopied"`
	BytesMounted int64     `json:"bytesMounted"`
	Durations    Durations `json:"durations"`
}

// check refuses what can be known to fail without asking anybody.
func (o CopyOptions) check() (tags []string, err error) {
	tags = []string{}
	switch to := o.To.(type) {
	case registry.Reference:
		if to.Digest != "" {
			return nil, &registry.ReferenceError{Input: to.String(), Reason: "a copy keeps the digest: name a tag"}
		}
		if tags = append(tags, o.Tags...); to.Tag != "" {
			tags = append([]string{to.Tag}, o.Tags...)
		}
		return tags, checkTags(to, tags)
	case layout.Reference:
		if to.Digest != "" {
			return nil, &layout.ReferenceError{Input: to.String(), Reason: "a copy keeps the digest: name a tag"}
		}
		if tags = append(tags, o.Tags...); to.Tag != "" {
			tags = append([]string{to.Tag}, o.Tags...)
		}
		for _, t := range tags {
			if err := layout.CheckTag(t); err != nil {
				return nil, err
			}
		}
		return tags, nil
	}
	return nil, &OptionError{Option: "CopyOptions.To", Reason: fmt.Sprintf("a %T names nothing", o.To)}
}

// Copy resolves o.From once, verifies it if asked to, and copies exactly that
// digest: its blobs, then its manifest, then what is attached to it and to that, and
// the tags last. Each blob is checked while it flows. Nothing is written before the
// requirement is met; afterwards a failure leaves blobs and manifests without a tag,
// which the next run does not send again.
func (c *Client) Copy(ctx context.Context, o CopyOptions) (result CopyResult, err error) {
	watch := newStopwatch(c.now())
	tags, err := o.check()
	if err != nil {
		return CopyResult{}, err
	}
	src, pinned, v, err := c.copySource(ctx, o, watch)
	if err != nil {
		return CopyResult{}, err
	}
	defer src.Close() //nolint:errcheck // only read
	dst, err := c.copyDestination(o)
	if err != nil {
		return CopyResult{}, err
	}
	defer func() {
		if closeErr := dst.Close(); err == nil && closeErr != nil {
			err = closeErr
		}
	}()
	cp := newCopying(c, src, dst, o)
	made, err := cp.root(ctx, pinned)
	if err != nil {
		return CopyResult{}, fmt.Errorf("copy %s: %w", pinned.Reference(), err)
	}
	watch.lap("copy")
	for _, tag := range tags {
		if err := dst.Mark(ctx, made, tag); err != nil {
			return CopyResult{}, fmt.Errorf("tag %s: %w", tag, err)
		}
	}
	if l, ok := dst.(layoutRepository); ok {
		if err := l.Commit(); err != nil {
			return CopyResult{}, fmt.Errorf("write %s: %w", l.Name(), err)
		}
	}
	watch.lap("tag")
	r := cp.result
	r.Reference, r.Source = made.Reference(), pinned.Reference()
	r.Digest, r.MediaType, r.Tags = made.Subject().Digest(), made.Subject().MediaType(), tags
	r.Verified, r.Policy, r.Signatures = !v.IsZero(), v.Policy(), counted(v)
	r.BytesCopied, r.BytesMounted = cp.copied.Load(), cp.mounted.Load()
	r.Durations = watch.total()
	return r, nil
}

func (c *Client) copySource(ctx context.Context, o CopyOptions, watch *stopwatch) (Repository, Pinned, verify.Verified, error) {
	if o.Requirement != nil {
		return c.resolveAndVerify(ctx, o.From, *o.Requirement, watch)
	}
	src, err := c.read(o.From)
	if err != nil {
		return nil, nil, verify.Verified{}, err
	}
	pinned, err := src.Pin(ctx)
	if err != nil {
		_ = src.Close()
		return nil, nil, verify.Verified{}, err
	}
	watch.lap("resolve")
	return src, pinned, verify.Verified{}, nil
}

func (c *Client) copyDestination(o CopyOptions) (Repository, error) {
	if to, ok := o.To.(layout.Reference); ok {
		l, err := layout.Create(to.Path)
		if err != nil {
			return nil, err
		}
		return layoutRepository{l, to}, nil
	}
	d := *c
	if o.Into != nil {
		d.registry = o.Into
	}
	// What is sent must not look like what is fetched, and would in one pool.
	d.pool = transfer.NewPool(transfer.Limits{})
	return d.open(o.To)
}
