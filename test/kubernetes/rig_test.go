// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

const (
	keyName    = "aegis-model-sign"
	policyName = "aegis-transit-policy"
	roleName   = "aegis-k8s-role"
)

// The smallest policy: one key, and the token's own look and end.
const transitPolicy = `
path "transit/sign/aegis-model-sign" { capabilities = ["update"] }
path "transit/verify/aegis-model-sign" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
`

// rig is the node, a Vault that trusts its service accounts, and a registry.
type rig struct {
	*node
	vault    *servertest.Server
	registry *servertest.Server
	program  string
	model    string            // directory
	files    map[string]string // its digests
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{node: startNode(t), vault: servertest.Vault(t), registry: servertest.Stack(t, "-no-vault"), model: t.TempDir()}
	images := t.TempDir()
	r.ctr(t, "images", "import", aegisImageArchive(t, images))
	r.program = filepath.Join(images, "stage", "out", "aegis-oci")
	r.writeModel(t)
	for _, o := range documents(t, mainExample) {
		if o["kind"] == "ServiceAccount" {
			r.kubectl(t, encode(t, o), "apply", "-f", "-")
		}
	}
	r.kubectl(t, encode(t, documents(t, reviewer)...), "apply", "-f", "-")
	r.setUp(t, r.vault)
	return r
}

// setUp has the operator's own command write what Vault needs, and runs it with
// HashiCorp's CLI.
func (r *rig) setUp(t *testing.T, vault *servertest.Server) {
	t.Helper()
	plan := exec.Command(r.program, "vault", "setup", "kubernetes", "--verify-only", "--kubernetes-host", r.server, "--kubernetes-ca", r.caFile)
	plan.Env = []string{"HOME=" + t.TempDir()}
	script, err := plan.Output()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command("/bin/sh", "-s")
	run.Stdin = bytes.NewReader(script)
	run.Env = append(vault.VaultEnv(t), "VAULT_TOKEN="+vault.RootToken, "VAULT_CLI="+servertest.VaultProgram(t))
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("the script of vault setup: %v\n%s", err, out)
	}
	vault.TransitKey(t, "other", "ecdsa-p256")
	r.writeReviewer(t, vault)
}

// writeReviewer tells Vault with which token to review others.
func (r *rig) writeReviewer(t *testing.T, vault *servertest.Server) {
	t.Helper()
	ca, err := os.ReadFile(r.caFile)
	if err != nil {
		t.Fatal(err)
	}
	vault.Write(t, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": r.server, "kubernetes_ca_cert": string(ca),
		"token_reviewer_jwt": strings.TrimSpace(r.kubectl(t, nil, "create", "token", "vault-token-reviewer")),
	})
}

