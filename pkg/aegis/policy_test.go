// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// keyring opens keys from memory, and Transit keys in one session.
type keyring struct {
	files   map[string][]byte
	session *vault.Session
	checker aegis.RevocationChecker
	warned  []string
}

func (k *keyring) ReadFile(path string) ([]byte, error) {
	if b, ok := k.files[path]; ok {
		return b, nil
	}
	return nil, os.ErrNotExist
}

func (k *keyring) TrustStore(string) ([]byte, error) { return nil, os.ErrNotExist }

func (k *keyring) Revocation() aegis.RevocationChecker { return k.checker }

func (k *keyring) Warn(message string) { k.warned = append(k.warned, message) }

func (k *keyring) Transit(_ context.Context, key trustpolicy.Key, identified bool) (signature.Key, error) {
	ref, err := vault.ParseKeyRef(key.Transit, "")
	if err != nil {
		return nil, err
	}
	if identified {
		return k.session.Key(ref).Identified(), nil
	}
	return k.session.Key(ref), nil
}

// policyFor is a policy of one statement for everything; rest are its fields.
func policyFor(rest ...string) string {
	return "version: 1\npolicies:\n- name: all\n  scopes: [\"*\"]\n  " + strings.Join(rest, "\n  ") + "\n"
}

func requirementFrom(t testing.TB, doc, repository string, k *keyring) verify.Requirement {
	t.Helper()
	p, err := trustpolicy.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Match(repository)
	if err != nil {
		t.Fatal(err)
	}
	req, err := aegis.RequirementOf(t.Context(), st, repository, k)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func sign(t testing.TB, c *aegis.Client, ref registry.Reference, s aegis.Signing) digest.Digest {
	t.Helper()
	r, err := c.Sign(t.Context(), ref, s)
	if err != nil {
		t.Fatal(err)
	}
	return r.Signatures[0].Digest
}

// TestTwoTransitSigners has the Vault of a token that may verify, and then read,
// two keys: how much each needs, and in how many requests.
func TestTwoTransitSigners(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	k1, k2 := name(t)+"-1", name(t)+"-2"
	srv.TransitKey(t, k1, "ecdsa-p256")
	srv.TransitKey(t, k2, "ed25519")
	c, ref := newClient(t), refTo(t, srv.Registry, "v1")
	dir := modelDir(t, 1)
	mustPush(t, c, ref, dir, signOnly(t, srv.VaultAddr, k1))
	doc := policyFor("require: 2", "keys:", "- {name: one, key: \"hashivault://"+k1+"\"}", "- {name: two, key: \"hashivault://"+k2+"\"}")
	verifies := []string{"transit/verify/" + k1, "update", "transit/verify/" + k2, "update"}
	reads := append(slices.Clone(verifies), "transit/keys/"+k1, "read", "transit/keys/"+k2, "read")

	full := &keyring{session: session(t, srv.VaultAddr, reads...)}
	_, err := c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), full))
	if few := wantErr[*verify.SignersError](t, err); few.Want != 2 || !slices.Equal(few.Have, []string{"one"}) {
		t.Errorf("one signature: %v", err)
	}
	wantErr[*verify.RejectedError](t, err)

	sign(t, c, ref, aegis.Signing{Signer: signOnly(t, srv.VaultAddr, k2)})
	full = &keyring{session: session(t, srv.VaultAddr, reads...)}
	before := full.session.Requests()
	got, err := c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), full))
	if err != nil || len(got.Signatures) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	// Each key is read once and asked about both signatures at once.
	if n := full.session.Requests() - before; n > 4 {
		t.Errorf("%d requests for two keys", n)
	}

	blind := &keyring{session: session(t, srv.VaultAddr, verifies...)}
	_, err = c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), blind))
	wantErr[*verify.UndecidedError](t, err)
	wantErr[*verify.KeyUnreadableError](t, err)

	blind = &keyring{session: session(t, srv.VaultAddr, verifies...), files: map[string][]byte{
		"1.pub": srv.PublicKeyPEM(t, k1, 0), "2.pub": srv.PublicKeyPEM(t, k2, 0),
	}}
	beside := strings.NewReplacer(k1+`"`, k1+`", publicKeyFile: 1.pub`, k2+`"`, k2+`", publicKeyFile: 2.pub`).Replace(doc)
	before = blind.session.Requests()
	if _, err = c.Verify(t.Context(), ref, requirementFrom(t, beside, ref.Name(), blind)); err != nil {
		t.Errorf("with public keys beside them: %v", err)
	}
	if n := blind.session.Requests() - before; n > 2 {
		t.Errorf("%d requests where the public keys are known", n)
	}
}

