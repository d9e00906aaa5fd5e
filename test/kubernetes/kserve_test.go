// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// kservePod merges the example's container into KServe's own, as its webhook does
// (storage_initializer_injector.go): a list of arguments would be replaced, and
// mounts and variables are joined.
func (r *rig) kservePod(t *testing.T, name string, registry *servertest.Server, uri string) *deployment {
	t.Helper()
	c := in[object](t, documents(t, kserveExample)[0], "spec", "container")
	if c["args"] != nil || c["name"] != "storage-initializer" {
		t.Fatalf("container %v with arguments %v", c["name"], c["args"])
	}
	ca, err := os.ReadFile(registry.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range in[[]any](t, c, "env") {
		if v := v.(object); v["name"] == "MODEL_POLICY" {
			v["value"] = kservePolicy(t, v["value"].(string), registry.Registry, string(r.vault.PublicKeyPEM(t, keyName, 0)))
		}
	}
	mount := func(volume, path string, readOnly bool) object {
		return object{"name": volume, "mountPath": path, "readOnly": readOnly}
	}
	c["args"] = []any{uri, "/mnt/models"}
	c["volumeMounts"] = []any{mount("kserve-provision-location", "/mnt/models", false), mount("cabundle-cert", "/etc/ssl/custom-certs", true)}
	c["env"] = append(in[[]any](t, c, "env"), object{"name": "CA_BUNDLE_CONFIGMAP_NAME", "value": "global-ca-bundle"},
		object{"name": "CA_BUNDLE_VOLUME_MOUNT_POINT", "value": "/etc/ssl/custom-certs"})

	d := deploymentOf(t, name, mainExample)
	d.others = []object{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "global-ca-bundle", "namespace": "default"},
		"data": object{"cabundle.crt": string(ca)}}}
	spec := d.pod(t)
	spec["initContainers"] = []any{c}
	spec["volumes"] = []any{object{"name": "kserve-provision-location", "emptyDir": object{}},
		object{"name": "cabundle-cert", "configMap": object{"name": "global-ca-bundle"}}}
	app := in[object](t, spec, "containers", 0)
	app["args"] = []any{"serve", "/mnt/models"}
	app["volumeMounts"] = []any{mount("kserve-provision-location", "/mnt/models", true)}
	c["image"], c["imagePullPolicy"] = aegisImage, "Never"
	in[object](t, c, "resources", "requests")["cpu"] = "10m"
	d.setenv(t, "AEGIS_FORMAT", "json")
	return d
}

var pemLines = regexp.MustCompile(`(?s)( *)-----BEGIN PUBLIC KEY-----.*-----END PUBLIC KEY-----`)

func kservePolicy(t *testing.T, policy, registry, key string) string {
	t.Helper()
	m := pemLines.FindStringSubmatch(policy)
	if m == nil || !strings.Contains(policy, "registry.example.com/") {
		t.Fatalf("the example's policy is %s", policy)
	}
	indented := m[1] + strings.ReplaceAll(strings.TrimSpace(key), "\n", "\n"+m[1])
	policy = strings.Replace(policy, m[0], indented, 1)
	return strings.ReplaceAll(policy, "registry.example.com/", registry+"/")
}
