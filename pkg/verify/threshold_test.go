// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// named is a public key under the name that a policy gives it.
func named(t testing.TB, name string, keys ...*testkey.Key) signature.Key {
	t.Helper()
	var pem []byte
	for _, k := range keys {
		pem = append(pem, k.PEM()...)
	}
	p, err := signature.ParsePublicKeys(name, pem)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func two(keys ...signature.Key) verify.Requirement {
	r := requirement(keys...)
	r.Require = 2
	return r
}

func TestTwoSignersAreBothKept(t *testing.T) {
	t.Parallel()
	s := subject(t, "m")
	a, b := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.Ed25519)
	src := newStore()
	da := src.add(t, sign(t, a, s, signature.Claims{SignedAt: now}), s)
	db := src.add(t, sign(t, b, s, signature.Claims{SignedAt: now.Add(-time.Hour)}), s)
	v, err := verifier().Verify(context.Background(), s, src, two(named(t, "a", a), named(t, "b", b)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, x := range v.Accepted() {
		got[x.Key] = x.Manifest.String()
	}
	if len(v.Accepted()) != 2 || got["a"] != da.Digest.String() || got["b"] != db.Digest.String() {
		t.Errorf("accepted %v", got)
	}
}

// tooFew asserts that exactly one signer of two counts.
func tooFew(t *testing.T, err error, have ...string) {
	t.Helper()
	var rejected *verify.RejectedError
	var few *verify.SignersError
	if !errors.As(err, &rejected) || !errors.As(rejected.Reasons[0], &few) || few.Want != 2 || !slices.Equal(few.Have, have) {
		t.Errorf("err = %v, want 2 signers wanted and %q", err, have)
	}
}

func TestOneSignerCountsOnce(t *testing.T) {
	t.Parallel()
	a1, a2, b := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	for name, attach := range map[string]func(*testing.T, *store, signature.Subject){
		"signed twice": func(t *testing.T, src *store, s signature.Subject) {
			src.add(t, sign(t, a1, s, signature.Claims{SignedAt: now}), s)
			src.add(t, sign(t, a1, s, signature.Claims{SignedAt: now.Add(-time.Hour)}), s)
		},
		"signed with two versions": func(t *testing.T, src *store, s signature.Subject) {
			src.add(t, sign(t, a1, s, signature.Claims{SignedAt: now}), s)
			src.add(t, sign(t, a2, s, signature.Claims{SignedAt: now}), s)
		},
		"copied under another manifest": func(t *testing.T, src *store, s signature.Subject) {
			x := sign(t, a1, s, signature.Claims{SignedAt: now})
			src.add(t, x, s)
			x.Annotations = map[string]string{"copy": "yes"}
			src.add(t, x, s)
		},
		"malleated": func(t *testing.T, src *store, s signature.Subject) {
			x := sign(t, a1, s, signature.Claims{SignedAt: now})
			src.add(t, x, s)
			src.add(t, malleated(t, x), s)
		},
		"and a stranger's": func(t *testing.T, src *store, s signature.Subject) {
			src.add(t, sign(t, a1, s, signature.Claims{SignedAt: now}), s)
			src.add(t, sign(t, testkey.New(t, signature.ECDSAP256), s, signature.Claims{SignedAt: now}), s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, src := subject(t, name), newStore()
			attach(t, src, s)
			tooFew(t, refused(t, s, src, two(named(t, "a", a1, a2), named(t, "b", b))), "a")
			// The second signer is all that was missing.
			src.add(t, sign(t, b, s, signature.Claims{SignedAt: now}), s)
			if _, err := verifier().Verify(context.Background(), s, src, two(named(t, "a", a1, a2), named(t, "b", b))); err != nil {
				t.Error(err)
			}
		})
	}
}

// malleated is the other valid ECDSA signature over the same message: (r, n-s).
func malleated(t *testing.T, a signature.Attachment) signature.Attachment {
	t.Helper()
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(a.Primitive.Signature, &rs); err != nil {
		t.Fatal(err)
	}
	rs.S.Sub(elliptic.P256().Params().N, rs.S)
	other, err := asn1.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	envelope := strings.Replace(string(a.Envelope), b64(a.Primitive.Signature), b64(other), 1)
	if envelope == string(a.Envelope) {
		t.Fatal("the envelope does not hold its signature")
	}
	a.Envelope = []byte(envelope)
	return a
}

func TestAMalleatedCopyIsAcceptedOnceAlone(t *testing.T) {
	t.Parallel()
	s, a := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	x := sign(t, a, s, signature.Claims{SignedAt: now})
	alone := newStore()
	alone.add(t, malleated(t, x), s)
	if _, err := verifier().Verify(context.Background(), s, alone, requirement(a.Public(t))); err != nil {
		t.Fatalf("a malleated signature is valid: %v", err)
	}
	alone.add(t, x, s)
	v, err := verifier().Verify(context.Background(), s, alone, requirement(a.Public(t)))
	if err != nil || len(v.Accepted()) != 1 {
		t.Errorf("%d accepted, %v, want one", len(v.Accepted()), err)
	}
}

func TestOneKeyUnderTwoNamesIsAnError(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	other := testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	for name, keys := range map[string][]signature.Key{
		"alone":                      {named(t, "a", k), named(t, "b", k)},
		"as one of several versions": {named(t, "a", other, k), named(t, "b", k)},
		"beside a key of a server":   {named(t, "a", k), signature.All("b", named(t, "b", k), &remote{Key: k.Public(t)})},
	} {
		err := refused(t, s, src, two(keys...))
		var shared *verify.DuplicateKeyError
		if !errors.As(err, &shared) || shared.SPKI != spkiOf(k) {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	if src.fetched != 0 {
		t.Errorf("%d fetches before the keys were looked at", src.fetched)
	}
}

// Two keys of a server may be one public key, which only their answers tell.
func TestOneKeyUnderTwoNamesOfAServerCountsOnce(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now.Add(-time.Hour)}), s)
	a := &numbered{Key: named(t, "a", k), version: 1}
	// b is one of the two candidates' key in the eyes of a server that refuses a.
	b := &numbered{Key: named(t, "b", k), version: 1}
	first := &onlyFirst{Key: a}
	tooFew(t, refused(t, s, src, two(first, b)), "a")
	var shared *verify.SharedKeyError
	if err := refused(t, s, src, two(first, b)); !errors.As(err, &shared) || shared.Key != "b" || shared.Other != "a" {
		t.Errorf("err = %v, want a SharedKeyError", err)
	}
}

// onlyFirst refuses all but the first check.
type onlyFirst struct{ signature.Key }

func (o *onlyFirst) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	out := o.Key.Check(ctx, checks)
	for i := range out[1:] {
		out[i+1].Err = signature.ErrInvalid
	}
	return out
}

