// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// kserveRig is a signed and an unsigned model, and a policy with the public key.
type kserveRig struct {
	*loginRig
	signed, unsigned string // references
	policy           string
}

func newKServeRig(t *testing.T) *kserveRig {
	t.Helper()
	r := &kserveRig{loginRig: newLoginRig(t)}
	r.signed, r.unsigned = r.ref(), strings.Replace(r.ref(), ":v1", "/unsigned:v1", 1)
	r.ok(r.push(map[string]string{"VAULT_TOKEN": r.srv.RootToken}))
	r.ok(r.run(t.Context(), nil, "", "push", r.unsigned, r.write("other.bin", "unsigned weights")))
	r.policy = fmt.Sprintf("version: 1\npolicies:\n- name: models\n  scopes: [%q]\n  keys:\n  - name: release\n    publicKey: |\n      %s\n",
		r.srv.Registry+"/**", strings.ReplaceAll(strings.TrimSpace(string(r.srv.PublicKeyPEM(t, r.id, 0))), "\n", "\n      "))
	r.proxy.Reset()
	r.watch(r.proxy)
	return r
}

// byPolicy is the environment that a ClusterStorageContainer sets.
func (r *kserveRig) byPolicy() map[string]string {
	return map[string]string{"AEGIS_POLICY": "env://MODEL_POLICY", "MODEL_POLICY": r.policy}
}

// isEmpty fails the test if the directory holds a file, or does not stand any more.
func isEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%s holds %v: %v", dir, entries, err)
	}
}

func TestKServeInitFetchesWhatIsSigned(t *testing.T) {
	r := newKServeRig(t)
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "models", "two")
	got := r.ok(r.run(t.Context(), r.byPolicy(), "", "kserve-init", "--format", "json", "aegis://"+r.signed, one, "aegis://"+r.signed, two))
	var result map[string][]struct {
		Verified bool   `json:"verified"`
		Policy   string `json:"policy"`
		Path     string `json:"path"`
	}
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil {
		t.Fatal(err)
	}
	if len(result) != 1 || len(result["models"]) != 2 {
		t.Fatalf("the result is %s", got.stdout)
	}
	for i, dir := range []string{one, two} {
		if m := result["models"][i]; !m.Verified || m.Policy != "models" || m.Path != dir {
			t.Errorf("model %d: %+v", i, m)
		}
		content, err := os.ReadFile(filepath.Join(dir, "weights.bin"))
		if err != nil || string(content) != "weights of "+r.id {
			t.Errorf("%s: %q %v", dir, content, err)
		}
	}
	if n := r.proxy.Count(""); n != 0 {
		t.Errorf("a public key needs no Vault, and it was asked %d times", n)
	}
	// A restarted container finds the model there.
	r.ok(r.run(t.Context(), r.byPolicy(), "", "kserve-init", "aegis://"+r.signed, one))
}

func TestKServeInitRefusesWhatIsUnsigned(t *testing.T) {
	r := newKServeRig(t)
	one, two := t.TempDir(), t.TempDir()
	got := r.run(t.Context(), r.byPolicy(), "", "kserve-init", "--format", "json", "aegis://"+r.signed, one, "aegis://"+r.unsigned, two)
	r.refused(got, exitRejected, "unsigned")
	isEmpty(t, two)
}

func TestKServeInitHasNoWayAroundVerification(t *testing.T) {
	r := newKServeRig(t)
	dir := t.TempDir()
	uri := "aegis://" + r.unsigned
	r.refused(r.run(t.Context(), nil, "", "kserve-init", "--format", "json", uri, dir), exitUsage, "usage", "needs to know what to trust")
	env := r.byPolicy()
	env["AEGIS_VERIFY"] = "false"
	r.refused(r.run(t.Context(), env, "", "kserve-init", "--format", "json", uri, dir), exitRejected, "unsigned")
	if got := r.run(t.Context(), r.byPolicy(), "", "kserve-init", "--verify=false", uri, dir); got.code != exitUsage || !strings.Contains(got.stderr, "unknown flag: --verify") {
		t.Errorf("--verify=false: exit code %d: %s", got.code, got.stderr)
	}
	isEmpty(t, dir)
}

func TestKServeInitRefusesArgumentsBeforeItAsksAnybody(t *testing.T) {
	r := newKServeRig(t)
	registry := servertest.FaultProxy(t, r.srv.Registry)
	dir := t.TempDir()
	uri := "aegis://" + registry.Addr + "/models/vad:v1"
	for _, c := range []struct {
		code, text string
		args       []string
	}{
		{"usage", "has no directory", []string{uri, dir, uri}},
		{"usage", "is no aegis:// URI", []string{"oci://" + registry.Addr + "/models/vad:v1", dir}},
		{"usage", "is no aegis:// URI", []string{registry.Addr + "/models/vad:v1", dir}},
		{"reference_invalid", "", []string{"aegis://", dir}},
		{"usage", "cannot share a directory", []string{uri, dir, uri, filepath.Join(dir, "lora")}},
		{"usage", "cannot share a directory", []string{uri, filepath.Join(dir, "lora"), uri, dir + "/."}},
		{"usage", "is empty", []string{uri, ""}},
		{"usage", "no number of bytes a second", []string{"--limit-rate", "fast", uri, dir}},
		{"usage", "no policy from standard input", []string{"--policy", "-", uri, dir}},
		{"usage", "at most 64", slices.Repeat([]string{uri, dir}, 65)},
	} {
		got := r.run(t.Context(), r.byPolicy(), "", append([]string{"kserve-init", "--format", "json"}, c.args...)...)
		r.refused(got, exitUsage, c.code, c.text)
	}
	if n := registry.Count(""); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	isEmpty(t, dir)
}

