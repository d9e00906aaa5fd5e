// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installPlugin has notation install the plugin from an archive, as a release is.
func (r *rig) installPlugin(t *testing.T) {
	t.Helper()
	program, err := filepath.Abs(filepath.Join("..", "..", "bin", "notation-aegis"))
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "notation-aegis.tar.gz")
	if out, err := exec.Command("tar", "-C", filepath.Dir(program), "-czf", archive, "notation-aegis").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	r.must(t, "tools/notation", "plugin", "install", "--file", archive)
	if got := r.must(t, "tools/notation", "plugin", "ls"); !strings.Contains(got, "aegis") {
		t.Errorf("notation plugin ls:\n%s", got)
	}
}

// notationSign has notation sign with the plugin.
func (r *rig) notationSign(t *testing.T, id, format, ref string, args ...string) result {
	t.Helper()
	tag := "--force-referrers-tag=false"
	if r.storage != "" {
		tag = "--force-referrers-tag=true"
	}
	args = append([]string{"sign", "--insecure-registry", tag, "--plugin", "aegis", "--id", id, "--signature-format", format}, append(args, ref)...)
	return run(t, r.command(t, "tools/notation", args...))
}

func TestNotationSignsWithThePlugin(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		for _, typ := range keyTypes {
			if typ.name == "ed25519" {
				continue
			}
			t.Run(typ.name, func(t *testing.T) {
				key, public := r.key(t, "", typ.name)
				r.notary(t, r.certificate(t, key), acme, nil)
				r.installPlugin(t)
				id := "transit/" + strings.TrimPrefix(key, "hashivault://")
				for _, format := range []string{"jws", "cose"} {
					ref := r.push(t, r.repo(t, "-"+format)+":v1")
					accepts(t, "notation sign", r.notationSign(t, id, format, ref, "-m", "stage=prod", "-e", "24h"))
					accepts(t, "notation verify", r.notationVerify(t, ref, "-m", "stage=prod"))
					r.aegis(t, exitOK, "verify", "--key", public, "-a", "stage=prod", ref)
					r.aegis(t, exitRejected, "verify", "--key", public, "-a", "stage=dev", ref)
				}
			})
		}
	})
}

// A token that may only sign needs the certificate and nothing else.
func TestPluginWithATokenThatMayOnlySign(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		name := strings.TrimPrefix(key, "hashivault://")
		cert := r.certificate(t, key)
		r.notary(t, cert, acme, nil)
		r.installPlugin(t)
		r.vault.Policy(t, name, `path "transit/sign/`+name+`" { capabilities = ["update"] }`)
		token := r.vault.Token(t, map[string]any{"policies": []string{name}, "no_default_policy": true, "ttl": "10m"})
		ref := r.push(t, r.repo(t, "")+":v1")
		sign := func(args ...string) result {
			cmd := r.command(t, "tools/notation", append([]string{"sign", "--insecure-registry", "--force-referrers-tag=" + map[bool]string{true: "true", false: "false"}[r.storage != ""],
				"--plugin", "aegis", "--id", name}, append(args, ref)...)...)
			cmd.Env = append(cmd.Env, "VAULT_TOKEN="+token)
			return run(t, cmd)
		}
		refuses(t, "without the certificate", sign(), "Vault denied it")
		accepts(t, "with the certificate", sign("--plugin-config", "certChain="+cert, "--plugin-config", "keySpec=EC-256"))
		accepts(t, "notation verify", r.notationVerify(t, ref))
		r.aegis(t, exitOK, "verify", "--key", public, ref)
	})
}

// After a rotation the newest version that has a certificate signs.
func TestPluginSignsWithTheNewestCertifiedVersion(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		name := strings.TrimPrefix(key, "hashivault://")
		r.notary(t, r.certificate(t, key), acme, nil)
		r.installPlugin(t)
		r.vault.RotateKey(t, name)
		ref := r.push(t, r.repo(t, "")+":v1")
		accepts(t, "notation sign", r.notationSign(t, name, "jws", ref))
		accepts(t, "notation verify", r.notationVerify(t, ref))
		refuses(t, "a version that is not there", r.notationSign(t, name+":9", "jws", ref), "version 9 is not there")
		accepts(t, "the version with one", r.notationSign(t, name+":1", "cose", ref))
	})
}