// TestBothSignaturesAreKeptBesideTheModel pulls under a threshold, and judges the
// directory again under it, and without one of the signatures.
func TestBothSignaturesAreKeptBesideTheModel(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	c, ref, a, b := newClient(t), refTo(t, srv.Registry, "v1"), ecdsaKey(t), ecdsaKey(t)
	dir := modelDir(t, 1)
	mustPush(t, c, ref, dir, a)
	sign(t, c, ref, aegis.Signing{Signer: b})
	k := &keyring{files: map[string][]byte{"a.pub": a.PEM(), "b.pub": b.PEM()}}
	doc := policyFor("require: 2", "requireRepository: true", "keys:", "- {name: a, publicKeyFile: a.pub}", "- {name: b, publicKeyFile: b.pub}")
	req := requirementFrom(t, doc, ref.Name(), k)
	dst := filepath.Join(t.TempDir(), "model")
	if _, err := c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: dst}, req); err != nil {
		t.Fatal(err)
	}
	got, err := aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dst}, req)
	if err != nil || len(got.Signatures) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	// Another repository's name must not pass for the one that was signed for.
	other := requirementFrom(t, doc, srv.Registry+"/another", k)
	_, err = aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dst}, other)
	wantErr[*verify.RepositoryError](t, err)
	for _, name := range []string{"1.manifest.json", "1.envelope"} {
		if err := os.Remove(filepath.Join(dst, ".aegis", "signatures", name)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = aegis.VerifyDir(t.Context(), aegis.VerifyDirOptions{Dir: dst}, req)
	if few := wantErr[*verify.SignersError](t, err); len(few.Have) != 1 {
		t.Errorf("err = %v", err)
	}
}

func TestPullUnderAnUnmetThresholdLeavesNothing(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	c, ref, a, b := newClient(t), refTo(t, srv.Registry, "v1"), ecdsaKey(t), ecdsaKey(t)
	mustPush(t, c, ref, modelDir(t, 1), a)
	k := &keyring{files: map[string][]byte{"a.pub": a.PEM(), "b.pub": b.PEM()}}
	req := requirementFrom(t, policyFor("require: 2", "keys:", "- {name: a, publicKeyFile: a.pub}", "- {name: b, publicKeyFile: b.pub}"), ref.Name(), k)
	parent := t.TempDir()
	_, err := c.Pull(t.Context(), aegis.PullOptions{Ref: ref, Dir: filepath.Join(parent, "model")}, req)
	wantErr[*verify.RejectedError](t, err)
	wantErr[*verify.SignersError](t, err)
	nothingIn(t, parent)
}

func TestTwoEntriesThatShareAPublicKeyAreAnError(t *testing.T) {
	t.Parallel()
	a := ecdsaKey(t)
	k := &keyring{files: map[string][]byte{"a.pub": a.PEM(), "b.pub": append(ecdsaKey(t).PEM(), a.PEM()...)}}
	p, err := trustpolicy.Parse([]byte(policyFor("keys:", "- {name: a, publicKeyFile: a.pub}", "- {name: b, publicKeyFile: b.pub}")))
	if err != nil {
		t.Fatal(err)
	}
	req, err := aegis.RequirementOf(t.Context(), p.Statements()[0], "r.io/x", k)
	if shared := wantErr[*verify.DuplicateKeyError](t, err); shared.Key != "b" || shared.Other != "a" || len(req.Keys) != 0 {
		t.Errorf("%+v, %v", req, err)
	}
	_, err = aegis.RequirementOf(t.Context(), trustpolicy.Statement{Keys: []trustpolicy.Key{{Name: "x", PublicKeyFile: "none.pub"}}}, "r.io/x", k)
	wantErr[*signature.KeyFileError](t, err)
}

// TestTransitVersionsUnderAPolicy rotates a key: its versions are one signer, the
// old one can be refused by minVersion and by revocation, by name and by digest.
func TestTransitVersionsUnderAPolicy(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	c, ref := newClient(t), refTo(t, srv.Registry, "v1")
	mustPush(t, c, ref, modelDir(t, 1), signOnly(t, srv.VaultAddr, key))
	srv.RotateKey(t, key)
	spki := func(version int) string {
		p, err := signature.ParsePublicKeys("k", srv.PublicKeyPEM(t, key, version))
		if err != nil {
			t.Fatal(err)
		}
		return digest.FromBytes(p.ID().SPKI).String()
	}
	entry := "- {name: release, key: \"hashivault://" + key + "\"}"
	refusals := map[string]func(error){
		policyFor("keys:", strings.Replace(entry, "}", ", minVersion: 2}", 1)): func(err error) {
			if e := wantErr[*verify.VersionError](t, err); e.Version != 1 || e.Min != 2 {
				t.Error(err)
			}
		},
		policyFor("revoked: {keys: [\"release@1\"]}", "keys:", entry):                                           func(err error) { wantErr[*verify.RevokedError](t, err) },
		policyFor("revoked: {keys: [\""+spki(1)+"\"]}", "keys:", entry):                                         func(err error) { wantErr[*verify.RevokedError](t, err) },
		policyFor("notBefore: 2100-01-01T00:00:00Z", "keys:", entry):                                            func(err error) { wantErr[*verify.NotBeforeError](t, err) },
		policyFor("formats: [notary]", "keys:", entry):                                                          func(err error) { wantErr[*verify.FormatError](t, err) },
		policyFor("maxAge: {of: timestamp, is: 1h}", "keys:", entry):                                            func(err error) { wantErr[*verify.MissingClaimError](t, err) },
		policyFor("builder: {ref: refs/heads/main}", "keys:", entry):                                            func(err error) { wantErr[*verify.BuilderError](t, err) },
		policyFor("annotations: {env: prod}", "keys:", entry):                                                   func(err error) { wantErr[*verify.AnnotationError](t, err) },
		policyFor("revoked: {subjects: [\""+resolve(t, ref).Subject().Digest().String()+"\"]}", "keys:", entry): func(err error) { wantErr[*verify.RevokedError](t, err) },
	}
	rules := []string{"transit/verify/" + key, "update", "transit/keys/" + key, "read"}
	for doc, check := range refusals {
		_, err := c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), &keyring{session: session(t, srv.VaultAddr, rules...)}))
		wantErr[*verify.RejectedError](t, err)
		check(err)
	}
	// Revoking by digest needs to know which key it was.
	_, err := c.Verify(t.Context(), ref, requirementFrom(t, policyFor("revoked: {keys: [\""+spki(1)+"\"]}", "keys:", entry), ref.Name(),
		&keyring{session: session(t, srv.VaultAddr, rules[:2]...)}))
	wantErr[*verify.KeyUnreadableError](t, err)

	// The new version meets what the old one did not, and is no second signer.
	sign(t, c, ref, aegis.Signing{Signer: signOnly(t, srv.VaultAddr, key)})
	for _, doc := range []string{
		policyFor("keys:", strings.Replace(entry, "}", ", minVersion: 2}", 1)), policyFor("revoked: {keys: [\"release@1\"]}", "keys:", entry),
		policyFor("revoked: {keys: [\""+spki(1)+"\"]}", "keys:", entry),
	} {
		got, err := c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), &keyring{session: session(t, srv.VaultAddr, rules...)}))
		if err != nil || got.Signatures[0].KeyVersion != 2 {
			t.Errorf("%s\n%+v, %v", doc, got, err)
		}
	}
	other := ecdsaKey(t)
	both := policyFor("require: 2", "keys:", entry, "- {name: other, publicKeyFile: other.pub}")
	_, err = c.Verify(t.Context(), ref, requirementFrom(t, both, ref.Name(),
		&keyring{session: session(t, srv.VaultAddr, rules...), files: map[string][]byte{"other.pub": other.PEM()}}))
	if few := wantErr[*verify.SignersError](t, err); !slices.Equal(few.Have, []string{"release"}) {
		t.Errorf("two versions: %v", err)
	}
}

