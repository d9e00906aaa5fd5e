// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testrevocation"
	"github.com/aegis-oci/aegis-oci/internal/testtsa"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// at is a client whose clock says now and some.
func at(t testing.TB, d time.Duration) *aegis.Client {
	return newClient(t, func(o *aegis.Options) { o.Now = func() time.Time { return time.Now().Add(d) } })
}

// otherContent has another signature stamped than the one that is made.
type otherContent struct{ *testtsa.TSA }

func (o otherContent) Timestamp(ctx context.Context, _ []byte, h crypto.Hash) ([]byte, error) {
	return o.TSA.Timestamp(ctx, []byte("another signature"), h)
}

// stampRig is a key with an issued certificate that is valid for half a day.
type stampRig struct {
	host   string
	k, ca  *testkey.Key
	root   *x509.Certificate
	issued []*x509.Certificate
	tsa    *testtsa.TSA
	keys   *keyring
}

func newStampRig(t testing.TB, edits ...func(*x509.Certificate)) *stampRig {
	t.Helper()
	r := &stampRig{host: servertest.SharedStack(t).Registry, k: ecdsaKey(t), ca: ecdsaKey(t), tsa: testtsa.Start(t)}
	r.root = r.ca.Issue(t, testkey.Authority(time.Now(), "root"), nil, nil)
	template := testkey.Leaf(time.Now(), "signer")
	template.NotBefore, template.NotAfter = template.NotBefore.Add(-time.Hour), time.Now().Add(12*time.Hour)
	for _, edit := range edits {
		edit(template)
	}
	r.issued = []*x509.Certificate{r.k.Issue(t, template, r.ca, r.root), r.root}
	r.keys = &keyring{files: map[string][]byte{
		"ca.pem": testkey.CertificatePEM(r.root), "tsa.pem": r.tsa.RootPEM(), "k.pub": r.k.PEM(), "models.pem": testkey.CertificatePEM(r.issued...),
	}}
	return r
}

func (r *stampRig) signed(t testing.TB, c *aegis.Client, f signature.Format, stamper signature.Timestamper) registry.Reference {
	t.Helper()
	ref := parse(t, r.host+"/"+name(t)+"/"+strings.ToLower(strings.ReplaceAll(string(f), "_", "-"))+":v1")
	mustPush(t, newClient(t), ref, modelDir(t, 1), nil)
	if _, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: r.k, Formats: []signature.Format{f}, Certificates: r.issued, Timestamper: stamper}); err != nil {
		t.Fatal(err)
	}
	return ref
}

const (
	pkiEntry = `- {name: pki, certificatesFile: ca.pem, identities: ["x509.subject: C=US, ST=WA, O=Acme"]}`
	stamps   = "timestamps: {certificatesFile: tsa.pem}"
)

