// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
)

// attack is what somebody can do who may push to the repository of ref.
type attack struct {
	t       testing.TB
	repo    *registry.Repository
	subject signature.Subject
}

func newAttack(t testing.TB, ref string) *attack {
	t.Helper()
	client, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := registry.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := client.Repository(parsed)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := repo.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &attack{t: t, repo: repo, subject: pinned.Subject()}
}

// sign makes a signature that is attached nowhere yet.
func (a *attack) sign(k *testkey.Key, c signature.Claims) signature.Attachment {
	a.t.Helper()
	d, err := sigstore.Prepare(a.subject, c)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := signature.Sign(context.Background(), k, d)
	if err != nil {
		a.t.Fatal(err)
	}
	return made[0]
}

func (a *attack) attach(s signature.Attachment) {
	a.t.Helper()
	for _, c := range []struct {
		desc ocispec.Descriptor
		data []byte
	}{{s.Layer(), s.Envelope}, {ocispec.DescriptorEmptyJSON, []byte("{}")}} {
		if _, err := a.repo.PushBlob(a.t.Context(), c.desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.data)), nil }); err != nil {
			a.t.Fatal(err)
		}
	}
	m, err := s.Manifest(a.subject)
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.repo.Attach(a.t.Context(), a.subject, ocispec.MediaTypeImageManifest, m); err != nil {
		a.t.Fatal(err)
	}
}

// attachClassic puts s under cosign's tag.
func (a *attack) attachClassic(s signature.Attachment) {
	a.t.Helper()
	if _, err := a.repo.PushBlob(a.t.Context(), s.Layer(), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(s.Envelope)), nil }); err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.repo.AppendClassic(a.t.Context(), a.subject, s.Layer()); err != nil {
		a.t.Fatal(err)
	}
}

// put writes referrers past the library: it is fast, and asks nobody to wait.
func (a *attack) put(manifests [][]byte) {
	a.t.Helper()
	host, path, _ := strings.Cut(a.repo.Name(), "/")
	work := make(chan []byte)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for m := range work {
				url := fmt.Sprintf("http://%s/v2/%s/manifests/%s", host, path, digest.FromBytes(m))
				req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(m))
				if err != nil {
					a.t.Error(err)
					continue
				}
				req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					a.t.Error(err)
					continue
				}
				if resp.Body.Close(); resp.StatusCode != http.StatusCreated {
					a.t.Errorf("PUT %s: %s", url, resp.Status)
				}
			}
		}()
	}
	for _, m := range manifests {
		work <- m
	}
	close(work)
	wg.Wait()
}

// thousand are copies of one attachment that differ by an annotation.
func (a *attack) thousand(s signature.Attachment) {
	a.t.Helper()
	a.attach(s)
	var all [][]byte
	for i := range 1000 {
		c := s
		c.Annotations = map[string]string{"n": fmt.Sprint(i)}
		for k, v := range s.Annotations {
			c.Annotations[k] = v
		}
		m, err := c.Manifest(a.subject)
		if err != nil {
			a.t.Fatal(err)
		}
		all = append(all, m)
	}
	a.put(all)
}

func TestCLIASignatureCopiedFromAnotherRepository(t *testing.T) {
	r := newPolicyRig(t)
	k := testkey.New(t, signature.ECDSAP256)
	r.file(t, "k.pub", string(k.PEM()))
	staging, production := r.srv.Registry+"/staging/"+r.id+":v1", r.srv.Registry+"/production/"+r.id+":v1"
	model := r.model(t, "the same in both")
	r.ok(t, "push", staging, model)
	r.ok(t, "push", production, model)
	from := newAttack(t, staging)
	newAttack(t, production).attach(from.sign(k, signature.Claims{SignedAt: time.Now(), Repository: from.repo.Name()}))
	from.attach(from.sign(k, signature.Claims{SignedAt: time.Now(), Repository: from.repo.Name()}))
	entry := []string{"keys:", "- {name: k, publicKeyFile: k.pub}"}
	r.ok(t, "verify", "--policy", r.policy(t, entry...), production)
	bound := r.policy(t, append([]string{"requireRepository: true"}, entry...)...)
	r.ok(t, "verify", "--policy", bound, staging)
	dst := filepath.Join(r.dir, "out")
	r.refused(t, 3, "repository_differs", "pull", "--policy", bound, "-o", dst, production)
	if _, err := os.Lstat(dst); !os.IsNotExist(err) {
		t.Errorf("something was left: %v", err)
	}
}

