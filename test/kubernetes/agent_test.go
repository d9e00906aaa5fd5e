// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

const injector = "vault.hashicorp.com/"

// testAgent adds to the pod what the Agent Injector would, as the example's own
// annotations say: HashiCorp's vault agent in an init container before ours, which
// logs in with the projected token and leaves its token in memory.
func testAgent(t *testing.T, r *rig) {
	r.ctr(t, "images", "import", agentImage(t))
	vault := servertest.Vault(t)
	r.trustCluster(t, vault)
	repo := r.registry.Registry + "/models/agent"
	r.push(t, vault, repo+":v1", keyName)
	d := deploymentOf(t, "agent", agentExample, exampleRef, repo+":v1", exampleVault, vault.VaultAddr)
	r.inject(t, d, vault.VaultAddr)
	r.run(t, d)
	p := r.awaitRunning(t, d, 2*time.Minute)
	r.holdsModel(t, r.app(t, p))

	login, verified, revoked := answers(t, vault, "auth/kubernetes/login"), answers(t, vault, "transit/verify/"+keyName), answers(t, vault, "auth/token/revoke-self")
	if len(login) != 1 || len(verified) == 0 {
		t.Fatalf("the audit log has %d logins, %d verifications", len(login), len(verified))
	}
	last := verified[len(verified)-1]
	ttl := podTTL(t, last)
	// Both used one token: it was handed over, and not ours to revoke.
	if len(revoked) != 0 || login[0].auth["accessor"] != last.auth["accessor"] || last.auth["accessor"] == nil {
		t.Errorf("login with accessor %v, verify with %v, %d revocations", login[0].auth["accessor"], last.auth["accessor"], len(revoked))
	}
	prove(t, podsVerify, "Vault Agent as injected: login %s, token handed over, transit/verify %s", login[0].at.Format(stamp), last.at.Format(stamp))
	prove(t, auditShows, "verify with the agent's token, TTL %s", ttl)
}

// inject does what vault-k8s does with these annotations.
func (r *rig) inject(t *testing.T, d *deployment, vaultAddr string) {
	t.Helper()
	annotations := in[object](t, d.object, "spec", "template", "metadata", "annotations")
	note := func(name string) string { return in[string](t, annotations, injector+name) }
	if note("agent-inject") != "true" || note("agent-init-first") != "true" || note("agent-pre-populate-only") != "true" || note("agent-inject-token") != "true" {
		t.Fatalf("annotations %v", annotations)
	}
	const tokenMount = "/var/run/secrets/vault.hashicorp.com/serviceaccount"
	config, err := json.Marshal(object{
		"auto_auth": object{
			"method": object{"type": "kubernetes", "mount_path": "auth/kubernetes",
				"config": object{"role": note("role"), "token_path": tokenMount + "/token"}},
			"sink": []any{object{"type": "file", "config": object{"path": "/home/vault/.vault-token"}}},
		},
		"exit_after_auth": true, "pid_file": "/home/vault/.pid", "vault": object{"address": vaultAddr},
		"template": []any{object{
			"destination": "/vault/secrets/token", "perms": note("agent-inject-perms-token"),
			"contents": `{{ with secret "auth/token/lookup-self" }}{{ .Data.id }}{{ "\n" }}{{ end }}`,
		}},
		"template_config": object{"exit_on_retry_failure": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) int {
		n, err := strconv.Atoi(note(name))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	mount := func(name, path string) object { return object{"name": name, "mountPath": path} }
	agent := object{
		"name": "vault-agent-init", "image": vaultImage, "imagePullPolicy": "Never",
		"command": []any{"/bin/sh", "-ec"},
		"args":    []any{"echo ${VAULT_CONFIG?} | base64 -d > /home/vault/config.json && vault agent -config=/home/vault/config.json"},
		"env": []any{
			object{"name": "VAULT_CONFIG", "value": base64.StdEncoding.EncodeToString(config)},
			object{"name": "HOME", "value": "/home/vault"},
		},
		"resources": object{"requests": object{"cpu": "10m", "memory": "64Mi"}, "limits": object{"cpu": "2", "memory": "512Mi"}},
		"securityContext": object{
			"runAsUser": number("agent-run-as-user"), "runAsGroup": number("agent-run-as-group"), "runAsNonRoot": true,
			"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": object{"drop": []any{"ALL"}},
		},
		"volumeMounts": []any{
			mount("home-init", "/home/vault"), mount("vault-secrets", "/vault/secrets"),
			mount(note("agent-service-account-token-volume-name"), tokenMount),
		},
	}
	spec := d.pod(t)
	memory := object{"medium": "Memory"}
	spec["volumes"] = append(in[[]any](t, spec, "volumes"),
		object{"name": "home-init", "emptyDir": memory}, object{"name": "vault-secrets", "emptyDir": memory})
	for _, c := range []object{d.init(t), in[object](t, spec, "containers", 0)} {
		c["volumeMounts"] = append(in[[]any](t, c, "volumeMounts"), mount("vault-secrets", "/vault/secrets"))
	}
	spec["initContainers"] = append([]any{agent}, in[[]any](t, spec, "initContainers")...)
}

// agentImage puts vault and busybox into an image.
func agentImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "context", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v: test/kubernetes/node/build.sh installs it", err)
	}
	for from, to := range map[string]string{busybox: "busybox", servertest.VaultProgram(t): "vault"} {
		if err := link(from, filepath.Join(bin, to)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "base64", "echo"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	archive, err := image(dir, vaultImage, "--file", "agent/Dockerfile", filepath.Join(dir, "context"))
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// link avoids a copy of some hundred megabytes where one file system holds both.
func link(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}