// An expired certificate counts with a stamp from its time, and with nothing else.
func TestExpiredCertificateAndItsStamp(t *testing.T) {
	t.Parallel()
	const expired = 13 * time.Hour
	bad := func(part string) func(testing.TB, error) {
		return func(t testing.TB, err error) {
			t.Helper()
			if e := wantErr[*verify.TimestampError](t, err); !strings.Contains(e.Reason, part) {
				t.Errorf("%v, want a reason with %q", e, part)
			}
		}
	}
	expiredErr := func(t testing.TB, err error) { t.Helper(); wantErr[*verify.CertificateTimeError](t, err) }
	missing := func(t testing.TB, err error) { t.Helper(); wantErr[*verify.MissingClaimError](t, err) }
	good := func(_ testing.TB, r *stampRig) signature.Timestamper { return r.tsa }
	none := func(testing.TB, *stampRig) signature.Timestamper { return nil }
	as := func(edit func(*x509.Certificate)) func(testing.TB, *stampRig) signature.Timestamper {
		return func(t testing.TB, r *stampRig) signature.Timestamper {
			tsa := testtsa.Start(t, edit)
			r.keys.files["tsa.pem"] = tsa.RootPEM()
			return tsa
		}
	}
	when := func(d time.Duration) func(testing.TB, *stampRig) signature.Timestamper {
		return func(_ testing.TB, r *stampRig) signature.Timestamper {
			r.tsa.Time = time.Now().Add(d)
			return r.tsa
		}
	}
	for name, row := range map[string]struct {
		stamper func(testing.TB, *stampRig) signature.Timestamper
		now     time.Duration
		policy  string
		refused func(testing.TB, error)
	}{
		"stamped in time":                   {good, expired, stamps, nil},
		"stamped, and not expired":          {good, 0, stamps, nil},
		"stamped and nobody trusted for it": {good, expired, "require: 1", expiredErr},
		"not stamped":                       {none, expired, stamps, expiredErr},
		"not stamped, and not expired":      {none, 0, stamps, nil},
		"not stamped, and it has to be":     {none, 0, "timestamps: {certificatesFile: tsa.pem, required: true}", missing},
		"over another signature":            {func(_ testing.TB, r *stampRig) signature.Timestamper { return otherContent{r.tsa} }, expired, stamps, bad("mismatch")},
		"over another, and not expired":     {func(_ testing.TB, r *stampRig) signature.Timestamper { return otherContent{r.tsa} }, 0, stamps, bad("mismatch")},
		"by somebody": {func(t testing.TB, _ *stampRig) signature.Timestamper { return testtsa.Start(t) }, expired, stamps,
			bad("unknown authority")},
		"by a signer of code": {as(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{testtsa.Usage(t, true, 3)} }), expired, stamps,
			bad("incompatible key usage")},
		"by one for other things too": {as(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{testtsa.Usage(t, true, 8, 3)} }), expired, stamps,
			bad("must have and only have ExtKeyUsageTimeStamping")},
		"by one whose purpose is not critical": {as(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{testtsa.Usage(t, false, 8)} }), expired, stamps,
			bad("must be set as critical")},
		"by one that may not sign": {as(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), expired, stamps,
			bad("key usage is not digital signature")},
		"by one that was not valid": {as(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), expired, stamps, bad("expired")},
		"after it expired":          {when(12*time.Hour + time.Minute), expired, stamps, bad("valid from")},
		"before it was valid":       {when(-3 * time.Hour), expired, stamps, bad("valid from")},
		"in the future":             {when(time.Hour), 0, stamps, bad("in the future")},
	} {
		for _, f := range []signature.Format{signature.Notary, signature.NotaryCOSE} {
			t.Run(name+"/"+string(f), func(t *testing.T) {
				t.Parallel()
				r := newStampRig(t)
				ref := r.signed(t, newClient(t), f, row.stamper(t, r))
				for _, entry := range []string{pkiEntry, "- {name: k, publicKeyFile: models.pem}"} {
					if entry != pkiEntry {
						r.keys.files["models.pem"] = testkey.CertificatePEM(r.issued[0])
					}
					dir := filepath.Join(t.TempDir(), "m")
					_, err := at(t, row.now).Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: dir}, requirementFrom(t, policyFor(row.policy, "keys:", entry), ref.Name(), r.keys))
					switch {
					case row.refused == nil && err != nil:
						t.Errorf("%s: %v", entry, err)
					case row.refused != nil:
						wantErr[*verify.RejectedError](t, err)
						row.refused(t, err)
						nothingIn(t, filepath.Dir(dir))
					}
				}
			})
		}
	}
}

// A stamp makes a signature older than it claims to be, never younger: anybody can
// have an old one stamped anew.
func TestAStampAndTheClaimedTime(t *testing.T) {
	t.Parallel()
	hour := "maxAge: {of: timestamp, is: 1h}"
	since := "notBefore: " + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for name, row := range map[string]struct {
		claimed, stamped time.Duration
		rule             string
		refused          func(testing.TB, error)
	}{
		"young":                            {0, 0, hour, nil},
		"stamped long ago":                 {-90 * time.Minute, -90 * time.Minute, hour, func(t testing.TB, err error) { wantErr[*verify.AgeError](t, err) }},
		"stamped long ago, claims today":   {0, -90 * time.Minute, hour, func(t testing.TB, err error) { wantErr[*verify.AgeError](t, err) }},
		"old, and stamped anew":            {-90 * time.Minute, 0, hour, func(t testing.TB, err error) { wantErr[*verify.AgeError](t, err) }},
		"of its time":                      {0, 0, since, nil},
		"post-dated, and stamped before":   {0, -90 * time.Minute, since, func(t testing.TB, err error) { wantErr[*verify.NotBeforeError](t, err) }},
		"of before, and stamped afterward": {-90 * time.Minute, 0, since, func(t testing.TB, err error) { wantErr[*verify.NotBeforeError](t, err) }},
		"young by its claim alone":         {0, -90 * time.Minute, "maxAge: {of: claim, is: 1h}", func(t testing.TB, err error) { wantErr[*verify.AgeError](t, err) }},
	} {
		for _, f := range []signature.Format{signature.Notary, signature.Sigstore} {
			t.Run(name+"/"+string(f), func(t *testing.T) {
				t.Parallel()
				r := newStampRig(t)
				r.tsa.Time = time.Now().Add(row.stamped)
				ref := r.signed(t, at(t, row.claimed), f, r.tsa)
				_, err := newClient(t).Verify(t.Context(), ref, requirementFrom(t, policyFor(stamps, row.rule, "keys:", "- {name: k, publicKeyFile: k.pub}"), ref.Name(), r.keys))
				if row.refused == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantErr[*verify.RejectedError](t, err)
				row.refused(t, err)
			})
		}
	}
}