func TestSeveralSignersNeedToSayWhichKeyTheyAre(t *testing.T) {
	t.Parallel()
	s, a, b := subject(t, "m"), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, a, s, signature.Claims{SignedAt: now}), s)
	src.add(t, sign(t, b, s, signature.Claims{SignedAt: now}), s)
	hidden := &numbered{Key: named(t, "b", b), version: 1, hidden: true}
	err := refused(t, s, src, two(named(t, "a", a), hidden))
	var unreadable *verify.KeyUnreadableError
	if !is[*verify.UndecidedError](err) || !errors.As(err, &unreadable) || unreadable.Key != "b" || !strings.Contains(err.Error(), `"read"`) {
		t.Errorf("err = %v", err)
	}
	// One signer needs no identity, and a public key beside it gives one.
	if _, err := verifier().Verify(context.Background(), s, src, requirement(hidden)); err != nil {
		t.Errorf("one signer: %v", err)
	}
	if _, err := verifier().Verify(context.Background(), s, src, two(named(t, "a", a), signature.All("b", named(t, "b", b), hidden))); err != nil {
		t.Errorf("with the public key beside it: %v", err)
	}
}

func TestTooFewSignersIsDoubtWhereOneCannotBeAsked(t *testing.T) {
	t.Parallel()
	s, a, b := subject(t, "m"), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, a, s, signature.Claims{SignedAt: now}), s)
	src.add(t, sign(t, b, s, signature.Claims{SignedAt: now}), s)
	err := refused(t, s, src, two(named(t, "a", a), &remote{Key: named(t, "b", b), down: true}))
	if !is[*verify.UndecidedError](err) || !errors.Is(err, errDown) {
		t.Errorf("err = %v", err)
	}
}

