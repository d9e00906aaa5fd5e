// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

func spkiOf(k *testkey.Key) digest.Digest {
	sum := sha256.Sum256(k.ID().SPKI)
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

// TestEachRule has one rule a row: the claims that meet it, and claims that do
// not, with the refusal's type.
func TestEachRule(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	const repository = "registry.example.com/models/vad"
	at := func(d time.Duration) signature.Claims { return signature.Claims{SignedAt: now.Add(d)} }
	for name, c := range map[string]struct {
		req       verify.Requirement
		good, bad signature.Claims
		rule      string
		as        func(error) bool
	}{
		"too old": {
			req: verify.Requirement{MaxAge: verify.MaxAge{Is: time.Hour}}, good: at(-64 * time.Minute), bad: at(-66 * time.Minute),
			rule: verify.RuleMaxAge, as: is[*verify.AgeError],
		},
		"no time, and an age is asked for": {
			req: verify.Requirement{MaxAge: verify.MaxAge{Is: time.Hour}}, good: at(0), bad: signature.Claims{},
			rule: verify.RuleMaxAge, as: is[*verify.MissingClaimError],
		},
		"future-dated, which never grows old": {
			req: verify.Requirement{MaxAge: verify.MaxAge{Is: time.Hour}}, good: at(4 * time.Minute), bad: at(24 * time.Hour),
			rule: verify.RuleClock, as: is[*verify.FutureError],
		},
		"expired": {
			good: signature.Claims{Expires: now}, bad: signature.Claims{Expires: now.Add(-time.Hour)},
			rule: verify.RuleExpiry, as: is[*verify.ExpiredError],
		},
		"rollback to what was signed before": {
			req: verify.Requirement{NotBefore: now.Add(-time.Hour)}, good: at(-time.Hour), bad: at(-time.Hour - time.Second),
			rule: verify.RuleNotBefore, as: is[*verify.NotBeforeError],
		},
		"no time, and a beginning is asked for": {
			req: verify.Requirement{NotBefore: now.Add(-time.Hour)}, good: at(0), bad: signature.Claims{},
			rule: verify.RuleNotBefore, as: is[*verify.MissingClaimError],
		},
		"copied from another repository": {
			req:  verify.Requirement{Repository: repository},
			good: signature.Claims{Repository: "Registry.Example.COM/models/vad"}, bad: signature.Claims{Repository: "registry.example.com/models/vad2"},
			rule: verify.RuleRepository, as: is[*verify.RepositoryError],
		},
		"another port is another registry": {
			req:  verify.Requirement{Repository: repository},
			good: signature.Claims{Repository: repository}, bad: signature.Claims{Repository: "registry.example.com:443/models/vad"},
			rule: verify.RuleRepository, as: is[*verify.RepositoryError],
		},
		"no repository": {
			req:  verify.Requirement{Repository: repository},
			good: signature.Claims{Repository: repository}, bad: signature.Claims{Tag: "v1"},
			rule: verify.RuleRepository, as: is[*verify.MissingClaimError],
		},
		"another annotation": {
			req:  verify.Requirement{Annotations: map[string]string{"env": "prod", "team": "a"}},
			good: signature.Claims{Annotations: map[string]string{"env": "prod", "team": "a", "x": "y"}},
			bad:  signature.Claims{Annotations: map[string]string{"env": "prod", "team": "b"}},
			rule: verify.RuleAnnotations, as: is[*verify.AnnotationError],
		},
		"another builder": {
			req:  verify.Requirement{Builder: map[string]string{"ref": "refs/heads/main"}},
			good: signature.Claims{Builder: map[string]string{"ref": "refs/heads/main", "run": "7"}},
			bad:  signature.Claims{Builder: map[string]string{"ref": "refs/heads/fork"}},
			rule: verify.RuleBuilder, as: is[*verify.BuilderError],
		},
		"no builder": {
			req:  verify.Requirement{Builder: map[string]string{"ref": "refs/heads/main"}},
			good: signature.Claims{Builder: map[string]string{"ref": "refs/heads/main"}}, bad: signature.Claims{},
			rule: verify.RuleBuilder, as: is[*verify.BuilderError],
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := subject(t, name)
			c.req.Name, c.req.Keys = "test", []signature.Key{k.Public(t)}
			good := newStore()
			good.add(t, sign(t, k, s, c.good), s)
			if _, err := verifier().Verify(context.Background(), s, good, c.req); err != nil {
				t.Errorf("what meets the rule: %v", err)
			}
			bad := newStore()
			bad.add(t, sign(t, k, s, c.bad), s)
			onlyReason(t, refused(t, s, bad, c.req), c.rule, c.as)
		})
	}
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// onlyReason asserts one rejection, by this rule and of this type.
func onlyReason(t *testing.T, err error, rule string, as func(error) bool) {
	t.Helper()
	var rejected *verify.RejectedError
	if !errors.As(err, &rejected) || len(rejected.Reasons) != 1 {
		t.Fatalf("err = %v, want one rejection", err)
	}
	var by verify.RuleError
	if !errors.As(rejected.Reasons[0], &by) || by.Rule() != rule || !as(rejected.Reasons[0]) {
		t.Errorf("reason %v (%T), want rule %s", rejected.Reasons[0], rejected.Reasons[0].Err, rule)
	}
}

// Only an RFC 3161 stamp satisfies an age of timestamps, whatever the holder says.
func TestAgeOfTimestampsNeedsAStamp(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	req := requirement(k.Public(t))
	req.MaxAge = verify.MaxAge{Is: time.Hour, Stamped: true}
	onlyReason(t, refused(t, s, src, req), verify.RuleMaxAge, is[*verify.MissingClaimError])
}

func TestFormatThatDoesNotCountIsRefusedUnasked(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	key := &remote{Key: k.Public(t), down: true}
	req := requirement(key)
	req.Formats = []signature.Format{"notary", "oms"}
	onlyReason(t, refused(t, s, src, req), verify.RuleFormats, is[*verify.FormatError])
	if key.calls != 0 {
		t.Errorf("the key was asked %d times", key.calls)
	}
	req = requirement(k.Public(t))
	req.Formats = []signature.Format{signature.Sigstore}
	if _, err := verifier().Verify(context.Background(), s, src, req); err != nil {
		t.Error(err)
	}
}

// numbered makes a key answer with a version, as Transit does.
type numbered struct {
	signature.Key
	version int
	hidden  bool // the token may not read the key
}

func (n *numbered) Local() bool { return false }

func (n *numbered) ID() signature.KeyID { return signature.KeyID{Name: n.Key.ID().Name} }

func (n *numbered) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	out := n.Key.Check(ctx, checks)
	for i := range out {
		if out[i].Err == nil {
			out[i].KeyVersion = n.version
			if n.hidden {
				out[i].SPKI = nil
			}
		}
	}
	return out
}