// Whoever may push can put another stamp on a copy, and the copy in front. The
// original still counts.
func TestACopyWithAnotherStampHidesNothing(t *testing.T) {
	t.Parallel()
	r := newStampRig(t)
	ref := r.signed(t, newClient(t), signature.Sigstore, r.tsa)
	repo, subject := repository(t, ref), resolve(t, ref).Subject()
	original := attachedTo(t, repo, subject)[0]
	var bundle map[string]any
	if err := json.Unmarshal(original.envelope, &bundle); err != nil {
		t.Fatal(err)
	}
	material := bundle["verificationMaterial"].(map[string]any)
	material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": "AAAA"}}}
	changed, err := json.Marshal(bundle)
	if err != nil {
		t.Fatal(err)
	}
	front := maps.Clone(original.manifest.Annotations)
	front[ocispec.AnnotationCreated] = "2099-01-01T00:00:00Z"
	pushReferrer(t, repo, subject, original.ArtifactType, changed, front)
	policy := policyFor(stamps, "maxAge: {of: timestamp, is: 1h}", "keys:", "- {name: k, publicKeyFile: k.pub}")
	if _, err := newClient(t).Verify(t.Context(), ref, requirementFrom(t, policy, ref.Name(), r.keys)); err != nil {
		t.Error(err)
	}
	rec, err := newClient(t).Explain(t.Context(), aegis.ExplainOptions{Ref: ref, Kind: aegis.PolicyAegis, Document: []byte(policy), Open: r.keys})
	if err != nil || len(rec.Candidates) != 2 || rec.Candidates[0].Keys[0].Outcome != "rejected" || rec.Candidates[1].Keys[0].Outcome != "counts" {
		t.Errorf("%+v, %v", rec.Candidates, err)
	}
}

// Revocation by policy, through a real responder: refused, accepted, in doubt, or
// only said.
func TestRevocationUnderAPolicy(t *testing.T) {
	t.Parallel()
	r := newStampRig(t)
	srv := testrevocation.Start(t, r.root, r.ca.Private())
	template := testkey.Leaf(time.Now(), "signer")
	template.OCSPServer = []string{srv.URL + "/ocsp"}
	r.issued[0] = r.k.Issue(t, template, r.ca, r.root)
	ref := r.signed(t, newClient(t), signature.Notary, nil)
	entry := func(mode string) string { return policyFor("keys:", strings.Replace(pkiEntry, "}", mode+"}", 1)) }
	judge := func(mode string) error {
		r.keys.checker, r.keys.warned = revocation.New(revocation.Options{}), nil
		_, err := newClient(t).Verify(t.Context(), ref, requirementFrom(t, entry(mode), ref.Name(), r.keys))
		return err
	}
	enforce, log := ", revocation: enforce", ", revocation: log"
	if err := judge(""); err != nil || srv.OCSP.Load() != 0 {
		t.Errorf("nothing is asked for: %v, %d questions", err, srv.OCSP.Load())
	}
	if err := judge(enforce); err != nil || srv.OCSP.Load() != 1 {
		t.Errorf("good: %v, %d questions", err, srv.OCSP.Load())
	}
	srv.This, srv.Next = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
	unknown := wantErr[*verify.RevocationUnknownError](t, judge(enforce))
	if !strings.Contains(unknown.Error(), "stale") || !strings.Contains(unknown.Error(), "CN=signer") {
		t.Error(unknown)
	}
	wantErr[*verify.UndecidedError](t, judge(enforce))
	if err := judge(log); err != nil || len(r.keys.warned) != 1 || !strings.Contains(r.keys.warned[0], "stale") {
		t.Errorf("logged: %v, %q", err, r.keys.warned)
	}
	srv.This, srv.Next = time.Time{}, time.Time{}
	srv.Revoke(r.issued[0].SerialNumber)
	revoked := wantErr[*verify.CertificateRevokedError](t, judge(enforce))
	if !strings.Contains(revoked.Error(), "OCSP "+srv.URL) {
		t.Error(revoked)
	}
	wantErr[*verify.RejectedError](t, judge(enforce))
	if err := judge(log); err != nil || len(r.keys.warned) != 1 || !strings.Contains(r.keys.warned[0], "is revoked") {
		t.Errorf("logged: %v, %q", err, r.keys.warned)
	}

	// Each decision is made again from its record, with nobody to ask.
	for mode, outcome := range map[string]string{enforce: "rejected", log: "accepted"} {
		rec, err := newClient(t).Explain(t.Context(), aegis.ExplainOptions{Ref: ref, Kind: aegis.PolicyAegis, Document: []byte(entry(mode)), Open: r.keys})
		if err != nil || rec.Decision.Outcome != outcome || len(rec.Evidence.Revocations) != 1 {
			t.Fatalf("%s: %+v, %v", mode, rec.Decision, err)
		}
		asked := srv.OCSP.Load()
		if got := replayed(t, rec); !got.Same || got.Decision.Outcome != outcome || srv.OCSP.Load() != asked {
			t.Errorf("%s: %+v", mode, got)
		}
		rec.Evidence.Revocations = nil
		if got := replayed(t, rec); got.Same {
			t.Errorf("%s: without the answers: %+v", mode, got.Decision)
		}
	}
}

