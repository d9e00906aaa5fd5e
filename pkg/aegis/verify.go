// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"context"
	"errors"

	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// Verify resolves ref once and judges the signatures attached to what it names.
func (c *Client) Verify(ctx context.Context, ref Reference, req verify.Requirement) (VerifyResult, error) {
	watch := newStopwatch(c.now())
	repo, pinned, v, err := c.resolveAndVerify(ctx, ref, req, watch)
	if err != nil {
		return VerifyResult{}, err
	}
	defer repo.Close() //nolint:errcheck // only read
	return VerifyResult{
		Reference:  pinned.Reference(),
		Digest:     pinned.Subject().Digest(),
		Verified:   !v.IsZero(),
		Policy:     v.Policy(),
		Signatures: counted(v),
		Durations:  watch.total(),
	}, nil
}

func (c *Client) resolveAndVerify(ctx context.Context, ref Reference, req verify.Requirement, watch *stopwatch) (Repository, Pinned, verify.Verified, error) {
	repo, err := c.read(ref)
	if err != nil {
		return nil, nil, verify.Verified{}, err
	}
	pinned, err := repo.Pin(ctx)
	if err != nil {
		_ = repo.Close()
		return nil, nil, verify.Verified{}, err
	}
	watch.lap("resolve")
	v, err := c.judge(ctx, repo, pinned, req)
	if err != nil {
		_ = repo.Close()
		return nil, pinned, verify.Verified{}, &SubjectRefusal{Reference: pinned.Reference(), Err: err}
	}
	watch.lap("verify")
	return repo, pinned, v, nil
}

// judge verifies pinned. Where it was named by its digest, a signature that a mirror
// has is as good as one of the registry's, which then need not be asked. What a
// mirror does not have, or what is wrong there, says nothing: the registry decides.
func (c *Client) judge(ctx context.Context, repo Repository, pinned Pinned, req verify.Requirement) (verify.Verified, error) {
	r, ok := repo.(registryRepository)
	ok = ok && pinned.Tag() == "" && len(r.Mirrors(true)) > 0
	atMirrors := req
	var resting []*registry.Repository
	if ok {
		resting = r.MirrorsBack()
		// The registry, which decides, has the keys asked as if nobody had been asked before.
		atMirrors.Keys = tiring(req.Keys)
		if v, _, accepted := c.judgeAt(ctx, r.Mirrors(false), pinned, atMirrors); accepted {
			return v, nil
		}
	}
	v, err := c.verifier().Verify(ctx, pinned.Subject(), source{repo}, req)
	if !ok || ctx.Err() != nil {
		return v, err
	}
	var (
		undecided *verify.UndecidedError
		none      *verify.NoSignatureError
		left      []*registry.Repository
	)
	switch {
	case errors.As(err, &undecided):
		// The registry cannot be asked; a mirror may be back by now.
		left = r.Mirrors(true)
	case errors.As(err, &none):
		// A registry that has lost the manifest says so too. Where the mirror that has it was
		// left alone after a hiccup, it has not been asked.
		left = resting
	}
	atMirror, said, accepted := c.judgeAt(ctx, left, pinned, atMirrors)
	if accepted {
		return atMirror, nil
	}
	var away *registry.Error
	if undecided != nil && errors.As(err, &away) {
		// Where only mirrors can be reached, it is theirs that helps. The first cause, which
		// says what it is to a caller, stays the registry's.
		undecided.Causes = append(undecided.Causes, said...)
	}
	return v, err
}

// tiringKey is not asked again, about what another mirror has, once it could not answer about
// anything: each mirror would have it waited for anew.
type tiringKey struct {
	signature.Key
	silent error
}

func tiring(keys []signature.Key) []signature.Key {
	list := make([]signature.Key, len(keys))
	for i, k := range keys {
		list[i] = &tiringKey{Key: k}
	}
	return list
}

func (k *tiringKey) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	if k.silent != nil {
		verdicts := make([]signature.Verdict, len(checks))
		for i := range verdicts {
			verdicts[i].Err = k.silent
		}
		return verdicts
	}
	verdicts := k.Key.Check(ctx, checks)
	for _, v := range verdicts {
		var says interface{ AnySignature() bool }
		if !errors.As(v.Err, &says) || !says.AnySignature() {
			return verdicts
		}
	}
	if len(verdicts) > 0 {
		k.silent = verdicts[0].Err
	}
	return verdicts
}

