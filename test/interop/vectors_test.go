// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
)

// vectorPolicy is what of a vector's policy other programs can be given.
type vectorPolicy struct {
	Policies []struct {
		Keys []struct {
			PublicKeyFile    string `json:"publicKeyFile"`
			CertificatesFile string `json:"certificatesFile"`
		} `json:"keys"`
		Annotations map[string]string `json:"annotations"`
	} `json:"policies"`
}

// decision is how one program decides one vector: accepts or refuses.
type decision struct{ program, decides string }

// TestVectorsThroughOtherPrograms runs every vector through cosign and notation,
// as far as they read its format, and holds docs/differences.md: each vector on
// which one decides otherwise than aegis-oci has a row there, and each row is so.
func TestVectorsThroughOtherPrograms(t *testing.T) {
	r := withoutReferrers(t)
	dir := vectors.Dir(t)
	r.config = filepath.Join(t.TempDir(), "config")
	r.must(t, "tools/notation", "cert", "add", "--type", "ca", "--store", "acme", filepath.Join(dir, "keys", "ca.pem"))
	// Stamps are looked at once a certificate has expired, as the vectors' are.
	r.must(t, "tools/notation", "cert", "add", "--type", "tsa", "--store", "stamps", filepath.Join(dir, "keys", "tsa.pem"))
	policy, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{map[string]any{
		"name": "all", "registryScopes": []string{"*"}, "trustStores": []string{"ca:acme", "tsa:stamps"}, "trustedIdentities": []string{acme},
		"signatureVerification": map[string]any{"level": "strict", "verifyTimestamp": "afterCertExpiry", "override": map[string]string{"revocation": "skip"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.config, "notation", "trustpolicy.json"), policy)

	write(t, filepath.Join(r.home, "root.json"), []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))

	var mu sync.Mutex
	found := map[string]map[string]string{}
	counts := map[decision]int{}
	t.Run("each", func(t *testing.T) {
		for _, v := range vectors.Load(t, dir) {
			t.Run(v.Name, func(t *testing.T) {
				t.Parallel()
				repository := "vectors/" + v.Name
				ref := r.registry + "/" + repository + "@" + v.Push(t, r.registry, repository).String()
				for _, d := range r.decide(t, dir, v, ref) {
					mu.Lock()
					counts[d]++
					if (d.decides == "accepts") != (v.Expect == "success") {
						if found[v.Name] == nil {
							found[v.Name] = map[string]string{}
						}
						found[v.Name][d.program] = d.decides
					}
					mu.Unlock()
				}
			})
		}
	})
	for _, d := range slices.SortedFunc(mapsKeys(counts), func(a, b decision) int {
		return strings.Compare(a.program+a.decides, b.program+b.decides)
	}) {
		t.Logf("%s %s %d vectors", d.program, d.decides, counts[d])
	}
	want := differencesPage(t)
	for name, got := range found {
		for program, decides := range got {
			if want[name][program] != decides {
				t.Errorf("%s: %s %s it, and docs/differences.md says %q", name, program, decides, want[name][program])
			}
		}
	}
	for name, rows := range want {
		for program, decides := range rows {
			if found[name][program] != decides {
				t.Errorf("docs/differences.md: %s %s %s, and it does not", program, decides, name)
			}
		}
	}
}

func mapsKeys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// decide runs the programs that can read v and be told what it trusts.
func (r *rig) decide(t *testing.T, dir string, v vectors.Vector, ref string) []decision {
	t.Helper()
	var p vectorPolicy
	decode(t, string(v.Policy), &p)
	key := p.Policies[0].Keys[0]
	said := func(program string, got result) decision {
		if got.code == 0 {
			return decision{program, "accepts"}
		}
		if strings.TrimSpace(got.stderr) == "" {
			t.Errorf("%s refuses and does not say why", program)
		}
		return decision{program, "refuses"}
	}
	isNotary := strings.HasPrefix(v.Name, "notary-")
	switch {
	case isNotary && key.CertificatesFile != "":
		return []decision{said("notation", r.notationVerify(t, ref))}
	case isNotary:
		return nil // notation trusts no key without a certificate
	}
	public := filepath.Join(dir, key.PublicKeyFile)
	var claims []string
	for k, v := range p.Policies[0].Annotations {
		claims = append(claims, "-a", k+"="+v)
	}
	// cosign 2.6 wants a trusted root for bundles, though a key needs none of it.
	older := []string{"verify", "--key", public, "--insecure-ignore-tlog=true", "--allow-http-registry"}
	if len(v.Referrers) > 0 {
		older = append(older, "--new-bundle-format", "--trusted-root", filepath.Join(r.home, "root.json"))
	}
	return []decision{
		said("cosign 3", r.cosignVerify(t, public, ref, claims...)),
		said("cosign 2.6", run(t, r.command(t, "tools/cosign2", append(append(older, claims...), ref)...))),
	}
}

// differencesPage reads the rows | vectors | programs | decides | why | of the page.
func differencesPage(t *testing.T) map[string]map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "differences.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]map[string]string{}
	for line := range bytes.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(string(line)), "|"), "|")
		if len(cells) != 4 {
			continue
		}
		decides := strings.TrimSpace(cells[2])
		if decides != "accepts" && decides != "refuses" {
			continue
		}
		for name := range strings.SplitSeq(cells[0], ",") {
			name = strings.Trim(strings.TrimSpace(name), "`")
			for program := range strings.SplitSeq(cells[1], ",") {
				if rows[name] == nil {
					rows[name] = map[string]string{}
				}
				if program = strings.TrimSpace(program); rows[name][program] != "" {
					t.Fatalf("docs/differences.md has two rows of %s and %s", name, program)
				}
				rows[name][program] = decides
			}
		}
	}
	return rows
}