// trustCluster is setUp for a further Vault, without the seconds that the CLI takes.
func (r *rig) trustCluster(t *testing.T, vault *servertest.Server) {
	t.Helper()
	vault.TransitKey(t, keyName, "ecdsa-p256")
	vault.Policy(t, policyName, transitPolicy)
	vault.Write(t, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	r.writeReviewer(t, vault)
	vault.Write(t, "auth/kubernetes/role/"+roleName, map[string]any{
		"audience": "vault", "bound_service_account_names": "aegis-app", "bound_service_account_namespaces": "default",
		"token_policies": policyName, "token_no_default_policy": true, "token_ttl": "10m",
	})
}

func (r *rig) writeModel(t *testing.T) {
	t.Helper()
	r.files = make(map[string]string)
	weights := make([]byte, 16<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(weights)
	for name, content := range map[string][]byte{
		"model.onnx": weights, "README.md": []byte("# A model\n"), "config.json": []byte("{\"model_type\": \"vad\"}\n"),
	} {
		if err := os.WriteFile(filepath.Join(r.model, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		r.files[name] = "sha256:" + hex.EncodeToString(sum[:])
	}
}

// push puts the model under the reference, signed with the Transit key, or not at
// all if it is "". It returns the reference by digest.
func (r *rig) push(t *testing.T, vault *servertest.Server, ref, key string, flags ...string) string {
	t.Helper()
	args := []string{"push", "--format", "json"}
	if key != "" {
		args = append(args, "--sign", "--key", "hashivault://"+key)
	}
	cmd := exec.Command(r.program, append(append(args, flags...), ref, r.model)...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "VAULT_ADDR=" + vault.VaultAddr,
		"VAULT_TOKEN=" + vault.Token(t, map[string]any{"ttl": "5m"})}
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if e, ok := err.(*exec.ExitError); ok {
			stderr = e.Stderr
		}
		t.Fatalf("push %s: %v\n%s%s", ref, err, out, stderr)
	}
	var result struct{ Reference string }
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return result.Reference
}

// pod is what matters of a pod's status.
type pod struct {
	Metadata struct{ Name, UID string }
	Status   struct {
		Phase                 string
		InitContainerStatuses []container
		ContainerStatuses     []container
	}
}

type container struct {
	Name         string
	Ready        bool
	RestartCount int
	ContainerID  string
	State        state
	LastState    state
}

type state struct {
	Running    *struct{ StartedAt time.Time }
	Waiting    *struct{ Reason, Message string }
	Terminated *terminated
}

type terminated struct {
	ExitCode        int
	Reason, Message string
}

// failed returns the end of the container's first or current failure.
func (c container) failed() *terminated {
	for _, s := range []state{c.State, c.LastState} {
		if s.Terminated != nil && s.Terminated.ExitCode != 0 {
			return s.Terminated
		}
	}
	return nil
}

// run applies a deployment, which ends with the test.
func (r *rig) run(t *testing.T, d *deployment) {
	t.Helper()
	r.kubectl(t, encode(t, append(d.others, d.object)...), "apply", "-f", "-")
	t.Cleanup(func() { r.kubectl(t, nil, "delete", "deployment", d.name, "--wait=false") })
}

// await polls a deployment's pod until done accepts it.
func (r *rig) await(t *testing.T, d *deployment, what string, within time.Duration, done func(pod) bool) pod {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		var list struct{ Items []pod }
		r.get(t, "/api/v1/namespaces/default/pods?labelSelector=app.kubernetes.io%2Fname%3D"+d.name, &list)
		if len(list.Items) == 1 && done(list.Items[0]) {
			return list.Items[0]
		}
		if time.Now().After(deadline) {
			out, _, _ := r.tryKubectl(nil, "describe", "pod", "-l", "app.kubernetes.io/name="+d.name)
			logs, errs, _ := r.tryKubectl(nil, "logs", "-l", "app.kubernetes.io/name="+d.name, "--all-containers", "--prefix")
			t.Fatalf("%s: not %s after %s\n%s\n%s%s", d.name, what, within, out, logs, errs)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// awaitRunning waits until the application's container runs.
func (r *rig) awaitRunning(t *testing.T, d *deployment, within time.Duration) pod {
	t.Helper()
	return r.await(t, d, "running", within, func(p pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready
	})
}

// awaitRefused waits until the named init container has failed, and holds the pod
// to what a refusal means: the application has not started, and not a file of the
// model is in the volume.
func (r *rig) awaitRefused(t *testing.T, d *deployment, within time.Duration) (pod, terminated) {
	t.Helper()
	var end *terminated
	p := r.await(t, d, "refused", within, func(p pod) bool {
		for _, c := range p.Status.InitContainerStatuses {
			if c.Name == "fetch-model" || c.Name == "storage-initializer" {
				end = c.failed()
			}
		}
		return end != nil
	})
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Running != nil || c.LastState.Terminated != nil || c.RestartCount > 0 {
			t.Errorf("%s: the application was started: %+v", d.name, c)
		}
	}
	for _, file := range r.volume(t, p) {
		t.Errorf("%s: %s was left in the volume", d.name, file)
	}
	return p, *end
}

// volume lists the files of the pod's emptyDir that have their final names.
func (r *rig) volume(t *testing.T, p pod) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(r.dir, "kubelet", "pods", p.Metadata.UID, "volumes", "kubernetes.io~empty-dir", "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("pod %s has no emptyDir: %v", p.Metadata.Name, err)
	}
	var files []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && strings.HasPrefix(entry.Name(), ".aegis-") {
				return filepath.SkipDir
			}
			if !entry.IsDir() {
				files = append(files, strings.TrimPrefix(path, dir+"/"))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func (r *rig) logs(t *testing.T, p pod, container string, flags ...string) string {
	t.Helper()
	return r.kubectl(t, nil, append([]string{"logs", p.Metadata.Name, "-c", container}, flags...)...)
}
