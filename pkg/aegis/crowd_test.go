// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

const (
	crowdSize = 1000
	// What the verifier may spend, whoever attaches what (verify.Options,
	// vault's maxRequests for each of two waves).
	maxCandidates    = 100
	firstWave        = 8
	maxVaultRequests = 8
)

// crowd attaches manifests to subject as whoever may push can: past the code
// under test, which would wait for each of them.
func crowd(t *testing.T, ref registry.Reference, subject signature.Subject, manifests [][]byte) {
	t.Helper()
	repo := repository(t, ref)
	pushContent(t, repo, ocispec.DescriptorEmptyJSON, []byte("{}"))
	api, err := repo.HasReferrersAPI(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]ocispec.Descriptor, len(manifests))
	// One after the other: a registry can lose one of two that come at once.
	for i, raw := range manifests {
		p, err := repo.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		entries[i] = p.Subject().Descriptor()
		entries[i].ArtifactType, entries[i].Annotations = m.ArtifactType, m.Annotations
	}
	if !api {
		putList(t, ref, subject, entries)
	}
	listed := make(map[digest.Digest]bool)
	for d, err := range repo.Referrers(t.Context(), subject) {
		if err != nil {
			t.Fatal(err)
		}
		listed[d.Digest] = true
	}
	for _, e := range entries {
		if !listed[e.Digest] {
			t.Fatal("the registry does not list what was pushed")
		}
	}
}

// putList adds entries to the list that a registry without the API has.
func putList(t *testing.T, ref registry.Reference, subject signature.Subject, entries []ocispec.Descriptor) {
	t.Helper()
	for d, err := range repository(t, ref).Referrers(t.Context(), subject) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, d)
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries,
	})
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://%s/v2/%s/manifests/sha256-%s", ref.Registry, ref.Repository, subject.Digest().Encoded())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(index))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("the list was not taken: %s", resp.Status)
	}
}

// gate is a Transit key reached through a proxy that counts, with a token that
// may only verify.
func gate(t *testing.T) (signer *vault.Signer, asked signature.Key, requests func() int) {
	t.Helper()
	srv, key := servertest.SharedStack(t), name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	asked = session(t, proxy.URL, "transit/verify/"+key, "update").Key(transit(key))
	return signOnly(t, srv.VaultAddr, key), asked, func() int {
		n := proxy.Count("/transit/")
		proxy.Reset()
		return n
	}
}

func TestAThousandForeignReferrers(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		signer, key, requests := gate(t)
		proxy := servertest.FaultProxy(t, host)
		c, ref := newClient(t), refTo(t, host, "v1")
		dir := modelDir(t, 1)
		mustPush(t, c, ref, dir, nil)
		subject := resolve(t, ref).Subject()
		foreign := make([][]byte, crowdSize)
		for i := range foreign {
			foreign[i], _ = referrer(t, subject.Descriptor(), "application/vnd.example.sbom", []byte("{}"), map[string]string{"n": fmt.Sprint(i)})
		}
		crowd(t, ref, subject, foreign)

		// Unsigned: all of them might be signatures that hide behind another type.
		proxy.Reset()
		parent := t.TempDir()
		_, err := c.Pull(t.Context(), aegis.PullOptions{Ref: via(proxy, ref), Dir: filepath.Join(parent, "m")}, requirement(key))
		wantErr[*verify.UndecidedError](t, err)
		if !errors.Is(err, verify.ErrTooMany) {
			t.Errorf("error %v", err)
		}
		nothingIn(t, parent)
		if n := proxy.Count("/manifests/sha256:"); n > maxCandidates {
			t.Errorf("%d referrers were fetched, at most %d may be", n, maxCandidates)
		}
		if n := requests(); n != 0 {
			t.Errorf("Vault was asked %d times about what is no signature", n)
		}

		if _, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: signer}); err != nil {
			t.Fatal(err)
		}
		proxy.Reset()
		dst := filepath.Join(parent, "model")
		if _, err := c.Pull(t.Context(), aegis.PullOptions{Ref: via(proxy, ref), Dir: dst}, requirement(key)); err != nil {
			t.Fatal(err)
		}
		sameModel(t, dir, dst)
		if n := proxy.Count("/manifests/sha256:"); n > firstWave {
			t.Errorf("%d referrers were fetched to find the one signature, want at most %d", n, firstWave)
		}
		if n := requests(); n != 1 {
			t.Errorf("Vault was asked %d times, want once", n)
		}
	})
}