func TestMoreSignersThanKeysIsAnErrorBeforeAnything(t *testing.T) {
	t.Parallel()
	s, a := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, a, s, signature.Claims{SignedAt: now}), s)
	if err := refused(t, s, src, two(a.Public(t))); !strings.Contains(err.Error(), "2 signers are required and there are 1 keys") || src.fetched != 0 {
		t.Errorf("err = %v, %d fetches", err, src.fetched)
	}
}

// Whoever may push can crowd a threshold out, and is told from a missing signer.
func TestAThousandCopiedHintsWithAThresholdFailClosedAndBounded(t *testing.T) {
	t.Parallel()
	s, a, b := subject(t, "m"), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	attacker := testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, b, s, signature.Claims{SignedAt: now.Add(-time.Hour)}), s)
	src.add(t, sign(t, a, s, signature.Claims{SignedAt: now}), s)
	for i := range 1000 {
		src.add(t, sign(t, attacker, s, signature.Claims{SignedAt: now.Add(-time.Duration(i) * time.Second)}), s)
	}
	ka, kb := &remote{Key: named(t, "a", a)}, &remote{Key: named(t, "b", b)}
	err := refused(t, s, src, two(ka, kb))
	if !is[*verify.UndecidedError](err) || !errors.Is(err, verify.ErrTooMany) {
		t.Errorf("err = %v", err)
	}
	if src.fetched > 200 || ka.calls > 2 || kb.calls > 2 {
		t.Errorf("%d fetches, %d and %d calls", src.fetched, ka.calls, kb.calls)
	}
	src.add(t, sign(t, b, s, signature.Claims{SignedAt: now}), s)
	if _, err := verifier().Verify(context.Background(), s, src, two(ka, kb)); err != nil {
		t.Errorf("after signing again: %v", err)
	}
}

func TestAThousandForeignReferrersCostAThresholdNothing(t *testing.T) {
	t.Parallel()
	s, a, b := subject(t, "m"), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	for i := range 1000 {
		src.addForeign(t, s, i)
	}
	src.add(t, sign(t, a, s, signature.Claims{SignedAt: now}), s)
	src.add(t, sign(t, b, s, signature.Claims{SignedAt: now}), s)
	ka, kb := &remote{Key: named(t, "a", a)}, &remote{Key: named(t, "b", b)}
	if _, err := verifier().Verify(context.Background(), s, src, two(ka, kb)); err != nil {
		t.Fatal(err)
	}
	if src.fetched > 10 || ka.calls != 1 || kb.calls != 1 {
		t.Errorf("%d fetches, %d and %d calls", src.fetched, ka.calls, kb.calls)
	}
}

