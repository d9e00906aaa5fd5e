// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// keyTypes are Transit's; cosignSigns tells whether cosign 3.1.3 can sign with
// such a key in Transit. It hashes for P-384, P-521 and Ed25519 with SHA-512 or
// SHA-384 and hands the digest to code that expects SHA-256's length.
var keyTypes = []struct {
	name        string
	cosignSigns bool
}{
	{"ecdsa-p256", true},
	{"ecdsa-p384", false},
	{"ecdsa-p521", false},
	{"rsa-2048", true},
	{"rsa-3072", true},
	{"rsa-4096", true},
	{"ed25519", false},
}

func TestCosignAcceptsOurSignatures(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			t.Run(typ.name, func(t *testing.T) {
				key, public := r.key(t, "", typ.name)
				ref := r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key)
				got := r.cosignVerify(t, public, ref)
				accepts(t, "cosign", got)
				digest := ref[strings.Index(ref, "@")+1:]
				if !strings.Contains(got.stdout, `"docker-manifest-digest":"`+digest+`"`) {
					t.Errorf("cosign verified something else:\n%s", got.stdout)
				}
				accepts(t, "cosign 2", r.cosign2Verify(t, public, ref))
				r.aegis(t, exitOK, "verify", "--key", public, ref)
			})
		}
	})
}

// cosign2Verify has cosign 2.6 read the bundle. It wants a trusted root for that,
// also with a key; an empty one will do.
func (r *rig) cosign2Verify(t *testing.T, key, ref string) result {
	t.Helper()
	root := filepath.Join(r.home, "trusted-root.json")
	write(t, root, []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	return run(t, r.command(t, "tools/cosign2", "verify", "--new-bundle-format", "--trusted-root", root,
		"--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry", ref))
}

func TestCosignAcceptsOursThroughTransit(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		ref := r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key)
		accepts(t, "cosign", r.cosignVerify(t, key, ref))
	})
}

func TestCosignMatchesOurClaims(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		ref := r.push(t, r.repo(t, "")+":v1")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "-a", "stage=prod", "-a", "team=speech", "-e", "24h", ref)
		accepts(t, "cosign with the claim", r.cosignVerify(t, public, ref, "-a", "stage=prod", "-a", "team=speech"))
		refuses(t, "cosign with another value", r.cosignVerify(t, public, ref, "-a", "stage=dev"), "annotation")
		refuses(t, "cosign with another claim", r.cosignVerify(t, public, ref, "-a", "owner=x"), "annotation")
	})
}

func TestWeAcceptCosignsSignatures(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			if !typ.cosignSigns {
				continue
			}
			t.Run(typ.name, func(t *testing.T) {
				key, public := r.key(t, "", typ.name)
				ref := r.push(t, r.repo(t, "")+":v1")
				accepts(t, "cosign sign", r.cosignSign(t, key, ref, "-a", "stage=prod"))

				r.aegis(t, exitOK, "verify", "--key", public, ref)
				r.aegis(t, exitOK, "verify", "--key", public, "-a", "stage=prod", ref)
				r.aegis(t, exitRejected, "verify", "--key", public, "-a", "stage=dev", ref)
				out := filepath.Join(r.home, typ.name+"-out")
				r.aegis(t, exitOK, "pull", "--verify", "--key", public, "-o", out, ref)
				sameTree(t, filepath.Join(r.home, "model"), out)
			})
		}
	})
}

// cosign 2.6 writes the bundle if it is asked to.
func TestWeAcceptCosign2sBundles(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		ref := r.push(t, r.repo(t, "")+":v1")
		r.must(t, "tools/cosign2", "sign", "--new-bundle-format", "--key", key, "--tlog-upload=false",
			"--allow-http-registry", "-y", ref)
		r.aegis(t, exitOK, "verify", "--key", public, ref)
		r.aegis(t, exitOK, "verify", "--key", key, ref)
	})
}