// attached is a signature as it lies in a registry.
type attached struct {
	ocispec.Descriptor
	raw      []byte // its manifest
	manifest ocispec.Manifest
	envelope []byte
}

// attachedTo fetches the signatures that a repository has of a subject.
func attachedTo(t testing.TB, repo *registry.Repository, subject signature.Subject) []attached {
	t.Helper()
	var all []attached
	for d, err := range repo.Referrers(t.Context(), subject) {
		if err != nil {
			t.Fatal(err)
		}
		a := attached{Descriptor: d}
		if a.raw, err = repo.FetchManifest(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(a.raw, &a.manifest); err != nil {
			t.Fatal(err)
		}
		if a.envelope, err = repo.FetchBlob(t.Context(), a.manifest.Layers[0], 1<<20); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// copySignatures attaches the signatures of one repository to the same manifest in
// another, as whoever may push there can.
func copySignatures(t testing.TB, from, to registry.Reference) {
	t.Helper()
	src, dst, subject := repository(t, from), repository(t, to), resolve(t, from).Subject()
	for _, a := range attachedTo(t, src, subject) {
		pushContent(t, dst, a.manifest.Layers[0], a.envelope)
		pushContent(t, dst, ocispec.DescriptorEmptyJSON, []byte("{}"))
		if _, err := dst.Attach(t.Context(), subject, ocispec.MediaTypeImageManifest, a.raw); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASignatureCopiedFromAnotherRepository(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		c, key, dir := newClient(t), ecdsaKey(t), modelDir(t, 1)
		from, to := parse(t, host+"/"+name(t)+"/staging:v1"), parse(t, host+"/"+name(t)+"/production:v1")
		mustPush(t, c, from, dir, key)
		mustPush(t, c, to, dir, nil)
		copySignatures(t, from, to)
		k := &keyring{files: map[string][]byte{"k.pub": key.PEM()}}
		free := policyFor("keys:", "- {name: k, publicKeyFile: k.pub}")
		if _, err := c.Verify(t.Context(), to, requirementFrom(t, free, to.Name(), k)); err != nil {
			t.Errorf("without requireRepository the copy counts: %v", err)
		}
		bound := policyFor("requireRepository: true", "keys:", "- {name: k, publicKeyFile: k.pub}")
		if _, err := c.Verify(t.Context(), from, requirementFrom(t, bound, from.Name(), k)); err != nil {
			t.Error(err)
		}
		parent := t.TempDir()
		_, err := c.Pull(t.Context(), aegis.PullOptions{Ref: to, Dir: filepath.Join(parent, "m")}, requirementFrom(t, bound, to.Name(), k))
		if e := wantErr[*verify.RepositoryError](t, err); e.Claimed != from.Name() || e.Want != to.Name() {
			t.Error(err)
		}
		wantErr[*verify.RejectedError](t, err)
		nothingIn(t, parent)
	})
}

// TestRollbackToAnOlderSignedDigest moves a tag back to a model that was signed
// before.
func TestRollbackToAnOlderSignedDigest(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	key, ref := ecdsaKey(t), refTo(t, srv.Registry, "prod")
	clock := time.Now().Add(-48 * time.Hour)
	c := newClient(t, func(o *aegis.Options) { o.Now = func() time.Time { return clock } })
	old := mustPush(t, c, ref, modelDir(t, 1), key)
	cut := clock.Add(time.Hour).UTC().Format(time.RFC3339)
	clock = clock.Add(24 * time.Hour)
	mustPush(t, c, ref, modelDir(t, 2), key)
	clock = time.Now()
	k := &keyring{files: map[string][]byte{"k.pub": key.PEM()}}
	doc := policyFor("notBefore: "+cut, "keys:", "- {name: k, publicKeyFile: k.pub}")
	if _, err := c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), k)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Tag(t.Context(), byDigest(ref, old.Digest), []string{"prod"}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), k))
	wantErr[*verify.RejectedError](t, err)
	wantErr[*verify.NotBeforeError](t, err)
}

