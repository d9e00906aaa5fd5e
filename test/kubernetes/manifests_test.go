// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	exampleDir    = "examples/k8s/vault/"
	mainExample   = exampleDir + "serviceaccount-and-deployment-example.yaml"
	policyExample = exampleDir + "kubernetes-auth.yaml"
	agentExample  = exampleDir + "vault-agent-injector.yaml"
	secretExample = exampleDir + "image-pull-secrets.yaml"
	caExample     = exampleDir + "corporate-ca-and-proxy.yaml"
	reviewer      = exampleDir + "token-reviewer.yaml"
	kserveExample = "examples/kserve/clusterstoragecontainer.yaml"
)

// The names in the examples that stand for a reader's own.
const (
	exampleRef   = "registry.example.com/models/vad:v1"
	exampleVault = "https://vault.example.com:8200"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// object is one Kubernetes object, as JSON has it.
type object = map[string]any

// documents reads a file of examples, after replacing words in its text.
func documents(t *testing.T, file string, replace ...string) []object {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s does not hold %q", file, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	var all []object
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, o)
	}
}

// in walks through nested objects and lists.
func in[T any](t *testing.T, o any, path ...any) T {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			o = o.(object)[s]
		case int:
			o = o.([]any)[s]
		}
	}
	v, ok := o.(T)
	if !ok {
		t.Fatalf("%v is a %T", path, o)
	}
	return v
}

func encode(t *testing.T, objects ...object) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, o := range objects {
		if err := json.NewEncoder(&b).Encode(o); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// deployment is an example made ready to run here.
type deployment struct {
	name   string
	others []object // what stands beside it in the file
	object object
}

// deploymentOf takes the Deployment out of an example and gives it images that are
// here, the host's network, and a name of its own.
func deploymentOf(t *testing.T, name, file string, replace ...string) *deployment {
	t.Helper()
	d := &deployment{name: name}
	for _, o := range documents(t, file, replace...) {
		if o["kind"] != "Deployment" {
			d.others = append(d.others, o)
			continue
		}
		d.object = o
	}
	in[object](t, d.object, "metadata")["name"] = name
	label := object{"app.kubernetes.io/name": name}
	in[object](t, d.object, "metadata")["labels"] = label
	in[object](t, d.object, "spec", "selector")["matchLabels"] = label
	in[object](t, d.object, "spec", "template", "metadata")["labels"] = label
	spec := d.pod(t)
	spec["hostNetwork"] = true
	spec["terminationGracePeriodSeconds"] = 1
	d.init(t)["image"], d.init(t)["imagePullPolicy"] = aegisImage, "Never"
	app := in[object](t, spec, "containers", 0)
	app["image"], app["imagePullPolicy"] = workloadName, "Never"
	// Many pods share two cores here; what they ask for is not what is tested.
	for _, c := range []object{d.init(t), app} {
		in[object](t, c, "resources", "requests")["cpu"] = "10m"
	}
	d.setenv(t, "AEGIS_FORMAT", "json")
	return d
}

func (d *deployment) pod(t *testing.T) object {
	return in[object](t, d.object, "spec", "template", "spec")
}

func (d *deployment) init(t *testing.T) object { return in[object](t, d.pod(t), "initContainers", 0) }

func (d *deployment) setenv(t *testing.T, name, value string) {
	c := d.init(t)
	c["env"] = append(in[[]any](t, c, "env"), object{"name": name, "value": value})
}

// replaceArg changes one argument of the init container.
func (d *deployment) replaceArg(t *testing.T, old, new string) {
	t.Helper()
	args := in[[]any](t, d.init(t), "args")
	i := slices.Index(args, any(old))
	if i < 0 {
		t.Fatalf("no argument %q in %v", old, args)
	}
	args[i] = new
}

// podOf is the pod that a Deployment would make, unchanged.
func podOf(t *testing.T, deployment object, namespace string) object {
	t.Helper()
	name := in[string](t, deployment, "metadata", "name")
	template := in[object](t, deployment, "spec", "template")
	metadata := maps.Clone(in[object](t, template, "metadata"))
	metadata["name"], metadata["namespace"] = name, namespace
	return object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
}