func TestCLIRollbackToAnOlderSignedDigest(t *testing.T) {
	r := newPolicyRig(t)
	k, ref := testkey.New(t, signature.ECDSAP256), r.ref(t, "prod")
	r.file(t, "k.pub", string(k.PEM()))
	r.signedBy(t, r.ref(t, "old"), -48*time.Hour, aegis.Signing{}, k)
	r.signedBy(t, ref, -time.Hour, aegis.Signing{}, k)
	policy := r.policy(t, "notBefore: "+time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339), "keys:", "- {name: k, publicKeyFile: k.pub}")
	r.ok(t, "verify", "--policy", policy, ref)
	r.ok(t, "tag", r.ref(t, "old"), "prod")
	dst := filepath.Join(r.dir, "out")
	r.refused(t, 3, "not_before", "pull", "--policy", policy, "-o", dst, ref)
	if _, err := os.Lstat(dst); !os.IsNotExist(err) {
		t.Errorf("something was left: %v", err)
	}
}

// TestCLIOneSignerCannotBeTwo makes a second signature out of the first, without
// the key.
func TestCLIOneSignerCannotBeTwo(t *testing.T) {
	r := newPolicyRig(t)
	a, b, ref := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), r.ref(t, "v1")
	r.file(t, "a.pub", string(a.PEM()))
	r.file(t, "b.pub", string(b.PEM()))
	r.ok(t, "push", ref, r.model(t, "w"))
	by := newAttack(t, ref)
	first := by.sign(a, signature.Claims{SignedAt: time.Now()})
	by.attach(first)
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(first.Primitive.Signature, &rs); err != nil {
		t.Fatal(err)
	}
	rs.S.Sub(elliptic.P256().Params().N, rs.S)
	other, err := asn1.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	second := first
	second.Envelope = bytes.Replace(first.Envelope, []byte(base64.StdEncoding.EncodeToString(first.Primitive.Signature)),
		[]byte(base64.StdEncoding.EncodeToString(other)), 1)
	if bytes.Equal(first.Envelope, second.Envelope) {
		t.Fatal("the envelope does not hold its signature")
	}
	by.attach(second)
	two := r.policy(t, "require: 2", "keys:", "- {name: a, publicKeyFile: a.pub}", "- {name: b, publicKeyFile: b.pub}")
	r.refused(t, 3, "too_few_signers", "verify", "--policy", two, ref)
	by.attach(by.sign(b, signature.Claims{SignedAt: time.Now()}))
	r.ok(t, "verify", "--policy", two, ref)
}

// TestCLIAThousandReferrers buries two good signatures, under junk and under
// copies of their own hints.
func TestCLIAThousandReferrers(t *testing.T) {
	r := newPolicyRig(t)
	a, b, stranger := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	r.file(t, "a.pub", string(a.PEM()))
	r.file(t, "b.pub", string(b.PEM()))
	two := r.policy(t, "require: 2", "keys:", "- {name: a, publicKeyFile: a.pub}", "- {name: b, publicKeyFile: b.pub}")

	junk := r.ref(t, "junk")
	r.signedBy(t, junk, -time.Hour, aegis.Signing{}, a, b)
	newAttack(t, junk).thousand(signature.Attachment{ArtifactType: "application/spdx+json", MediaType: "application/spdx+json", Envelope: []byte("{}")})
	r.ok(t, "verify", "--policy", two, junk)

	copied := r.ref(t, "copied")
	r.signedBy(t, copied, -time.Hour, aegis.Signing{}, a, b)
	by := newAttack(t, copied)
	by.thousand(by.sign(stranger, signature.Claims{SignedAt: time.Now()}))
	r.refused(t, 4, "too_many_signatures", "verify", "--policy", two, copied)
	// Signing again makes ours the newest, which repairs it.
	for _, k := range []*testkey.Key{a, b} {
		by.attach(by.sign(k, signature.Claims{SignedAt: time.Now().Add(time.Minute)}))
	}
	r.ok(t, "verify", "--policy", two, copied)
}

