// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

// TestCLIAMessageOfAnotherProtocolAsAFile offers what a signature of a manifest is
// made over, as a file, to somebody who signs files. What comes back is put beside
// the manifest, in the format that it was meant for, and is no signature of it.
func TestCLIAMessageOfAnotherProtocolAsAFile(t *testing.T) {
	t.Parallel()
	r := newPolicyRig(t)
	key := "files" + r.id
	r.srv.TransitKey(t, key, "ecdsa-p256")
	public := r.file(t, "files.pub", string(r.srv.PublicKeyPEM(t, key, 1)))
	r.as(t, "transit/sign/"+key, "update")
	for name, prepare := range map[string]func(signature.Subject) (signature.Draft, error){
		"DSSE": func(s signature.Subject) (signature.Draft, error) { return sigstore.Prepare(s, signature.Claims{}) },
		"simple signing": func(s signature.Subject) (signature.Draft, error) {
			return simplesigning.Prepare(s, signature.Claims{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ref := r.ref(t, "v1")
			r.ok(t, "push", ref, r.model(t, name))
			a := newAttack(t, ref)
			draft, err := prepare(a.subject)
			if err != nil {
				t.Fatal(err)
			}
			file := r.file(t, "offered", string(draft.Message().Bytes))
			bundle := filepath.Join(t.TempDir(), "offered.sig")
			r.ok(t, "sign", "--key", "hashivault://"+key, "--public-key", public, "--file", file, "--bundle", bundle)
			r.ok(t, "verify", "--key", public, "--file", file, "--bundle", bundle)

			raw, err := os.ReadFile(bundle)
			if err != nil {
				t.Fatal(err)
			}
			content, err := sigstore.Take(raw)
			if err != nil {
				t.Fatal(err)
			}
			forged, err := draft.Finish(context.Background(), signature.Primitive{Signature: content.Signature, KeyVersion: 1}, signature.KeyID{Name: key})
			if err != nil {
				t.Fatal(err)
			}
			if forged.Format == signature.CosignTag {
				a.attachClassic(forged)
			} else {
				a.attach(forged)
				// And the bundle as it is: over files, of no manifest.
				forged.Envelope = raw
				a.attach(forged)
			}
			o := r.refused(t, 3, "rejected", "verify", "--key", public, ref)
			if !strings.Contains(o.stderr, "the key does not accept the signature") {
				t.Errorf("%s", o.stderr)
			}
			dst := t.TempDir()
			r.refused(t, 3, "rejected", "pull", "--key", public, "-o", filepath.Join(dst, "out"), ref)
			if left, err := os.ReadDir(dst); err != nil || len(left) > 0 {
				t.Errorf("pull left %v, %v", left, err)
			}
		})
	}
}

// TestCLIWhatNoKeyCanHaveMadeIsNotAskedAbout: encodings that no signature has are
// refused here, so that Vault, which takes some of them, is never in doubt.
func TestCLIWhatNoKeyCanHaveMadeIsNotAskedAbout(t *testing.T) {
	t.Parallel()
	r := newPolicyRig(t)
	key := "der" + r.id
	r.srv.TransitKey(t, key, "ecdsa-p256")
	r.as(t, "transit/verify/"+key, "update")
	asked := func() int {
		n := 0
		for _, e := range r.srv.AuditEntries(t) {
			if request, _ := e["request"].(map[string]any); e["type"] == "request" && request["path"] == "transit/verify/"+key {
				n++
			}
		}
		return n
	}
	seen := 0
	for _, v := range vectors.Load(t, vectors.Dir(t)) {
		good := v.Name == "sigstore-good-p256"
		if !good && !strings.HasPrefix(v.Name, "sigstore-der-trailing") && !strings.HasPrefix(v.Name, "sigstore-der-l") && v.Name != "classic-der-trailing" {
			continue
		}
		seen++
		repository := "der-" + r.id + "/" + v.Name
		ref := r.srv.Registry + "/" + repository + "@" + v.PushContent(t, r.srv.Registry, repository).String()
		before := asked()
		r.refused(t, 3, "rejected", "verify", "--key", "hashivault://"+key, ref)
		if now := asked(); (now > before) != good {
			t.Errorf("%s: Vault was asked %d times", v.Name, now-before)
		}
	}
	if seen != 5 {
		t.Errorf("%d vectors", seen)
	}
}