// TestReplayDecidesAlike records decisions about one artifact under many
// policies, some with a Vault, and decides them again with every server out of
// reach.
func TestReplayDecidesAlike(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	vaultProxy, registryProxy := servertest.FaultProxy(t, strings.TrimPrefix(srv.VaultAddr, "http://")), servertest.FaultProxy(t, srv.Registry)
	local, stranger := ecdsaKey(t), ecdsaKey(t)
	ref := refTo(t, srv.Registry, "v1")
	c := newClient(t)
	mustPush(t, c, ref, modelDir(t, 1), signOnly(t, srv.VaultAddr, key))
	sign(t, c, ref, aegis.Signing{Signer: local, Annotations: map[string]string{"env": "prod"}})
	pushReferrer(t, repository(t, ref), resolve(t, ref).Subject(), "application/spdx+json", []byte("{}"), nil)
	files := map[string][]byte{"local.pub": local.PEM(), "stranger.pub": stranger.PEM(), "transit.pub": srv.PublicKeyPEM(t, key, 0)}
	transitEntry := "- {name: transit, key: \"hashivault://" + key + "\"}"
	besideEntry := strings.Replace(transitEntry, "}", ", publicKeyFile: transit.pub}", 1)
	localEntry, strangerEntry := "- {name: local, publicKeyFile: local.pub}", "- {name: stranger, publicKeyFile: stranger.pub}"
	for doc, want := range map[string]string{
		policyFor("keys:", localEntry):                                           "accepted",
		policyFor("keys:", transitEntry):                                         "accepted",
		policyFor("keys:", strangerEntry):                                        "rejected",
		policyFor("require: 2", "keys:", transitEntry, localEntry):               "undecided", // without read
		policyFor("require: 2", "keys:", besideEntry, localEntry):                "accepted",
		policyFor("require: 2", "keys:", besideEntry, strangerEntry):             "rejected",
		policyFor("annotations: {env: prod}", "keys:", transitEntry):             "rejected",
		policyFor("maxAge: {of: claim, is: 1h}", "keys:", localEntry):            "accepted",
		policyFor("keys:", "- {name: gone, key: \"hashivault://"+key+"-gone\"}"): "undecided",
	} {
		keys := &keyring{files: files, session: session(t, "http://"+vaultProxy.Addr, "transit/verify/"+key, "update")}
		rec, err := c.Explain(t.Context(), aegis.ExplainOptions{Ref: via(registryProxy, ref), Kind: aegis.PolicyAegis, Document: []byte(doc), Open: keys})
		if err != nil {
			t.Fatal(err)
		}
		if rec.Decision.Outcome != want {
			t.Errorf("%s\nexplained as %+v, want %s", doc, rec.Decision, want)
		}
		req := requirementFrom(t, doc, ref.Name(), keys)
		_, err = c.Verify(t.Context(), ref, req)
		if (err == nil) != (want == "accepted") {
			t.Errorf("%s\nVerify says %v", doc, err)
		}
		raw, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		again, err := aegis.ParseRecord(raw)
		if err != nil {
			t.Fatal(err)
		}
		asked := func() int { return len(vaultProxy.Requests()) + len(registryProxy.Requests()) }
		before := asked()
		r, err := aegis.Replay(t.Context(), again)
		if err != nil || !r.Same || r.Decision.Outcome != want {
			t.Errorf("%s\nreplayed as %+v, %v", doc, r, err)
		}
		if asked() != before {
			t.Error("a replay asked somebody")
		}
	}
}

