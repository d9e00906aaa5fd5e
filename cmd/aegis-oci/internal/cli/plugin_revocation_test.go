// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/testrevocation"
	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/plugin"
)

const revocationCheck = "SIGNATURE_VERIFIER.REVOCATION_CHECK"

// lookedUp has the plugin judge a chain and returns its verdict.
func lookedUp(t *testing.T, chain []*x509.Certificate, config map[string]string) (success bool, reason string) {
	t.Helper()
	var ders [][]byte
	for _, c := range chain {
		ders = append(ders, c.Raw)
	}
	request, err := json.Marshal(map[string]any{"contractVersion": "1.0", "pluginConfig": config,
		"signature":   map[string]any{"certificateChain": ders},
		"trustPolicy": map[string]any{"trustedIdentities": []string{"*"}, "signatureVerification": []string{revocationCheck}}})
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	p := &plugin.Plugin{Keys: &pluginKeys{app: &app{env: environment{}}}, Now: time.Now, LookUp: lookUp(revocation.New(revocation.Options{}))}
	if code := p.Run(t.Context(), []string{"verify-signature"}, bytes.NewReader(request), &stdout, &stderr); code != 0 || stderr.Len() != 0 {
		t.Fatalf("%d: %s%s", code, &stdout, &stderr)
	}
	var answer struct {
		Results map[string]struct {
			Success bool   `json:"success"`
			Reason  string `json:"reason"`
		} `json:"verificationResults"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil || len(answer.Results) != 1 {
		t.Fatalf("%s, %v", &stdout, err)
	}
	r := answer.Results[revocationCheck]
	return r.Success, r.Reason
}

// notation looks nothing up for a plugin that declares revocation, so that all of
// it is judged here: the list of fingerprints, OCSP and CRL.
func TestPluginLooksRevocationUp(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]func(*x509.Certificate, string){
		"OCSP": func(c *x509.Certificate, url string) { c.OCSPServer = []string{url + "/ocsp"} },
		"CRL":  func(c *x509.Certificate, url string) { c.CRLDistributionPoints = []string{url + "/crl"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca, k := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256)
			root := ca.Issue(t, testkey.Authority(time.Now(), "root"), nil, nil)
			srv := testrevocation.Start(t, root, ca.Private())
			template := testkey.Leaf(time.Now(), "models")
			by(template, srv.URL)
			chain := []*x509.Certificate{k.Issue(t, template, ca, root), root}
			list := filepath.Join(t.TempDir(), "revoked")
			revokes := func(lines string) map[string]string {
				if err := os.WriteFile(list, []byte(lines), 0o600); err != nil {
					t.Fatal(err)
				}
				return map[string]string{"revoked": list}
			}
			asked := func() int { return int(srv.OCSP.Load() + srv.CRL.Load()) }

			if ok, reason := lookedUp(t, chain, nil); !ok || asked() != 1 {
				t.Errorf("good, and no list: %s, %d questions", reason, asked())
			}
			if ok, reason := lookedUp(t, chain, map[string]string{"revocation": "list"}); ok || asked() != 1 || !strings.Contains(reason, "no list") {
				t.Errorf("the list alone, and there is none: %v %q, %d questions", ok, reason, asked())
			}
			// A list that is given is not all that is asked.
			srv.This, srv.Next = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
			if ok, reason := lookedUp(t, chain, revokes("")); ok || !strings.Contains(reason, "stale") {
				t.Errorf("stale: %v %q", ok, reason)
			}
			srv.This, srv.Next = time.Time{}, time.Time{}
			srv.Revoke(chain[0].SerialNumber)
			if ok, reason := lookedUp(t, chain, revokes("")); ok || !strings.Contains(reason, "is revoked by "+name) {
				t.Errorf("revoked: %v %q", ok, reason)
			}
			before := asked()
			config := revokes("")
			config["revocation"] = "list"
			if ok, reason := lookedUp(t, chain, config); !ok || asked() != before {
				t.Errorf("by the list alone: %q, %d questions", reason, asked()-before)
			}
			sum := sha256.Sum256(chain[0].Raw)
			if ok, reason := lookedUp(t, chain, revokes(hex.EncodeToString(sum[:])+"\n")); ok || !strings.Contains(reason, "certificate 0") || asked() != before {
				t.Errorf("revoked by the list: %v %q, %d questions", ok, reason, asked()-before)
			}
			unnamed := []*x509.Certificate{k.Issue(t, testkey.Leaf(time.Now(), "models"), ca, root), root}
			if ok, reason := lookedUp(t, unnamed, nil); ok || !strings.Contains(reason, "no list") {
				t.Errorf("nobody to ask, and no list: %v %q", ok, reason)
			}
		})
	}
}