// The key that a bundle hints at is public, and nobody signed the hint.
func TestAHintToAnotherKeyDecidesNothing(t *testing.T) {
	t.Parallel()
	s, ours, attacker := subject(t, "m"), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	swap := func(a signature.Attachment, other *testkey.Key) signature.Attachment {
		var b map[string]any
		if err := json.Unmarshal(a.Envelope, &b); err != nil {
			t.Fatal(err)
		}
		key := b["verificationMaterial"].(map[string]any)["publicKey"].(map[string]any)
		sum, err := base64.StdEncoding.DecodeString(key["hint"].(string))
		if err != nil || len(sum) != 32 {
			t.Fatalf("hint %v", key["hint"])
		}
		raw, err := hex.DecodeString(spkiOf(other).Encoded())
		if err != nil {
			t.Fatal(err)
		}
		key["hint"] = base64.StdEncoding.EncodeToString(raw)
		if a.Envelope, err = json.Marshal(b); err != nil {
			t.Fatal(err)
		}
		return a
	}
	good := newStore()
	good.add(t, swap(sign(t, ours, s, signature.Claims{SignedAt: now}), attacker), s)
	if _, err := verifier().Verify(context.Background(), s, good, requirement(ours.Public(t))); err != nil {
		t.Errorf("our signature that hints at another key: %v", err)
	}
	bad := newStore()
	bad.add(t, swap(sign(t, attacker, s, signature.Claims{SignedAt: now}), ours), s)
	if err := refused(t, s, bad, requirement(ours.Public(t))); !errors.Is(err, signature.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

// TestExplainDecidesAsVerify compares both over every case above that they share.
func TestExplainDecidesAsVerify(t *testing.T) {
	t.Parallel()
	s, a, b := subject(t, "m"), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	good := sign(t, a, s, signature.Claims{SignedAt: now, Annotations: map[string]string{"env": "prod"}})
	src.add(t, good, s)
	src.add(t, malleated(t, good), s)
	src.add(t, sign(t, b, s, signature.Claims{SignedAt: now, Expires: now.Add(-time.Hour)}), s)
	src.addForeign(t, s, 1)
	lost := src.add(t, sign(t, b, s, signature.Claims{SignedAt: now, Tag: "lost"}), s)
	ka, kb := named(t, "a", a), named(t, "b", b)
	prod := requirement(ka)
	prod.Annotations = map[string]string{"env": "dev"}
	old := requirement(ka, kb)
	old.Formats = []signature.Format{"notary"}
	for name, req := range map[string]verify.Requirement{
		"one": requirement(ka), "either": requirement(ka, kb), "both": two(ka, kb), "annotation": prod, "format": old,
		"down": requirement(&remote{Key: kb, down: true}), "nobody": {Name: "x"}, "stranger": requirement(named(t, "c", testkey.New(t, signature.ECDSAP256))),
	} {
		for _, unfetched := range []error{nil, errDown} {
			delete(src.unfetched, lost.Digest)
			if unfetched != nil {
				src.unfetched[lost.Digest] = unfetched
			}
			v, err := verifier().Verify(context.Background(), s, src, req)
			e := verifier().Explain(context.Background(), s, src, req)
			if reflect.TypeOf(err) != reflect.TypeOf(e.Err) || v.IsZero() != e.Verified.IsZero() {
				t.Errorf("%s: Verify says %v, Explain %v", name, err, e.Err)
			}
			if len(req.Keys) > 0 && len(e.Candidates) != 5 {
				t.Errorf("%s: %d candidates explained", name, len(e.Candidates))
			}
		}
	}
}

func TestExplainTellsEveryRule(t *testing.T) {
	t.Parallel()
	s, a := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, a, s, signature.Claims{SignedAt: now.Add(-time.Hour), Repository: "r.io/other"}), s)
	req := requirement(named(t, "a", a))
	req.MaxAge.Is, req.NotBefore, req.Repository = time.Minute, now, "r.io/models"
	req.Annotations, req.Builder = map[string]string{"env": "prod"}, map[string]string{"ref": "x"}
	e := verifier().Explain(context.Background(), s, src, req)
	if len(e.Candidates) != 1 || len(e.Candidates[0].Keys) != 1 || !is[*verify.RejectedError](e.Err) {
		t.Fatalf("%+v", e)
	}
	got := map[string]bool{}
	for _, r := range e.Candidates[0].Keys[0].Rules {
		got[r.Rule] = r.Holds
		if r.Saw == "" || r.Holds == (r.Reason != "") {
			t.Errorf("rule %+v", r)
		}
	}
	want := map[string]bool{
		verify.RuleSignature: true, verify.RuleSubject: true, verify.RuleExpiry: true, verify.RuleClock: true, verify.RuleCertificate: true, verify.RuleMaxAge: false,
		verify.RuleNotBefore: false, verify.RuleRepository: false, verify.RuleAnnotations: false, verify.RuleBuilder: false,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("rules %v, want %v", got, want)
	}
}
