// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var errDown = errors.New("connection refused")

func subject(t testing.TB, name string) signature.Subject {
	t.Helper()
	s, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"name":%q}`, name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store is a verify.Source in memory.
type store struct {
	mu        sync.Mutex
	listing   []ocispec.Descriptor
	content   map[digest.Digest][]byte
	listErr   error
	fetched   int
	unfetched map[digest.Digest]error
}

func newStore() *store {
	return &store{content: make(map[digest.Digest][]byte), unfetched: make(map[digest.Digest]error)}
}

func (s *store) Referrers(context.Context, signature.Subject) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for _, d := range s.listing {
			if !yield(d, nil) {
				return
			}
		}
		if s.listErr != nil {
			yield(ocispec.Descriptor{}, s.listErr)
		}
	}
}

func (s *store) FetchManifest(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	return s.get(d)
}

func (s *store) FetchBlob(_ context.Context, d ocispec.Descriptor, _ int64) ([]byte, error) {
	return s.get(d)
}

func (s *store) get(d ocispec.Descriptor) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched++
	if err := s.unfetched[d.Digest]; err != nil {
		return nil, err
	}
	b, ok := s.content[d.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: not found", d.Digest)
	}
	return b, nil
}

// addManifest stores a referrer's manifest and lists it.
func (s *store) addManifest(t testing.TB, m []byte) ocispec.Descriptor {
	t.Helper()
	var parsed ocispec.Manifest
	if err := json.Unmarshal(m, &parsed); err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: parsed.ArtifactType,
		Digest: digest.FromBytes(m), Size: int64(len(m)), Annotations: parsed.Annotations,
	}
	s.content[d.Digest] = m
	s.listing = append(s.listing, d)
	return d
}

func (s *store) add(t testing.TB, a signature.Attachment, to signature.Subject) ocispec.Descriptor {
	t.Helper()
	m, err := a.Manifest(to)
	if err != nil {
		t.Fatal(err)
	}
	s.content[a.Layer().Digest] = a.Envelope
	return s.addManifest(t, m)
}

// addForeign lists an SBOM.
func (s *store) addForeign(t testing.TB, to signature.Subject, n int) {
	t.Helper()
	a := signature.Attachment{ArtifactType: "application/spdx+json", MediaType: "application/spdx+json", Envelope: fmt.Appendf(nil, "%d", n)}
	s.add(t, a, to)
}

func sign(t testing.TB, k signature.Signer, s signature.Subject, c signature.Claims) signature.Attachment {
	t.Helper()
	d, err := sigstore.Prepare(s, c)
	if err != nil {
		t.Fatal(err)
	}
	as, err := signature.Sign(context.Background(), k, d)
	if err != nil {
		t.Fatal(err)
	}
	return as[0]
}

func verifier() *verify.Verifier {
	return verify.New(verify.Options{Now: func() time.Time { return now }})
}

func requirement(keys ...signature.Key) verify.Requirement {
	return verify.Requirement{Name: "test", Keys: keys}
}

// remote makes a key look like one that a server holds, counts the calls, and can
// be down.
type remote struct {
	signature.Key
	calls int
	down  bool
}

func (r *remote) Local() bool { return false }

func (r *remote) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	r.calls++
	if r.down {
		out := make([]signature.Verdict, len(checks))
		for i := range out {
			out[i].Err = errDown
		}
		return out
	}
	return r.Key.Check(ctx, checks)
}

func TestVerifyAccepts(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	d := src.add(t, sign(t, k, s, signature.Claims{SignedAt: now, Tag: "v1"}), s)
	v, err := verifier().Verify(context.Background(), s, src, requirement(k.Public(t)))
	if err != nil {
		t.Fatal(err)
	}
	if v.Subject() != s || v.Policy() != "test" || v.IsZero() {
		t.Errorf("verified = %+v", v)
	}
	a := v.Accepted()
	if len(a) != 1 || a[0].Manifest != d.Digest || a[0].Claims.Tag != "v1" || len(a[0].Envelope) == 0 {
		t.Errorf("accepted = %+v", a)
	}
}

// refused asserts that nothing verified and returns the error.
func refused(t *testing.T, s signature.Subject, src verify.Source, req verify.Requirement) error {
	t.Helper()
	v, err := verifier().Verify(context.Background(), s, src, req)
	if err == nil || !v.IsZero() {
		t.Fatalf("Verify = %+v, %v, want a refusal", v, err)
	}
	return err
}

func TestNoSignature(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.addForeign(t, s, 1)
	var none *verify.NoSignatureError
	if err := refused(t, s, src, requirement(k.Public(t))); !errors.As(err, &none) || none.Referrers != 1 {
		t.Errorf("err = %v", err)
	}
}

// TestRejects has one fault a row; want is the reason of the one candidate.
func TestRejects(t *testing.T) {
	t.Parallel()
	s, other := subject(t, "m"), subject(t, "other")
	k := testkey.New(t, signature.ECDSAP256)
	var (
		subjectErr *verify.SubjectError
		expired    *verify.ExpiredError
		future     *verify.FutureError
		annotation *verify.AnnotationError
		candidate  *verify.CandidateError
		parse      *sigstore.ParseError
	)
	spoil := func(change func(m *ocispec.Manifest)) func(*testing.T, *store) {
		return func(t *testing.T, src *store) {
			a := sign(t, k, s, signature.Claims{})
			raw, err := a.Manifest(s)
			if err != nil {
				t.Fatal(err)
			}
			var m ocispec.Manifest
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			change(&m)
			if raw, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
			src.content[a.Layer().Digest] = a.Envelope
			src.addManifest(t, raw)
		}
	}
	signed := func(c signature.Claims) func(*testing.T, *store) {
		return func(t *testing.T, src *store) { src.add(t, sign(t, k, s, c), s) }
	}
	for name, c := range map[string]struct {
		attach func(*testing.T, *store)
		req    verify.Requirement
		want   any
	}{
		"another key": {
			attach: func(t *testing.T, src *store) {
				src.add(t, sign(t, testkey.New(t, signature.ECDSAP256), s, signature.Claims{}), s)
			},
			want: signature.ErrInvalid,
		},
		"a signature moved from another manifest": {
			attach: func(t *testing.T, src *store) { src.add(t, sign(t, k, other, signature.Claims{}), s) },
			want:   &subjectErr,
		},
		"the referrer names another subject": {
			attach: func(t *testing.T, src *store) { src.add(t, sign(t, k, s, signature.Claims{}), other) },
			want:   &subjectErr,
		},
		"the subject's size differs": {attach: spoil(func(m *ocispec.Manifest) { m.Subject.Size++ }), want: &candidate},
		"the subject's type differs": {attach: spoil(func(m *ocispec.Manifest) { m.Subject.MediaType = ocispec.MediaTypeImageIndex }), want: &candidate},
		"no subject":                 {attach: spoil(func(m *ocispec.Manifest) { m.Subject = nil }), want: &candidate},
		"two layers":                 {attach: spoil(func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }), want: &candidate},
		"no layer":                   {attach: spoil(func(m *ocispec.Manifest) { m.Layers = nil }), want: &candidate},
		"another layer type":         {attach: spoil(func(m *ocispec.Manifest) { m.Layers[0].MediaType = "text/plain" }), want: &candidate},
		"a huge envelope":            {attach: spoil(func(m *ocispec.Manifest) { m.Layers[0].Size = 1 << 40 }), want: &candidate},
		"a bundle that is none": {
			attach: func(t *testing.T, src *store) {
				src.add(t, signature.Attachment{ArtifactType: sigstore.MediaType, MediaType: sigstore.MediaType, Envelope: []byte("{}")}, s)
			},
			want: &parse,
		},
		"expired":              {attach: signed(signature.Claims{Expires: now.Add(-6 * time.Minute)}), want: &expired},
		"signed in the future": {attach: signed(signature.Claims{SignedAt: now.Add(6 * time.Minute)}), want: &future},
		"annotation missing": {
			attach: signed(signature.Claims{}),
			req:    verify.Requirement{Annotations: map[string]string{"env": "prod"}},
			want:   &annotation,
		},
		"annotation differs": {
			attach: signed(signature.Claims{Annotations: map[string]string{"env": "dev"}}),
			req:    verify.Requirement{Annotations: map[string]string{"env": "prod"}},
			want:   &annotation,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := newStore()
			c.attach(t, src)
			req := c.req
			req.Keys = []signature.Key{k.Public(t)}
			err := refused(t, s, src, req)
			var rejected *verify.RejectedError
			if !errors.As(err, &rejected) || len(rejected.Reasons) != 1 {
				t.Fatalf("err = %v, want one rejection", err)
			}
			reason := rejected.Reasons[0].Err
			if sentinel, ok := c.want.(error); ok {
				if !errors.Is(reason, sentinel) {
					t.Errorf("reason = %v, want %v", reason, sentinel)
				}
			} else if target := reflect.New(reflect.TypeOf(c.want).Elem()).Interface(); !errors.As(reason, target) {
				// A target of its own: rows of one type run at once.
				t.Errorf("reason = %v (%T), want %T", reason, reason, c.want)
			}
		})
	}
}

func TestClockSkewIsAllowed(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now.Add(4 * time.Minute), Expires: now.Add(-4 * time.Minute)}), s)
	if _, err := verifier().Verify(context.Background(), s, src, requirement(k.Public(t))); err != nil {
		t.Error(err)
	}
}

func TestUndecided(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	stranger := testkey.New(t, signature.ECDSAP256)
	for name, prepare := range map[string]func(*testing.T, *store) []signature.Key{
		"the listing fails": func(t *testing.T, src *store) []signature.Key {
			src.add(t, sign(t, k, s, signature.Claims{}), s)
			src.listErr = errDown
			return []signature.Key{k.Public(t)}
		},
		"the candidate cannot be fetched": func(t *testing.T, src *store) []signature.Key {
			d := src.add(t, sign(t, k, s, signature.Claims{}), s)
			src.unfetched[d.Digest] = errDown
			return []signature.Key{k.Public(t)}
		},
		"the envelope cannot be fetched": func(t *testing.T, src *store) []signature.Key {
			a := sign(t, k, s, signature.Claims{})
			src.add(t, a, s)
			src.unfetched[a.Layer().Digest] = errDown
			return []signature.Key{k.Public(t)}
		},
		"the key cannot be asked": func(t *testing.T, src *store) []signature.Key {
			src.add(t, sign(t, k, s, signature.Claims{}), s)
			return []signature.Key{&remote{Key: k.Public(t), down: true}}
		},
		"one key refuses and another cannot be asked": func(t *testing.T, src *store) []signature.Key {
			src.add(t, sign(t, k, s, signature.Claims{}), s)
			return []signature.Key{stranger.Public(t), &remote{Key: k.Public(t), down: true}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := newStore()
			keys := prepare(t, src)
			err := refused(t, s, src, requirement(keys...))
			var undecided *verify.UndecidedError
			if !errors.As(err, &undecided) || !errors.Is(err, errDown) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestOneAcceptanceWinsOverWhatCannotBeAsked(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	lost := src.add(t, sign(t, k, s, signature.Claims{Tag: "lost"}), s)
	src.unfetched[lost.Digest] = errDown
	src.add(t, sign(t, k, s, signature.Claims{Tag: "good"}), s)
	down := &remote{Key: testkey.New(t, signature.ECDSAP256).Public(t), down: true}
	v, err := verifier().Verify(context.Background(), s, src, requirement(down, k.Public(t)))
	if err != nil || v.Accepted()[0].Claims.Tag != "good" {
		t.Errorf("Verify = %+v, %v", v, err)
	}
	if down.calls != 0 {
		t.Errorf("a remote key was asked %d times though a local one accepts", down.calls)
	}
}

func TestAThousandForeignReferrersCostNothing(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	for i := range 1000 {
		src.addForeign(t, s, i)
	}
	src.add(t, sign(t, k, s, signature.Claims{}), s)
	key := &remote{Key: k.Public(t)}
	if _, err := verifier().Verify(context.Background(), s, src, requirement(key)); err != nil {
		t.Fatal(err)
	}
	if src.fetched > 9 || key.calls != 1 {
		t.Errorf("%d fetches and %d calls of the key, want at most 9 and 1", src.fetched, key.calls)
	}
}

func TestAThousandCopiedHintsFailClosedAndBounded(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	attacker := testkey.New(t, signature.ECDSAP256)
	src := newStore()
	good := sign(t, k, s, signature.Claims{SignedAt: now.Add(-time.Hour)})
	src.add(t, good, s)
	for i := range 1000 {
		// The same annotations as ours, and made to look newer.
		src.add(t, sign(t, attacker, s, signature.Claims{SignedAt: now.Add(-time.Duration(i) * time.Second)}), s)
	}
	key := &remote{Key: k.Public(t)}
	err := refused(t, s, src, requirement(key))
	var undecided *verify.UndecidedError
	if !errors.As(err, &undecided) || !errors.Is(err, verify.ErrTooMany) {
		t.Errorf("err = %v", err)
	}
	if src.fetched > 200 || key.calls > 2 {
		t.Errorf("%d fetches and %d calls of the key", src.fetched, key.calls)
	}
	// Signing again makes ours the newest, which repairs it.
	src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	if _, err := verifier().Verify(context.Background(), s, src, requirement(key)); err != nil {
		t.Errorf("after signing again: %v", err)
	}
}

func TestACopyWithAFalseHintDoesNotHideTheTrueOne(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	a := sign(t, k, s, signature.Claims{SignedAt: now})
	a.Annotations[signature.AnnotationKeyVersion] = "2"
	liar := a
	liar.Annotations = map[string]string{
		sigstore.AnnotationPredicateType: sigstore.PredicateType,
		ocispec.AnnotationCreated:        now.Add(time.Minute).Format(time.RFC3339),
		signature.AnnotationKeyVersion:   "7",
	}
	src := newStore()
	src.add(t, liar, s)
	src.add(t, a, s)
	if _, err := verifier().Verify(context.Background(), s, src, requirement(&versioned{Key: k.Public(t), version: 2})); err != nil {
		t.Error(err)
	}
}

// versioned accepts only what is hinted to be of its version.
type versioned struct {
	signature.Key
	version int
}

func (v *versioned) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	out := v.Key.Check(ctx, checks)
	for i, c := range checks {
		if c.VersionHint != v.version {
			out[i].Err = signature.ErrInvalid
		}
	}
	return out
}

func TestVerifyNeedsSubjectAndKey(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	refused(t, signature.Subject{}, newStore(), requirement(k.Public(t)))
	refused(t, s, newStore(), requirement())
}

func TestCancelledIsNotARejection(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	src.add(t, sign(t, testkey.New(t, signature.ECDSAP256), s, signature.Claims{}), s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v, err := verifier().Verify(ctx, s, src, requirement(k.Public(t)))
	var undecided *verify.UndecidedError
	if !errors.As(err, &undecided) || !errors.Is(err, context.Canceled) || !v.IsZero() {
		t.Errorf("Verify = %v, %v", v, err)
	}
}

func TestExamineJudgesEachWithOneCallOfAKey(t *testing.T) {
	t.Parallel()
	s, k := subject(t, "m"), testkey.New(t, signature.ECDSAP256)
	src := newStore()
	for range 20 {
		src.add(t, sign(t, testkey.New(t, signature.Ed25519), s, signature.Claims{}), s)
	}
	good := src.add(t, sign(t, k, s, signature.Claims{SignedAt: now}), s)
	src.addForeign(t, s, 1)
	key := &remote{Key: k.Public(t)}
	findings, more, err := verifier().Examine(context.Background(), s, src, []signature.Key{key})
	if err != nil || more || len(findings) != 22 || key.calls != 1 {
		t.Fatalf("%d findings, more %v, %d calls, %v", len(findings), more, key.calls, err)
	}
	accepted, foreign := 0, 0
	for _, f := range findings {
		if f.Accepted != nil {
			accepted++
			if f.Descriptor.Digest != good.Digest {
				t.Errorf("accepted %s", f.Descriptor.Digest)
			}
		}
		if !f.Signature {
			foreign++
		}
	}
	if accepted != 1 || foreign != 1 {
		t.Errorf("%d accepted, %d foreign", accepted, foreign)
	}
}