func TestMinVersionRefusesOlderVersions(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	for version, good := range map[int]bool{0: false, 1: false, 2: true, 3: true} {
		req := requirement(&numbered{Key: k.Public(t), version: version})
		req.MinVersions = map[string]int{k.ID().Name: 2}
		if good {
			if _, err := verifier().Verify(context.Background(), s, src, req); err != nil {
				t.Errorf("version %d: %v", version, err)
			}
			continue
		}
		onlyReason(t, refused(t, s, src, req), verify.RuleMinVersion, is[*verify.VersionError])
	}
}

func TestRevokedVersionAndPublicKeyDoNotCount(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	byVersion := verify.Revoked{Versions: []verify.KeyVersion{{Key: k.ID().Name, Version: 1}}}
	bySPKI := verify.Revoked{Keys: []digest.Digest{spkiOf(k)}}
	for name, c := range map[string]struct {
		version int
		revoked verify.Revoked
	}{"version": {1, byVersion}, "public key": {2, bySPKI}} {
		req := requirement(&numbered{Key: k.Public(t), version: c.version})
		req.Revoked = c.revoked
		t.Run(name, func(t *testing.T) {
			onlyReason(t, refused(t, s, src, req), verify.RuleRevoked, is[*verify.RevokedError])
		})
	}
	req := requirement(&numbered{Key: k.Public(t), version: 2})
	req.Revoked = byVersion
	req.Revoked.Keys = []digest.Digest{spkiOf(testkey.New(t, signature.ECDSAP256))}
	if _, err := verifier().Verify(context.Background(), s, src, req); err != nil {
		t.Errorf("what is not revoked: %v", err)
	}
}

// A key that does not say which it is might be the revoked one: doubt, not trust.
func TestRevokedPublicKeyBehindAnUnreadableKeyIsDoubt(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	req := requirement(&numbered{Key: k.Public(t), version: 2, hidden: true})
	req.Revoked.Keys = []digest.Digest{spkiOf(k)}
	err := refused(t, s, src, req)
	if !is[*verify.UndecidedError](err) || !is[*verify.KeyUnreadableError](err) {
		t.Errorf("err = %v", err)
	}
}

func TestRevokedManifestIsRefusedBeforeAnybodyIsAsked(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	key := &remote{Key: k.Public(t)}
	req := requirement(key)
	req.Revoked.Subjects = []digest.Digest{s.Digest()}
	onlyReason(t, refused(t, s, src, req), verify.RuleRevoked, is[*verify.RevokedError])
	if key.calls != 0 || src.fetched != 0 {
		t.Errorf("%d calls of the key, %d fetches", key.calls, src.fetched)
	}
}
