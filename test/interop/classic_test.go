// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// cosign2Classic has cosign 2.6 judge the .sig tag, which is all it looks at when
// there is no bundle.
func (r *rig) cosign2Classic(t testing.TB, key, ref string, args ...string) result {
	t.Helper()
	args = append([]string{"verify", "--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry"}, append(args, ref)...)
	return run(t, r.command(t, "tools/cosign2", args...))
}

func TestCosignAcceptsOurClassicSignatures(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			t.Run(typ.name, func(t *testing.T) {
				key, public := r.key(t, "", typ.name)
				ref := r.push(t, r.repo(t, "")+":v1")
				r.aegis(t, exitOK, "sign", "--quiet", "--key", key, "--signature-format", "cosign-tag", "-a", "stage=prod", "-e", "24h", ref)
				for name, got := range map[string]result{
					"cosign 2.6":            r.cosign2Classic(t, public, ref),
					"cosign 2.6, the claim": r.cosign2Classic(t, public, ref, "-a", "stage=prod"),
					"cosign 3":              r.cosignVerify(t, public, ref),
					"cosign 3, the claim":   r.cosignVerify(t, public, ref, "-a", "stage=prod", "--new-bundle-format=false"),
				} {
					accepts(t, name, got)
					if digest := ref[strings.Index(ref, "@")+1:]; !strings.Contains(got.stdout, `"docker-manifest-digest":"`+digest+`"`) {
						t.Errorf("%s verified something else:\n%s", name, got.stdout)
					}
				}
				refuses(t, "cosign 2.6 with another value", r.cosign2Classic(t, public, ref, "-a", "stage=dev"), "annotation")
				r.aegis(t, exitOK, "verify", "--key", public, "-a", "stage=prod", ref)
			})
		}
	})
}

func TestWeAcceptCosignsClassicSignatures(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			if !typ.cosignSigns {
				continue
			}
			t.Run(typ.name, func(t *testing.T) {
				key, public := r.key(t, "", typ.name)
				_, stranger := r.key(t, "-stranger", "ecdsa-p256")
				ref := r.push(t, r.repo(t, "")+":v1")
				r.must(t, "tools/cosign2", "sign", "--key", key, "--tlog-upload=false", "--allow-http-registry", "-y", "-a", "stage=prod", ref)
				r.aegis(t, exitOK, "verify", "--key", public, ref)
				r.aegis(t, exitOK, "verify", "--key", key, "-a", "stage=prod", ref)
				r.aegis(t, exitRejected, "verify", "--key", public, "-a", "stage=dev", ref)
				r.aegis(t, exitRejected, "verify", "--key", stranger, ref)
				out := filepath.Join(t.TempDir(), "out")
				r.aegis(t, exitOK, "pull", "--key", public, "-o", out, ref)
				sameTree(t, filepath.Join(r.home, "model"), out)
			})
		}
	})
}

// Each adds to what the other has written under the tag.
func TestClassicSignaturesOfBothStayBesideOneAnother(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		ours, oursPublic := r.key(t, "-ours", "ecdsa-p256")
		theirs, theirsPublic := r.key(t, "-theirs", "ecdsa-p256")
		for _, first := range []string{"ours", "theirs"} {
			ref := r.push(t, r.repo(t, "-"+first)+":v1")
			sign := map[string]func(){
				"ours": func() { r.aegis(t, exitOK, "sign", "--quiet", "--key", ours, "--signature-format", "cosign-tag", ref) },
				"theirs": func() {
					r.must(t, "tools/cosign2", "sign", "--key", theirs, "--tlog-upload=false", "--allow-http-registry", "-y", ref)
				},
			}
			sign[first]()
			for name, f := range sign {
				if name != first {
					f()
				}
			}
			for _, public := range []string{oursPublic, theirsPublic} {
				accepts(t, first+" first, cosign", r.cosign2Classic(t, public, ref))
				r.aegis(t, exitOK, "verify", "--key", public, ref)
			}
		}
	})
}

// One command signs for everybody.
func TestOneSignatureCommandServesCosignAndNotation(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		r.notary(t, r.certificate(t, key), acme, nil)
		ref := r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key, "--signature-format", "sigstore,cosign-tag,notary,oms")
		accepts(t, "cosign 3", r.cosignVerify(t, public, ref))
		accepts(t, "cosign 2.6", r.cosign2Verify(t, public, ref))
		accepts(t, "notation", r.notationVerify(t, ref))
		got := r.aegis(t, exitOK, "inspect", "--key", public, "--format", "go-template={{range .signatures}}{{.format}} {{.status}}\n{{end}}", ref)
		for _, format := range []string{"sigstore", "cosign-tag", "notary", "oms"} {
			if !strings.Contains(got.stdout, format+" accepted\n") {
				t.Errorf("%s is not accepted:\n%s", format, got.stdout)
			}
		}
	})
}
