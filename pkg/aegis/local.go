// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// LocalOptions says what on disk is meant.
type LocalOptions struct {
	// Path is a directory or a file.
	Path string
	// Bundle is where the signature is kept; inside the directory it is no part of
	// the model.
	Bundle string
	// Ignore holds paths relative to the directory that are left out.
	Ignore   []string
	Progress model.Progress
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// gitPaths are left out of every directory, as model_signing does.
func gitPaths() []string { return []string{".git", ".gitattributes", ".github", ".gitignore"} }

// ignored is what is not looked at: what o says, version control, the receipt of
// a pulled model, and the bundle itself.
func (o LocalOptions) ignored() []string {
	ignore := append(gitPaths(), evidenceDir)
	for _, p := range o.Ignore {
		ignore = append(ignore, path.Clean(filepath.ToSlash(p)))
	}
	dir, err := filepath.Abs(o.Path)
	if err != nil {
		return ignore
	}
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return ignore
	}
	if rel, err := filepath.Rel(dir, bundle); err == nil && rel != "." && filepath.IsLocal(rel) {
		ignore = append(ignore, filepath.ToSlash(rel))
	}
	return ignore
}

// LinkError means that a directory holds what cannot be signed.
type LinkError struct {
	Dir   string
	Names []string
}

func (e *LinkError) Error() string {
	return fmt.Sprintf("%s: links and special files cannot be signed: %s", e.Dir, strings.Join(e.Names, ", "))
}

// LocalSignResult is what SignLocal did.
type LocalSignResult struct {
	Path   string           `json:"path"`
	Bundle string           `json:"bundle"`
	Format signature.Format `json:"format"`
	Key    string           `json:"key"`
	// KeyVersion is zero for a key without versions.
	KeyVersion     int    `json:"keyVersion,omitempty"`
	SelfVerified   bool   `json:"selfVerified"`
	VaultRequestID string `json:"vaultRequestID,omitempty"`
	Files          int    `json:"files"`
	Size           int64  `json:"size"`
	// Durations are in seconds.
	Durations Durations `json:"durations"`

	// Envelope is the bundle's bytes.
	Envelope []byte `json:"-"`
}

// SignLocal signs the files of a directory, or one file, as a Model Signing
// bundle. Every file is hashed once, and only digests are signed. The caller
// writes the bundle.
func (c *Client) SignLocal(ctx context.Context, o LocalOptions, s Signing) (LocalSignResult, error) {
	watch := newStopwatch(c.now())
	if err := CheckFormats([]signature.Format{signature.OMS}, s.Signer.ID().Type); err != nil {
		return LocalSignResult{}, err
	}
	ignore := o.ignored()
	tree, err := model.HashTree(ctx, o.Path, model.TreeOptions{Ignore: ignore, Progress: o.Progress})
	if err != nil {
		return LocalSignResult{}, err
	}
	if odd := append(tree.Links, tree.Others...); len(odd) > 0 {
		return LocalSignResult{}, &LinkError{Dir: o.Path, Names: odd}
	}
	watch.lap("hash")
	name, err := filepath.Abs(o.Path)
	if err != nil {
		return LocalSignResult{}, err
	}
	draft, err := oms.Prepare(oms.Model{Name: filepath.Base(name), Files: tree.Files, Ignored: ignore}, c.signedClaims(s))
	if err != nil {
		return LocalSignResult{}, err
	}
	made, err := signature.Sign(ctx, s.Signer, draft)
	if err != nil {
		return LocalSignResult{}, fmt.Errorf("sign %s: %w", o.Path, err)
	}
	env, err := oms.ParseFiles(made[0].Envelope)
	if err != nil {
		return LocalSignResult{}, err
	}
	checked, err := c.selfVerifyEnvelope(ctx, env, made[0], s, func(st signature.Statement) bool {
		return tree.Differs(o.Path, st.Files) == nil
	})
	if err != nil {
		return LocalSignResult{}, err
	}
	watch.lap("sign")
	p := made[0].Primitive
	return LocalSignResult{
		Path: o.Path, Bundle: o.Bundle, Format: signature.OMS, Key: s.Signer.ID().Name, KeyVersion: p.KeyVersion,
		SelfVerified: checked, VaultRequestID: p.RequestID, Files: len(tree.Files), Size: tree.Size,
		Durations: watch.total(), Envelope: made[0].Envelope,
	}, nil
}

// VerifyLocal judges a Model Signing bundle over a directory or a file, and then
// hashes every file. A nil error means that exactly the signed files are there.
func VerifyLocal(ctx context.Context, o LocalOptions, bundle []byte, req verify.Requirement) (VerifyResult, error) {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	watch := newStopwatch(now)
	env, err := oms.ParseFiles(bundle)
	if err != nil {
		return VerifyResult{}, &BundleError{Path: o.Bundle, Err: err}
	}
	st, accepted, err := verify.New(verify.Options{Now: now}).Statement(ctx, env, req)
	if err != nil {
		return VerifyResult{}, &SubjectRefusal{Reference: o.Path, Err: err}
	}
	watch.lap("verify")
	tree, err := model.HashTree(ctx, o.Path, model.TreeOptions{Ignore: append(o.ignored(), st.Ignored...), Progress: o.Progress})
	if err != nil {
		return VerifyResult{}, err
	}
	if err := tree.Differs(o.Path, st.Files); err != nil {
		return VerifyResult{}, err
	}
	watch.lap("hash")
	return VerifyResult{
		Digest:   st.Digest,
		Verified: true,
		Policy:   req.Name,
		Signatures: []SignatureCounted{{
			Format: accepted.Format, Key: accepted.Key, KeyVersion: accepted.KeyVersion, Claims: accepted.Claims,
		}},
		Path: o.Path, Files: len(tree.Files), Size: tree.Size,
		Durations: watch.total(),
	}, nil
}

// BundleError means that a file is no Model Signing bundle: a judgement, since
// whoever changed the file must not turn a refusal into a mere failure.
type BundleError struct {
	Path string
	Err  error
}

func (e *BundleError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *BundleError) Unwrap() error { return e.Err }