// cosign writes no key version, and this token may not read the key to learn it.
func TestWeAcceptCosignsSignaturesWithAVerifyOnlyToken(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		keyName := strings.TrimPrefix(key, "hashivault://")
		r.vault.RotateKey(t, keyName)
		r.vault.Policy(t, keyName, `path "transit/verify/`+keyName+`" { capabilities = ["update"] }`)
		token := r.vault.Token(t, map[string]any{"policies": []string{keyName}, "no_default_policy": true, "ttl": "5m"})
		ref := r.push(t, r.repo(t, "")+":v1")
		accepts(t, "cosign sign", r.cosignSign(t, key, ref))

		out := filepath.Join(r.home, "out")
		pull := r.command(t, "aegis-oci", "pull", "--key", key, "-o", out, ref)
		pull.Env = append(pull.Env, "VAULT_TOKEN="+token)
		accepts(t, "pull", run(t, pull))
		sameTree(t, filepath.Join(r.home, "model"), out)

		// cosign reads the key, and then does not ask Vault.
		theirs := r.command(t, "tools/cosign", "verify", "--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry", ref)
		theirs.Env = append(theirs.Env, "VAULT_TOKEN="+token)
		refuses(t, "cosign verify", run(t, theirs), "permission denied")
	})
}

// When cosign learns to sign with these keys, this fails, and the row above and
// the documentation change.
func TestCosignCannotSignWithSomeTransitKeys(t *testing.T) {
	r := withReferrers(t)
	for _, typ := range keyTypes {
		if typ.cosignSigns {
			continue
		}
		t.Run(typ.name, func(t *testing.T) {
			key, _ := r.key(t, "", typ.name)
			ref := r.push(t, r.repo(t, "")+":v1")
			refuses(t, "cosign sign", r.cosignSign(t, key, ref), "unexpected length of digest")
		})
	}
}

// A token that may only sign is enough for us. cosign reads the key first.
func TestASignOnlyTokenIsEnough(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		keyName := strings.TrimPrefix(key, "hashivault://")
		r.vault.Policy(t, keyName, `path "transit/sign/`+keyName+`" { capabilities = ["update"] }`)
		token := "VAULT_TOKEN=" + r.vault.Token(t, map[string]any{"policies": []string{keyName}, "no_default_policy": true, "ttl": "5m"})
		ref := r.push(t, r.repo(t, "")+":v1")

		theirs := r.command(t, "tools/cosign", "sign", "--key", key, "--tlog-upload=false", "--use-signing-config=false",
			"--allow-http-registry", "-y", ref)
		theirs.Env = append(theirs.Env, token)
		refuses(t, "cosign sign", run(t, theirs), "permission denied")

		ours := r.command(t, "aegis-oci", "sign", "--key", key, "--public-key", public, ref)
		ours.Env = append(ours.Env, token)
		accepts(t, "aegis-oci sign", run(t, ours))
		accepts(t, "cosign verify", r.cosignVerify(t, public, ref))
	})
}

func TestBothRefuseAnotherKey(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		_, other := r.key(t, "-other", "ecdsa-p256")
		ours := r.push(t, r.repo(t, "-ours")+":v1", "--sign", "--key", key)
		theirs := r.push(t, r.repo(t, "-theirs")+":v1")
		accepts(t, "cosign sign", r.cosignSign(t, key, theirs))
		for _, ref := range []string{ours, theirs} {
			accepts(t, "cosign with the key", r.cosignVerify(t, public, ref))
			refuses(t, "cosign with another key", r.cosignVerify(t, other, ref), "failed to verify signature")
			out := filepath.Join(r.home, "out")
			r.aegis(t, exitRejected, "pull", "--key", other, "-o", out, ref)
			absent(t, out)
		}
	})
}