// TestCLICertificates has a Notary signature judged under a policy of ours and under
// notation's own, by authority and subject.
func TestCLICertificates(t *testing.T) {
	r := newPolicyRig(t)
	now := time.Now()
	k, ca, stranger := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
	authority := ca.Issue(t, testkey.Authority(now, "ca"), nil, nil)
	chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "signer"), ca, authority), authority}
	ref := r.ref(t, "v1")
	r.signedBy(t, ref, 0, aegis.Signing{Formats: []signature.Format{signature.Notary, signature.NotaryCOSE}, Certificates: chain}, k)
	r.signedBy(t, r.ref(t, "plain"), 0, aegis.Signing{}, k)
	r.file(t, "truststore/x509/ca/acme/ca.pem", string(testkey.CertificatePEM(authority)))
	r.file(t, "truststore/x509/ca/der/ca.crt", string(authority.Raw))
	r.file(t, "truststore/x509/ca/other/ca.pem", string(testkey.CertificatePEM(stranger.Issue(t, testkey.Authority(now, "other"), nil, nil))))
	ours := func(file, identity string) string {
		return r.policy(t, "formats: [notary, notary-cose]", "keys:", `- {name: pki, certificatesFile: `+file+`, identities: ["`+identity+`"]}`)
	}
	acme, other := "truststore/x509/ca/acme/ca.pem", "truststore/x509/ca/other/ca.pem"
	r.ok(t, "verify", "--policy", ours(acme, "x509.subject: C=US, ST=WA, O=Acme"), ref)
	r.ok(t, "verify", "--policy", ours(acme, "*"), ref)
	r.refused(t, 3, "rejected", "verify", "--policy", ours(acme, "x509.subject: C=US, ST=WA, O=Other"), ref)
	r.refused(t, 3, "rejected", "verify", "--policy", ours(other, "*"), ref)
	r.refused(t, 3, "format_not_allowed", "verify", "--policy", ours(acme, "*"), r.ref(t, "plain"))
	r.refused(t, 2, "policy_invalid", "policy", "check", "--policy", ours("none.pem", "*"))
	r.file(t, "k.pub", string(k.PEM()))
	// The certificate is of the key: one signer under two names, and one signature.
	two := r.policy(t, "require: 2", "keys:", `- {name: pki, certificatesFile: `+acme+`, identities: ["*"]}`, "- {name: key, publicKeyFile: k.pub}")
	r.refused(t, 3, "too_few_signers", "verify", "--policy", two, ref)

	notation := func(store, level string) string {
		return r.file(t, "trustpolicy.json", fmt.Sprintf(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"],
			"signatureVerification": {"level": %q}, "trustStores": ["ca:%s"], "trustedIdentities": ["x509.subject: C=US, ST=WA, O=Acme"]}]}`, level, store))
	}
	for _, store := range []string{"acme", "der"} {
		r.ok(t, "verify", "--notation-policy", notation(store, "strict"), ref)
		r.ok(t, "verify", "--notation-policy", notation(store, "permissive"), ref)
	}
	r.refused(t, 3, "rejected", "verify", "--notation-policy", notation("other", "permissive"), ref)
	r.refused(t, 3, "format_not_allowed", "verify", "--notation-policy", notation("acme", "strict"), r.ref(t, "plain"))
	r.refused(t, 2, "policy_invalid", "verify", "--notation-policy", notation("none", "strict"), ref)
	record := r.file(t, "record.json", r.ok(t, "policy", "explain", "--format", "json", "--notation-policy", notation("acme", "strict"), ref))
	if out := r.ok(t, "policy", "replay", record); !strings.Contains(out, "decision   accepted") || !strings.Contains(out, "verified again   all") {
		t.Errorf("replay says %s", out)
	}
}

// notation's policies are read and held to their form; nothing passes by them.
func TestCLINotationPolicy(t *testing.T) {
	r := newPolicyRig(t)
	k, ref := testkey.New(t, signature.ECDSAP256), r.ref(t, "v1")
	r.signedBy(t, ref, 0, aegis.Signing{}, k)
	document := `{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "LEVEL"},
		"trustStores": ["ca:acme"], "trustedIdentities": ["*"]}]}`
	policy := r.file(t, "trustpolicy.json", strings.Replace(document, "LEVEL", "strict", 1))
	r.refused(t, 2, "policy_invalid", "verify", "--notation-policy", policy, ref) // no such store
	skip := r.file(t, "skip.json", strings.Replace(document, "LEVEL", "skip", 1))
	o := r.refused(t, 2, "policy_invalid", "pull", "--notation-policy", skip, "-o", filepath.Join(r.dir, "out"), ref)
	if !strings.Contains(o.stderr, `level "skip" lets pass what does not verify`) {
		t.Errorf("stderr %s", o.stderr)
	}
	r.refused(t, 2, "usage", "verify", "--notation-policy", policy, "--policy", policy, ref)
	r.refused(t, 2, "usage", "verify", "--notation-policy", policy, "--key", "k.pub", ref)
	if out := r.ok(t, "policy", "test", "--notation-policy", policy, ref); !strings.Contains(out, "notary, notary-cose") {
		t.Errorf("test says %s", out)
	}
}