// copies are signatures by nobody's key that say of themselves what ours say. As
// many as are examined have envelopes of their own; the others share one, which
// saves most of the uploads.
func copies(t *testing.T, n int, subject signature.Subject, created func(i int) time.Time) (manifests [][]byte, envelopes [][]byte) {
	t.Helper()
	stranger := ecdsaKey(t)
	var made []signature.Attachment
	for i := range n {
		if i <= maxCandidates {
			draft, err := sigstore.Prepare(subject, signature.Claims{SignedAt: created(i), Builder: map[string]string{"n": fmt.Sprint(i)}})
			if err != nil {
				t.Fatal(err)
			}
			if made, err = signature.Sign(t.Context(), stranger, draft); err != nil {
				t.Fatal(err)
			}
			envelopes = append(envelopes, made[0].Envelope)
		}
		made[0].Annotations[ocispec.AnnotationCreated] = created(i).UTC().Format(time.RFC3339)
		made[0].Annotations[signature.AnnotationKeyVersion] = "1"
		raw, err := made[0].Manifest(subject)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, raw)
	}
	return manifests, envelopes
}

func TestAThousandCopiesOfOurHints(t *testing.T) {
	t.Parallel()
	onBothRegistries(t, func(t *testing.T, host string) {
		signer, key, requests := gate(t)
		proxy := servertest.FaultProxy(t, host)
		c, ref := newClient(t), refTo(t, host, "v1")
		dir := modelDir(t, 1)
		mustPush(t, c, ref, dir, nil)
		subject := resolve(t, ref).Subject()
		attach := func(n int, created func(int) time.Time) {
			manifests, envelopes := copies(t, n, subject, created)
			repo := repository(t, ref)
			var g errgroup.Group
			g.SetLimit(8)
			for _, e := range envelopes {
				g.Go(func() error { pushContent(t, repo, sigstoreLayer(e), e); return nil })
			}
			_ = g.Wait()
			crowd(t, ref, subject, manifests)
		}
		attach(crowdSize, func(i int) time.Time { return time.Now().Add(-time.Duration(i+1) * time.Minute) })
		if _, err := c.Sign(t.Context(), ref, aegis.Signing{Signer: signer}); err != nil {
			t.Fatal(err)
		}

		// Ours is the newest of those that look alike.
		parent := t.TempDir()
		dst := filepath.Join(parent, "model")
		if _, err := c.Pull(t.Context(), aegis.PullOptions{Ref: via(proxy, ref), Dir: dst}, requirement(key)); err != nil {
			t.Fatal(err)
		}
		sameModel(t, dir, dst)
		if n := requests(); n > maxVaultRequests {
			t.Errorf("Vault was asked %d times, at most %d are allowed", n, maxVaultRequests)
		}

		// Then the attacker dates more of them later: closed, and cheap.
		attach(maxCandidates, func(i int) time.Time { return time.Now().Add(time.Duration(i+1) * time.Hour) })
		proxy.Reset()
		_, err := c.Pull(t.Context(), aegis.PullOptions{Ref: via(proxy, ref), Dir: filepath.Join(parent, "again")}, requirement(key))
		e := wantErr[*verify.UndecidedError](t, err)
		if !errors.Is(err, verify.ErrTooMany) || len(e.Reasons) != maxCandidates {
			t.Errorf("%d rejected, error %v", len(e.Reasons), err)
		}
		if n := proxy.Count("/manifests/sha256:"); n > maxCandidates {
			t.Errorf("%d referrers were fetched, at most %d may be", n, maxCandidates)
		}
		if n := requests(); n == 0 || n > maxVaultRequests {
			t.Errorf("Vault was asked %d times, at most %d are allowed", n, maxVaultRequests)
		}
		if n := proxy.Count(blobOf(t, dir, "weights/part-1.bin").String()); n > 0 {
			t.Error("a layer was fetched")
		}
	})
}

func sigstoreLayer(envelope []byte) ocispec.Descriptor {
	return signature.Attachment{MediaType: sigstore.MediaType, Envelope: envelope}.Layer()
}