// judgeAt verifies pinned by what mirrors have, and says of each why that is not enough. These
// are texts only: what is wrong at a mirror is no judgement.
func (c *Client) judgeAt(ctx context.Context, mirrors []*registry.Repository, pinned Pinned, req verify.Requirement) (v verify.Verified, said []error, accepted bool) {
	for _, mirror := range mirrors {
		v, err := c.verifier().Verify(ctx, pinned.Subject(), source{mirror}, req)
		if err == nil {
			return v, nil, true
		}
		var undecided *verify.UndecidedError
		if errors.As(err, &undecided) && len(undecided.Causes) > 0 {
			err = undecided.Causes[0]
		}
		reason := mirror.MirrorReason(err)
		said = append(said, errors.New(reason))
		if c.opts.Logger != nil {
			c.opts.Logger.DebugContext(ctx, "no signature at a mirror counts", "reason", reason)
		}
	}
	return verify.Verified{}, said, false
}

// SubjectRefusal says which manifest a refusal is about.
type SubjectRefusal struct {
	// Reference is "registry/repository@digest".
	Reference string
	Err       error
}

func (e *SubjectRefusal) Error() string { return e.Reference + ": " + e.Err.Error() }
func (e *SubjectRefusal) Unwrap() error { return e.Err }

// PullOptions says where to and how.
type PullOptions struct {
	Ref Reference
	// Dir is the destination.
	Dir    string
	Unpack model.UnpackOptions
}

// IndexError means that a reference names an index, which is no model.
type IndexError struct{ Reference string }

func (e *IndexError) Error() string {
	return e.Reference + ": it is an index of several manifests; pull one of them by digest"
}

// Pull resolves o.Ref once, verifies, and only then fetches and extracts what
// that one digest names.
func (c *Client) Pull(ctx context.Context, o PullOptions, req verify.Requirement) (PullResult, error) {
	watch := newStopwatch(c.now())
	repo, pinned, v, err := c.resolveAndVerify(ctx, o.Ref, req, watch)
	if err != nil {
		return PullResult{}, err
	}
	defer repo.Close() //nolint:errcheck // only read
	if pinned.Subject().IsIndex() {
		return PullResult{}, &IndexError{Reference: pinned.Reference()}
	}
	m, err := model.Decode(v, pinned.Manifest())
	if err != nil {
		return PullResult{}, err
	}
	u := c.unpackOptions(o.Unpack)
	defer c.pool.Reserve(kept(m.Layers(), u.Concurrency))()
	got, err := model.Unpack(ctx, repo, v, m, o.Dir, u)
	if err != nil {
		return PullResult{}, err
	}
	watch.lap("fetch")
	r := pullResult(pinned, got, repo, watch)
	r.Verified, r.Policy, r.Signatures = !v.IsZero(), v.Policy(), counted(v)
	return r, nil
}

// PullUnverified extracts what o.Ref names without judging any signature. It
// writes no receipt, so the result never passes VerifyDir.
func (c *Client) PullUnverified(ctx context.Context, o PullOptions) (PullResult, error) {
	watch := newStopwatch(c.now())
	repo, err := c.read(o.Ref)
	if err != nil {
		return PullResult{}, err
	}
	defer repo.Close() //nolint:errcheck // only read
	pinned, err := repo.Pin(ctx)
	if err != nil {
		return PullResult{}, err
	}
	watch.lap("resolve")
	if pinned.Subject().IsIndex() {
		return PullResult{}, &IndexError{Reference: pinned.Reference()}
	}
	m, err := model.DecodeUnverified(pinned.Subject(), pinned.Manifest())
	if err != nil {
		return PullResult{}, err
	}
	c.warn("extracting " + pinned.Reference() + " without verifying any signature")
	u := c.unpackOptions(o.Unpack)
	defer c.pool.Reserve(kept(m.Layers(), u.Concurrency))()
	got, err := model.UnpackUnverified(ctx, repo, m, o.Dir, u)
	if err != nil {
		return PullResult{}, err
	}
	watch.lap("fetch")
	r := pullResult(pinned, got, repo, watch)
	r.Signatures = []SignatureCounted{}
	return r, nil
}

func pullResult(pinned Pinned, got model.UnpackResult, repo Repository, watch *stopwatch) PullResult {
	return PullResult{
		Reference:    pinned.Reference(),
		Digest:       pinned.Subject().Digest(),
		Path:         got.Path,
		Files:        got.Files,
		Size:         got.Size,
		BytesFetched: got.BytesFetched,
		BytesReused:  got.BytesReused,
		Partial:      got.Partial,
		AlreadyThere: got.AlreadyThere,
		Retries:      repo.Retries(),
		Durations:    watch.total(),
	}
}

func (c *Client) unpackOptions(u model.UnpackOptions) model.UnpackOptions {
	if u.Progress == nil {
		u.Progress = c.opts.Progress
	}
	if u.Concurrency == 0 {
		u.Concurrency = c.opts.Concurrency
	}
	if u.Warn == nil {
		u.Warn = c.warn
	}
	if u.Now == nil {
		u.Now = c.now()
	}
	if u.Logger == nil {
		u.Logger = c.opts.Logger
	}
	if u.Spread == nil {
		u.Spread = c.pool.Spread
	}
	return u
}