// TestKServeInitTrustsKServesCABundle has registry and Vault with one authority's
// certificates, which only the bundle names.
func TestKServeInitTrustsKServesCABundle(t *testing.T) {
	r := newLoginRig(t)
	tls := servertest.Stack(t, "-tls")
	r.secret(tls.RootToken)
	tls.TransitKey(t, "k", "ecdsa-p256")
	ref := tls.Registry + "/models/vad:v1"
	env := map[string]string{"VAULT_ADDR": tls.VaultAddr, "VAULT_TOKEN": tls.RootToken, "AEGIS_KEY": "hashivault://k"}
	r.ok(r.run(t.Context(), env, "", "push", "--sign", "--ca-file", tls.CAFile, "--vault-cacert", tls.CAFile, ref, r.write("w.bin", "weights")))

	dir := t.TempDir()
	without := func(flag string) loginRun {
		return r.run(t.Context(), env, "", "kserve-init", "--format", "json", flag, tls.CAFile, "aegis://"+ref, dir)
	}
	r.refused(without("--ca-file"), exitUndecided, "vault_tls")
	// On loopback, and without an authority to check by, HTTP is tried.
	r.refused(without("--vault-cacert"), exitUndecided, "registry_plain_http")
	isEmpty(t, dir)
	bundle := t.TempDir()
	env["CA_BUNDLE_CONFIGMAP_NAME"], env["CA_BUNDLE_VOLUME_MOUNT_POINT"] = "global-ca-bundle", bundle
	r.refused(r.run(t.Context(), env, "", "kserve-init", "--format", "json", "aegis://"+ref, dir), exitUsage, "usage", "CA bundle", "cabundle.crt")
	ca, err := os.ReadFile(tls.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "cabundle.crt"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	r.ok(r.run(t.Context(), env, "", "kserve-init", "aegis://"+ref, dir))
	if _, err := os.Stat(filepath.Join(dir, "w.bin")); err != nil {
		t.Error(err)
	}
}

func TestKServeInitReadsKServesDockerConfig(t *testing.T) {
	r := newLoginRig(t)
	const password = "a-password-for-this-test"
	r.secret(password)
	addr, _ := servertest.Distribution(t, servertest.Htpasswd(t, "pull", password))
	ref := addr + "/models/vad:v1"
	env := map[string]string{"VAULT_TOKEN": r.srv.RootToken, "AEGIS_KEY": r.key()}
	r.ok(r.run(t.Context(), env, "", "push", "--sign", "-u", "pull", "-p", password, ref, r.write("w.bin", "weights")))
	dir := t.TempDir()
	r.refused(r.run(t.Context(), env, "", "kserve-init", "--format", "json", "aegis://"+ref, dir), exitUndecided, "registry_unauthorized")
	isEmpty(t, dir)
	config, err := json.Marshal(map[string]any{"auths": map[string]any{addr: map[string]any{"username": "pull", "password": password}}})
	if err != nil {
		t.Fatal(err)
	}
	env["KSERVE_OCI_DOCKER_CONFIG"] = r.write("config.json", string(config))
	r.ok(r.run(t.Context(), env, "", "kserve-init", "aegis://"+ref, dir))
}

func TestPolicyComesFromEnvironmentOrStandardInput(t *testing.T) {
	r := newKServeRig(t)
	verify := func(env map[string]string, stdin string, args ...string) loginRun {
		return r.run(t.Context(), env, stdin, append([]string{"verify", "--format", "json", r.signed}, args...)...)
	}
	r.ok(verify(r.byPolicy(), ""))
	r.ok(verify(r.byPolicy(), "", "--policy", "env://MODEL_POLICY"))
	r.ok(verify(nil, r.policy, "--policy", "-"))

	for _, c := range []struct {
		text, policy, stdin string
		args                []string
	}{
		{"empty or not set", "", "", []string{"--policy", "env://MODEL_POLICY"}},
		{"empty or not set", "", "", []string{"--policy", "env://"}},
		{"both read standard input", "", r.policy, []string{"--policy", "-", "-u", "ci", "--password-stdin"}},
		{"more than", "", strings.Repeat("#", maxPolicyFile+1), []string{"--policy", "-"}},
	} {
		r.refused(verify(map[string]string{"MODEL_POLICY": c.policy}, c.stdin, c.args...), exitUsage, "usage", c.text)
	}
}