// invoke runs the plugin itself; the stream must hold JSON and nothing else.
func (r *rig) invoke(t *testing.T, stdin, command string, env ...string) (code int, answer map[string]any) {
	t.Helper()
	cmd := r.command(t, "notation-aegis", command)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin = strings.NewReader(stdin)
	got := run(t, cmd)
	text := got.stdout
	if got.code != 0 {
		if text = got.stderr; got.stdout != "" {
			t.Errorf("a failure with stdout %q", got.stdout)
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("exit %d, not JSON: %q %q", got.code, got.stdout, got.stderr)
	}
	return got.code, answer
}

func TestPluginsErrorCodes(t *testing.T) {
	r := withReferrers(t)
	key, _ := r.key(t, "", "ecdsa-p256")
	name := strings.TrimPrefix(key, "hashivault://")
	cert := r.certificate(t, key)
	wrapped := filepath.Join(t.TempDir(), "wrapped")
	write(t, wrapped, []byte("x"))
	sign := func(id, config string) string {
		return `{"contractVersion":"1.0","keyId":"` + id + `","keySpec":"EC-256","hashAlgorithm":"SHA-256","payload":"YQ==","pluginConfig":{` + config + `}}`
	}
	for what, c := range map[string]struct {
		request, env, code string
	}{
		"no such key":             {sign("nowhere", ""), "", "VALIDATION_ERROR"},
		"no such version":         {sign(name+":7", ""), "", "VALIDATION_ERROR"},
		"a malformed key id":      {sign("a b", ""), "", "VALIDATION_ERROR"},
		"a version of no form":    {sign(name+":x", ""), "", "VALIDATION_ERROR"},
		"an unknown setting":      {sign(name, `"token":"x"`), "", "VALIDATION_ERROR"},
		"a missing certificate":   {sign(name, `"certChain":"/nowhere.pem"`), "", "VALIDATION_ERROR"},
		"a bad token":             {sign(name, ""), "VAULT_TOKEN=hvs.nonsense", "ACCESS_DENIED"},
		"no token at all":         {sign(name, ""), "VAULT_TOKEN=", "ACCESS_DENIED"},
		"a method without role":   {sign(name, `"auth":"jwt"`), "", "VALIDATION_ERROR"},
		"plain HTTP to strangers": {sign(name, `"vaultAddr":"http://vault.example.com:8200"`), "", "VALIDATION_ERROR"},
		"a wrapped secret_id":     {sign(name, `"auth":"approle"`), "AEGIS_VAULT_WRAPPED_SECRET_ID_FILE=" + wrapped, "VALIDATION_ERROR"},
	} {
		code, answer := r.invoke(t, c.request, "generate-signature", c.env)
		if code != 1 || answer["errorCode"] != c.code {
			t.Errorf("%s: exit %d, %v, want %s", what, code, answer, c.code)
		}
		if text, _ := json.Marshal(answer); strings.Contains(string(text), "hvs.") {
			t.Errorf("%s: a token is in %s", what, text)
		}
	}
	// describe-key needs no Vault when the configuration says it all.
	code, answer := r.invoke(t, `{"contractVersion":"1.0","keyId":"k","pluginConfig":{"certChain":"`+cert+`"}}`, "describe-key", "VAULT_TOKEN=", "VAULT_ADDR=")
	if code != 0 || answer["keySpec"] != "EC-256" || answer["keyId"] != "k" {
		t.Errorf("describe-key: exit %d, %v", code, answer)
	}
	if _, err := os.Stat(wrapped); err != nil {
		t.Error(err)
	}
}
