// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kserveModule is where KServe's own definition of a ClusterStorageContainer is
// read from; none of its code is built.
const kserveModule = "github.com/kserve/kserve@v0.17.0"

func kserveDefinition(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", kserveModule)
	cmd.Dir = t.TempDir() // outside of any module
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod download %s: %v\n%s", kserveModule, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(module.Dir, "config", "crd", "full", "clusterstoragecontainer", "serving.kserve.io_clusterstoragecontainers.yaml")
}

// TestEveryManifestIsAcceptedByTheAPIServer sends each file as it stands, with
// unknown fields refused, to the real API server.
func TestEveryManifestIsAcceptedByTheAPIServer(t *testing.T) {
	n := startNode(t)
	n.kubectl(t, nil, "apply", "--server-side", "-f", kserveDefinition(t))
	n.kubectl(t, nil, "wait", "--for=condition=Established", "--timeout=30s", "crd/clusterstoragecontainers.serving.kserve.io")
	files, err := filepath.Glob(filepath.Join(root, exampleDir, "*.yaml"))
	if err != nil || len(files) < 6 {
		t.Fatalf("only %v: %v", files, err)
	}
	for _, file := range append(files, filepath.Join(root, kserveExample)) {
		out, errs, err := n.tryKubectl(nil, "apply", "--dry-run=server", "--validate=strict", "-f", file)
		if err != nil || !strings.Contains(out, "server dry run") || strings.Contains(errs, "Warning") {
			t.Errorf("%s: %v\n%s%s", file, err, out, errs)
		}
	}
	// The check can fail: a field that does not exist is refused.
	bad := encode(t, podOf(t, deploymentOf(t, "bad", mainExample).object, "default"))
	bad = []byte(strings.Replace(string(bad), "readOnlyRootFilesystem", "readOnlyRootFileSystem", 1))
	if out, errs, err := n.tryKubectl(bad, "apply", "--dry-run=server", "--validate=strict", "-f", "-"); err == nil || !strings.Contains(errs, "unknown field") {
		t.Errorf("a misspelt field is accepted: %s%s", out, errs)
	}
}

// TestEveryPodMeetsTheRestrictedStandard asks the API server's own admission for
// the pods of all examples, in a namespace that enforces the strictest standard.
func TestEveryPodMeetsTheRestrictedStandard(t *testing.T) {
	n := startNode(t)
	const namespace = "restricted"
	n.kubectl(t, encode(t, object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{
		"name": namespace, "labels": object{"pod-security.kubernetes.io/enforce": "restricted"},
	}}), "apply", "-f", "-")
	n.kubectl(t, nil, "-n", namespace, "create", "serviceaccount", "aegis-app")
	checked := 0
	for _, file := range []string{mainExample, policyExample, agentExample, secretExample, caExample} {
		for _, o := range documents(t, file) {
			if o["kind"] != "Deployment" {
				continue
			}
			pod := podOf(t, o, namespace)
			if _, errs, err := n.tryKubectl(encode(t, pod), "apply", "--dry-run=server", "-f", "-"); err != nil {
				t.Errorf("%s: %s", file, errs)
			}
			checked++
			delete(in[object](t, pod, "spec", "initContainers", 0, "securityContext"), "capabilities")
			if _, errs, err := n.tryKubectl(encode(t, pod), "apply", "--dry-run=server", "-f", "-"); err == nil || !strings.Contains(errs, "PodSecurity") {
				t.Errorf("%s: admitted with all capabilities: %s", file, errs)
			}
		}
	}
	container := in[object](t, documents(t, kserveExample)[0], "spec", "container")
	pod := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "kserve", "namespace": namespace},
		"spec": object{"containers": []any{container}}}
	if _, errs, err := n.tryKubectl(encode(t, pod), "apply", "--dry-run=server", "-f", "-"); err != nil {
		t.Errorf("%s: %s", kserveExample, errs)
	}
	if checked != 5 {
		t.Errorf("%d pods checked", checked)
	}
}