// The authority's own certificates are looked up too, where its stamp counts.
func TestRevokedTimestampAuthority(t *testing.T) {
	t.Parallel()
	r := newStampRig(t)
	// The address has to be in the certificate before its issuer is there.
	lists := testrevocation.Start(t, nil, nil)
	tsa := testtsa.Start(t, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{lists.URL + "/crl"} })
	lists.Issuer, lists.Key = tsa.Root, tsa.RootKey
	r.keys.files["tsa.pem"] = tsa.RootPEM()
	ref := r.signed(t, newClient(t), signature.Notary, tsa)
	judge := func(mode string) error {
		r.keys.checker = revocation.New(revocation.Options{})
		doc := policyFor("timestamps: {certificatesFile: tsa.pem, required: true"+mode+"}", "keys:", pkiEntry)
		_, err := newClient(t).Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), r.keys))
		return err
	}
	if err := judge(", revocation: enforce"); err != nil || lists.CRL.Load() != 1 {
		t.Errorf("good: %v, %d lists", err, lists.CRL.Load())
	}
	lists.Revoke(tsa.Serial())
	revoked := wantErr[*verify.CertificateRevokedError](t, judge(", revocation: enforce"))
	if !strings.Contains(revoked.Subject, "test TSA") {
		t.Error(revoked)
	}
	if err := judge(""); err != nil {
		t.Errorf("not looked up: %v", err)
	}
}

// replayed decides a record again as a file has it.
func replayed(t testing.TB, rec aegis.Record) aegis.ReplayResult {
	t.Helper()
	raw, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := aegis.ParseRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := aegis.Replay(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A stamped signature whose certificate has expired is judged again offline, years
// later, as it was.
func TestReplayOfAStampedSignature(t *testing.T) {
	t.Parallel()
	r := newStampRig(t)
	ref := r.signed(t, newClient(t), signature.Notary, r.tsa)
	doc := policyFor(stamps, "maxAge: {of: timestamp, is: 100h}", "keys:", pkiEntry)
	rec, err := at(t, 30*time.Hour).Explain(t.Context(), aegis.ExplainOptions{Ref: ref, Kind: aegis.PolicyAegis, Document: []byte(doc), Open: r.keys})
	if err != nil || rec.Decision.Outcome != "accepted" || rec.Evidence.Files["tsa.pem"] == nil {
		t.Fatalf("%+v, %v", rec.Decision, err)
	}
	var saw string
	for _, rule := range rec.Candidates[0].Keys[0].Rules {
		if rule.Rule == verify.RuleTimestamp {
			saw = rule.Saw
		}
	}
	if !strings.Contains(saw, "by CN=test TSA") {
		t.Errorf("the explanation saw %q", saw)
	}
	if got := replayed(t, rec); !got.Same || got.Decision.Outcome != "accepted" {
		t.Errorf("%+v", got)
	}
	rec.Evidence.Files["tsa.pem"] = testtsa.Start(t).RootPEM()
	if got := replayed(t, rec); got.Same || got.Decision.Outcome != "rejected" {
		t.Errorf("under another authority: %+v", got.Decision)
	}
}