// TestReplaySeesThroughADoctoredRecord changes a record in each part that is
// decided again.
func TestReplaySeesThroughADoctoredRecord(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	key, stranger, ref, c := ecdsaKey(t), ecdsaKey(t), refTo(t, srv.Registry, "v1"), newClient(t)
	mustPush(t, c, ref, modelDir(t, 1), stranger)
	doc := policyFor("keys:", "- {name: k, publicKeyFile: k.pub}")
	explain := func(files map[string][]byte) aegis.Record {
		rec, err := c.Explain(t.Context(), aegis.ExplainOptions{Ref: ref, Kind: aegis.PolicyAegis, Document: []byte(doc), Open: &keyring{files: files}})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if rec, err = aegis.ParseRecord(raw); err != nil {
			t.Fatal(err)
		}
		return rec
	}
	for what, doctor := range map[string]func(*aegis.Record){
		"the decision":      func(r *aegis.Record) { r.Decision = aegis.Decision{Outcome: "accepted", Signers: []string{"k"}} },
		"a candidate":       func(r *aegis.Record) { r.Candidates[0].Keys[0].Outcome = "counts" },
		"the key":           func(r *aegis.Record) { r.Evidence.Files["k.pub"] = stranger.PEM() },
		"the time":          func(r *aegis.Record) { r.Time = r.Time.Add(-time.Hour) },
		"the manifest":      func(r *aegis.Record) { r.Evidence.Manifest = append(r.Evidence.Manifest, ' ') },
		"the listing":       func(r *aegis.Record) { r.Evidence.Referrers = nil },
		"the policy's name": func(r *aegis.Record) { r.Policy.Statement = "other" },
	} {
		rec := explain(map[string][]byte{"k.pub": key.PEM()})
		doctor(&rec)
		if what == "the time" {
			// The signature is now one of the future, which is another reason.
			rec.Evidence.Files["k.pub"], rec.Decision = stranger.PEM(), aegis.Decision{Outcome: "accepted", Signers: []string{"k"}}
		}
		if r, err := aegis.Replay(t.Context(), rec); err == nil && r.Same {
			t.Errorf("%s: the doctored record comes out the same: %+v", what, r.Decision)
		}
	}
	raw, err := json.Marshal(explain(map[string][]byte{"k.pub": key.PEM()}))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "{}", "[]", strings.Replace(string(raw), `"recordVersion":1`, `"recordVersion":2`, 1),
		strings.Replace(string(raw), `"recordVersion":1`, `"recordVersion":1,"x":1`, 1), string(raw) + "{}",
	} {
		_, err := aegis.ParseRecord([]byte(bad))
		wantErr[*aegis.RecordError](t, err)
	}
	var m aegis.Record
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for d := range m.Evidence.Content {
		m.Evidence.Content[d] = aegis.RecordedContent{Data: []byte("{}")}
	}
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	_, err = aegis.ParseRecord(raw)
	wantErr[*aegis.RecordError](t, err)
}