func TestBothRefuseATamperedBundle(t *testing.T) {
	cases := []struct {
		name string
		// edit changes the bundle of a signed model. It is then attached to a model
		// with this digest: the signed one, or another if other is set.
		edit          func(t *testing.T, bundle []byte, digest string) []byte
		other         bool
		cosign, aegis string // the reasons; empty if the bundle is accepted
	}{
		{name: "the bundle as it was made", edit: unchanged},
		{name: "a bundle for another model", edit: unchanged, other: true,
			cosign: "provided artifact digest does not match any digest in statement", aegis: "subject differs"},
		{name: "a payload rewritten for this model", edit: rewriteDigest, other: true,
			cosign: "could not verify envelope", aegis: "the key does not accept the signature"},
		{name: "a byte more in the payload", edit: appendByte,
			cosign: "could not verify envelope", aegis: "the key does not accept the signature"},
		{name: "a cut bundle", edit: cutInHalf, cosign: "no signatures found", aegis: "unexpected EOF"},
	}
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		bundleFile := filepath.Join(r.home, "bundle.json")
		signed := r.push(t, r.repo(t, "")+":signed")
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--bundle", bundleFile, signed)
		bundle, err := os.ReadFile(bundleFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				var args []string
				if c.other {
					args = []string{"-a", "other=model"}
				}
				// A repository of its own, so that the good signature is not there.
				ref := r.push(t, r.repo(t, "")+":v1", args...)
				r.attachBundle(t, ref, c.edit(t, bundle, ref[strings.Index(ref, "@")+1:]))
				got := r.cosignVerify(t, public, ref)
				out := filepath.Join(r.home, "out")
				pull := []string{"pull", "--key", public, "-o", out, ref}
				if c.aegis == "" {
					accepts(t, "cosign", got)
					r.aegis(t, exitOK, "verify", "--key", public, ref)
					return
				}
				refuses(t, "cosign", got, c.cosign)
				refuses(t, "aegis-oci", r.aegis(t, exitRejected, pull...), c.aegis)
				absent(t, out)
			})
		}
	})
}

func unchanged(_ *testing.T, bundle []byte, _ string) []byte { return bundle }

func cutInHalf(_ *testing.T, bundle []byte, _ string) []byte { return bundle[:len(bundle)/2] }

func appendByte(t *testing.T, bundle []byte, _ string) []byte {
	return editPayload(t, bundle, func(p []byte) []byte { return append(p, '\n') })
}

func rewriteDigest(t *testing.T, bundle []byte, digest string) []byte {
	return editPayload(t, bundle, func(p []byte) []byte {
		signed := regexp.MustCompile(`"sha256":"[0-9a-f]{64}"`)
		if len(signed.FindAll(p, -1)) != 1 {
			t.Fatalf("not one digest in the payload: %s", p)
		}
		return signed.ReplaceAll(p, []byte(`"sha256":"`+strings.TrimPrefix(digest, "sha256:")+`"`))
	})
}

// attachBundle attaches a file as cosign attaches a signature, by oras.
func (r *rig) attachBundle(t *testing.T, ref string, bundle []byte) {
	t.Helper()
	write(t, filepath.Join(r.home, "attached.json"), bundle)
	r.must(t, "tools/oras", "attach", "--plain-http", "--artifact-type", bundleType,
		"-a", "dev.sigstore.bundle.content=dsse-envelope",
		"-a", "dev.sigstore.bundle.predicateType=https://sigstore.dev/cosign/sign/v1",
		ref, "attached.json:"+bundleType)
}

// editPayload changes the DSSE payload and leaves the signature as it is.
func editPayload(t *testing.T, bundle []byte, edit func([]byte) []byte) []byte {
	t.Helper()
	var fields, envelope map[string]any
	decode(t, string(bundle), &fields)
	envelope, _ = fields["dsseEnvelope"].(map[string]any)
	encoded, _ := envelope["payload"].(string)
	payload, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(payload) == 0 {
		t.Fatalf("no payload in the bundle: %v\n%s", err, bundle)
	}
	envelope["payload"] = base64.StdEncoding.EncodeToString(edit(payload))
	edited, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return edited
}

// cosign verify does not look at the predicate's type: anything that the key has
// attested about the model counts as a signature. Here it does not.
func TestAnAttestationIsNoSignature(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		ref := r.push(t, r.repo(t, "")+":v1")
		predicate := filepath.Join(r.home, "predicate.json")
		write(t, predicate, []byte(`{"buildDefinition":{"buildType":"https://example.com/build"},"runDetails":{"builder":{"id":"https://example.com"}}}`))
		r.must(t, "tools/cosign", "attest", "--key", key, "--type", "slsaprovenance1", "--predicate", predicate,
			"--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "-y", ref)

		got := r.cosignVerify(t, public, ref)
		accepts(t, "cosign verify", got)
		if !strings.Contains(got.stdout, `"type":"https://slsa.dev/provenance/v1"`) {
			t.Errorf("cosign verified something else than the attestation:\n%s", got.stdout)
		}
		out := filepath.Join(r.home, "out")
		r.aegis(t, exitRejected, "pull", "--key", public, "-o", out, ref)
		absent(t, out)

		// Beside a signature it does no harm.
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, ref)
		r.aegis(t, exitOK, "pull", "--key", public, "-o", out, ref)
	})
}
