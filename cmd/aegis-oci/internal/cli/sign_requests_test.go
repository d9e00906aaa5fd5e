// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// asked runs the command line with a token of its own and returns what Vault's
// audit log says it was asked, in order.
func asked(t *testing.T, srv *servertest.Server, token string, args ...string) (ran, []string) {
	t.Helper()
	before := len(srv.AuditEntries(t))
	r := runCLI(t, map[string]string{"VAULT_ADDR": srv.VaultAddr, "VAULT_TOKEN": token}, "", args...)
	var paths []string
	for _, e := range srv.AuditEntries(t)[before:] {
		if e["type"] == "request" {
			path, _ := e["request"].(map[string]any)["path"].(string)
			paths = append(paths, path)
		}
	}
	return r, paths
}

// Signing in three formats is one request. What comes before it is the token's
// lifetime, which is reported, and the key's description, unless the flags hold
// what it would say. An upload is not begun before Vault has said yes.
func TestSignAsksVaultNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	srv := servertest.Stack(t)
	srv.TransitKey(t, "models", "ecdsa-p256")
	srv.TransitKey(t, "other", "ecdsa-p256")
	dir, ref := t.TempDir(), srv.Registry+"/requests:v1"
	public, other, chain := filepath.Join(dir, "models.pub"), filepath.Join(dir, "other.pub"), filepath.Join(dir, "models.pem")
	for path, key := range map[string]string{public: "models", other: "other"} {
		if err := os.WriteFile(path, srv.PublicKeyPEM(t, key, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := map[string]string{"VAULT_ADDR": srv.VaultAddr, "VAULT_TOKEN": srv.RootToken}
	wantExit(t, runCLI(t, root, "", "key", "certificate", "--self-signed", "--subject", "C=US, ST=WA, O=Acme, CN=x", "--install", "-o", chain, "hashivault://models"), 0)
	wantExit(t, runCLI(t, root, "", "push", ref, smallModel(t, "requests")), 0)
	token := limitedToken(t, srv, "signs", "transit/sign/models", "update", "transit/keys/models", "read", "auth/token/lookup-self", "read")

	const lookup, read, sign = "auth/token/lookup-self", "transit/keys/models", "transit/sign/models"
	three := []string{"--signature-format", "sigstore,cosign-tag,notary"}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"the certificate is the key's": {append([]string{"sign"}, three...), []string{lookup, read, sign}},
		"the certificate is given":     {append([]string{"sign", "--cert-chain", chain}, three...), []string{lookup, sign}},
		"nothing is given":             {[]string{"sign"}, []string{lookup, read, sign}},
		"the public key is given":      {[]string{"sign", "--public-key", public}, []string{lookup, sign}},
	} {
		r, got := asked(t, srv, token, append(c.args, "--format", "json", "--key", "hashivault://models", ref)...)
		wantExit(t, r, 0, `"selfVerified": true`)
		if strings.Contains(r.stdout, `"selfVerified": false`) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v\n%s", name, got, c.want, r.stdout)
		}
	}

	// A key in Vault that is not the one given has signed for nobody.
	before := runCLI(t, nil, "", "inspect", "--format", "json", ref).stdout
	r, _ := asked(t, srv, token, "sign", "--key", "hashivault://models", "--public-key", other, ref)
	wantExit(t, r, 4, "does not verify")
	if after := runCLI(t, nil, "", "inspect", "--format", "json", ref).stdout; after != before || !strings.Contains(before, "sigstore") {
		t.Errorf("a signature that nobody could check was attached:\n%s\n%s", before, after)
	}

	// Whoever may not sign is told so by the one request, and by push before it
	// uploads.
	reader := limitedToken(t, srv, "reads", "transit/keys/models", "read")
	r, got := asked(t, srv, reader, "sign", "--key", "hashivault://models", "--public-key", public, ref)
	wantExit(t, r, 4, `the token needs "update" on transit/sign/models`)
	if n := times(got)[sign]; n != 1 {
		t.Errorf("%d requests to sign: %v", n, got)
	}
	unpushed := srv.Registry + "/requests-unpushed:v1"
	r, _ = asked(t, srv, reader, "push", "--sign", "--key", "hashivault://models", "--public-key", public, unpushed, smallModel(t, "x"))
	wantExit(t, r, 4, `the token needs "update" on transit/sign/models`)
	wantExit(t, runCLI(t, nil, "", "inspect", unpushed), 4)
	r, got = asked(t, srv, token, "push", "--sign", "--key", "hashivault://models", "--public-key", public, unpushed, smallModel(t, "x"))
	wantExit(t, r, 0)
	if want := map[string]int{lookup: 1, read: 1, sign: 2}; !maps.Equal(times(got), want) {
		t.Errorf("push asked %v, want %v", got, want)
	}
}

func times(paths []string) map[string]int {
	n := map[string]int{}
	for _, p := range paths {
		n[p]++
	}
	return n
}