// TestAgesOnTheSignersClock signs with clocks that are wrong.
func TestAgesOnTheSignersClock(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	doc := policyFor("maxAge: {of: claim, is: 24h}", "keys:", "- {name: k, publicKeyFile: k.pub}")
	for what, row := range map[string]struct {
		offset, expiry time.Duration
		check          func(error)
	}{
		"too old":      {offset: -25 * time.Hour, check: func(err error) { wantErr[*verify.AgeError](t, err) }},
		"expired":      {offset: -2 * time.Hour, expiry: time.Hour, check: func(err error) { wantErr[*verify.ExpiredError](t, err) }},
		"future-dated": {offset: time.Hour, check: func(err error) { wantErr[*verify.FutureError](t, err) }},
		"good":         {offset: -23 * time.Hour, expiry: 100 * time.Hour},
	} {
		key, ref := testkey.New(t, signature.ECDSAP256), parse(t, fmt.Sprintf("%s/%s/%s:v1", srv.Registry, name(t), strings.ReplaceAll(what, " ", "-")))
		c := newClient(t, func(o *aegis.Options) { o.Now = func() time.Time { return time.Now().Add(row.offset) } })
		if _, err := c.Push(t.Context(), aegis.PushOptions{Ref: ref, Paths: []string{modelDir(t, 1)}, Signing: &aegis.Signing{Signer: key, Expiry: row.expiry}}); err != nil {
			t.Fatal(err)
		}
		_, err := newClient(t).Verify(t.Context(), ref, requirementFrom(t, doc, ref.Name(), &keyring{files: map[string][]byte{"k.pub": key.PEM()}}))
		if row.check == nil {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		wantErr[*verify.RejectedError](t, err)
		row.check(err)
	}
}

// TestAKeyThatIsDownLeavesAThresholdInDoubt puts Vault out of reach.
func TestAKeyThatIsDownLeavesAThresholdInDoubt(t *testing.T) {
	t.Parallel()
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	local, c, ref := ecdsaKey(t), newClient(t), refTo(t, srv.Registry, "v1")
	mustPush(t, c, ref, modelDir(t, 1), signOnly(t, srv.VaultAddr, key))
	sign(t, c, ref, aegis.Signing{Signer: local})
	p := servertest.FaultProxy(t, strings.TrimPrefix(srv.VaultAddr, "http://"))
	keys := &keyring{files: map[string][]byte{"l.pub": local.PEM()}, session: session(t, "http://"+p.Addr, "transit/verify/"+key, "update", "transit/keys/"+key, "read")}
	p.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusBadRequest)
		return true
	})
	entries := []string{"keys:", "- {name: transit, key: \"hashivault://" + key + "\"}", "- {name: local, publicKeyFile: l.pub}"}
	_, err := c.Verify(t.Context(), ref, requirementFrom(t, policyFor(append([]string{"require: 2"}, entries...)...), ref.Name(), keys))
	wantErr[*verify.UndecidedError](t, err)
	var failed *vault.Error
	if !errors.As(err, &failed) {
		t.Errorf("err = %v", err)
	}
	if _, err := c.Verify(t.Context(), ref, requirementFrom(t, policyFor(entries...), ref.Name(), keys)); err != nil {
		t.Errorf("one signer is enough: %v", err)
	}
}
