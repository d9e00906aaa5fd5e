// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testtsa"
)

// notary trusts a certificate in notation's way: a store and a policy in the
// rig's home, at its strictest level but for revocation, which has no network.
func (r *rig) notary(t *testing.T, cert, identity string, tsa *testtsa.TSA) {
	t.Helper()
	r.config = filepath.Join(t.TempDir(), "config")
	r.must(t, "tools/notation", "cert", "add", "--type", "ca", "--store", "acme", cert)
	stores, stamp := []string{"ca:acme"}, map[string]any{}
	if tsa != nil {
		root := filepath.Join(t.TempDir(), "tsa.pem")
		write(t, root, tsa.RootPEM())
		r.must(t, "tools/notation", "cert", "add", "--type", "tsa", "--store", "stamps", root)
		stores = append(stores, "tsa:stamps")
		stamp["verifyTimestamp"] = "always"
	}
	verification := map[string]any{"level": "strict", "override": map[string]string{"revocation": "skip"}}
	for k, v := range stamp {
		verification[k] = v
	}
	policy, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{map[string]any{
		"name": "all", "registryScopes": []string{"*"}, "signatureVerification": verification,
		"trustStores": stores, "trustedIdentities": []string{identity},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.config, "notation", "trustpolicy.json"), policy)
}

func (r *rig) notationVerify(t testing.TB, ref string, args ...string) result {
	t.Helper()
	return run(t, r.command(t, "tools/notation", append(append([]string{"verify", "--insecure-registry"}, args...), ref)...))
}

const acme = "x509.subject: C=US, ST=WA, O=Acme"

// certificate has aegis-oci make a certificate for the key and store it there.
func (r *rig) certificate(t *testing.T, key string) string {
	t.Helper()
	cert := filepath.Join(t.TempDir(), "models.pem")
	r.aegis(t, exitOK, "key", "certificate", "--self-signed", "--subject", "C=US, ST=WA, O=Acme, CN=models", "--days", "2",
		"--install", "-o", cert, key)
	return cert
}

func TestNotationAcceptsOurEnvelopes(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			if typ.name == "ed25519" {
				continue // the specification has no algorithm for it
			}
			t.Run(typ.name, func(t *testing.T) {
				key, public := r.key(t, "", typ.name)
				r.notary(t, r.certificate(t, key), acme, nil)
				for _, format := range []string{"jws", "cose"} {
					ref := r.push(t, r.repo(t, "-"+format)+":v1")
					refuses(t, "notation before it is signed", r.notationVerify(t, ref), "no signature is associated")
					r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", format, "-e", "24h", "-a", "stage=prod", ref)
					accepts(t, "notation, "+format, r.notationVerify(t, ref, "-m", "stage=prod"))
					refuses(t, "notation with other metadata", r.notationVerify(t, ref, "-m", "stage=dev"), "signature verification failed")
					r.aegis(t, exitOK, "verify", "--key", public, "-a", "stage=prod", ref)
					r.aegis(t, exitOK, "verify", "--key", key, ref)
				}
			})
		}
	})
}

func TestNotationRefusesOursUnderAnotherIdentity(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		other, _ := r.key(t, "-other", "ecdsa-p256")
		cert, otherCert := r.certificate(t, key), r.certificate(t, other)
		ref := r.push(t, r.repo(t, "")+":v1")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", "notary,notary-cose", ref)
		r.notary(t, cert, acme, nil)
		accepts(t, "notation", r.notationVerify(t, ref))
		r.notary(t, cert, "x509.subject: C=US, ST=WA, O=Other", nil)
		refuses(t, "another organisation", r.notationVerify(t, ref), "signature verification failed")
		r.notary(t, otherCert, acme, nil)
		refuses(t, "another key's certificate", r.notationVerify(t, ref), "signature verification failed")
	})
}

// The stamp is demanded by the policy: without one notation refuses.
func TestNotationAcceptsOurTimestamps(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		tsa := testtsa.Start(t)
		root := filepath.Join(t.TempDir(), "tsa.pem")
		write(t, root, tsa.RootPEM())
		key, public := r.key(t, "", "ecdsa-p256")
		r.notary(t, r.certificate(t, key), acme, tsa)
		for _, format := range []string{"jws", "cose"} {
			ref := r.push(t, r.repo(t, "-"+format)+":v1")
			r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", format, ref)
			refuses(t, "notation without a stamp", r.notationVerify(t, ref), "signature verification failed")
			r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", format,
				"--timestamp-url", tsa.URL, "--timestamp-root-cert", root, ref)
			accepts(t, "notation, "+format, r.notationVerify(t, ref))
			r.aegis(t, exitOK, "verify", "--key", public, ref)
		}
	})
}

// localKey gives notation a key of its own, with a certificate, and returns the
// certificate's file.
func (r *rig) localKey(t *testing.T, key crypto.Signer) string {
	t.Helper()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		Subject:  pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Acme"}, CommonName: "local"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keyFile, certFile := filepath.Join(dir, "local.key"), filepath.Join(dir, "local.crt")
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keys, err := json.Marshal(map[string]any{"default": "local", "keys": []any{map[string]string{"name": "local", "keyPath": keyFile, "certPath": certFile}}})
	if err != nil {
		t.Fatal(err)
	}
	r.config = filepath.Join(dir, "config")
	write(t, filepath.Join(r.config, "notation", "signingkeys.json"), keys)
	return certFile
}

func TestWeAcceptNotationsSignatures(t *testing.T) {
	curve := func(c elliptic.Curve) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return ecdsa.GenerateKey(c, rand.Reader) }
	}
	size := func(n int) func() (crypto.Signer, error) {
		return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, n) }
	}
	onBoth(t, func(t *testing.T, r *rig) {
		_, stranger := r.key(t, "-stranger", "ecdsa-p256")
		for name, generate := range map[string]func() (crypto.Signer, error){
			"p256": curve(elliptic.P256()), "p384": curve(elliptic.P384()), "p521": curve(elliptic.P521()),
			"rsa-2048": size(2048), "rsa-3072": size(3072), "rsa-4096": size(4096),
		} {
			t.Run(name, func(t *testing.T) {
				key, err := generate()
				if err != nil {
					t.Fatal(err)
				}
				cert := r.localKey(t, key)
				for _, format := range []string{"jws", "cose"} {
					ref := r.push(t, r.repo(t, "-"+format)+":v1")
					// By default notation writes the list under the tag everywhere. olareg
					// then answers the referrers API with nothing, and notation does not
					// find its own signature either.
					r.must(t, "tools/notation", "sign", "--insecure-registry", fmt.Sprintf("--force-referrers-tag=%t", r.storage != ""), "--signature-format", format, "-e", "24h", "-m", "stage=prod", ref)
					r.aegis(t, exitOK, "verify", "--key", cert, ref)
					r.aegis(t, exitOK, "verify", "--key", cert, "-a", "stage=prod", ref)
					r.aegis(t, exitRejected, "verify", "--key", cert, "-a", "stage=dev", ref)
					r.aegis(t, exitRejected, "verify", "--key", stranger, ref)
					out := filepath.Join(t.TempDir(), "out")
					r.aegis(t, exitOK, "pull", "--key", cert, "-o", out, ref)
					sameTree(t, filepath.Join(r.home, "model"), out)
				}
			})
		}
	})
}
