// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// testPullSecret has a registry that lets nobody in without credentials, and that
// has no referrers API.
func testPullSecret(t *testing.T, r *rig) {
	const user, password = "pull", "a-password-for-this-test"
	addr, _ := servertest.Distribution(t, servertest.Htpasswd(t, user, password))
	repo := addr + "/models/private"
	r.push(t, r.vault, repo+":v1", keyName, "--username", user, "--password", password)
	d := deploymentOf(t, "private", secretExample, exampleRef, repo+":v1", exampleVault, r.vault.VaultAddr)
	// Without the secret in place the pod waits for it; with a wrong one it is refused.
	r.kubectl(t, nil, "create", "secret", "docker-registry", "registry-pull", "--docker-server="+addr, "--docker-username="+user, "--docker-password=wrong")
	r.run(t, d)
	p, end := r.awaitRefused(t, d, time.Minute)
	r.isReason(t, p, end, 4, "registry_unauthorized")
	r.kubectl(t, nil, "delete", "secret", "registry-pull")
	r.kubectl(t, nil, "create", "secret", "docker-registry", "registry-pull", "--docker-server="+addr, "--docker-username="+user, "--docker-password="+password)
	r.kubectl(t, nil, "delete", "pod", p.Metadata.Name, "--wait=true")
	p = r.awaitRunning(t, d, time.Minute)
	s := r.app(t, p)
	r.holdsModel(t, s)
	r.hidesFrom(t, password)
	prove(t, private, "a pull secret opens the registry to the init container, and is in no object but the Secret")
}

// hidesFrom fails the test if a secret is in what the cluster keeps, Secrets aside.
func (r *rig) hidesFrom(t *testing.T, secret string) {
	t.Helper()
	if strings.Contains(r.kubectl(t, nil, "get", "pods,events,deployments,configmaps", "--all-namespaces", "-o", "json"), secret) {
		t.Error("the secret is in an object of the cluster that is no Secret")
	}
}

var longLived = regexp.MustCompile(`hv[sb]\.[A-Za-z0-9_-]{20}|-----BEGIN [A-Z ]*PRIVATE KEY|VAULT_TOKEN|eyJ[A-Za-z0-9_-]{20,}\.eyJ`)

// keepsNothingLongLived reads every Secret, decoded, and every other object that
// the scenarios have made, for Vault tokens, private keys and JWTs.
func (r *rig) keepsNothingLongLived(t *testing.T) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Namespace, Name string }
			Data     map[string][]byte
		}
	}
	if err := json.Unmarshal([]byte(r.kubectl(t, nil, "get", "secrets", "--all-namespaces", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		for name, value := range s.Data {
			if found := longLived.Find(value); found != nil {
				t.Errorf("Secret %s/%s, key %s, holds %.12s...", s.Metadata.Namespace, s.Metadata.Name, name, found)
			}
		}
	}
	rest := r.kubectl(t, nil, "get", "pods,events,deployments,replicasets,configmaps,serviceaccounts", "--all-namespaces", "-o", "json")
	if found := longLived.FindString(rest); found != "" {
		t.Errorf("an object of the cluster holds %.12s...", found)
	}
	// The pattern finds what it is for.
	if !longLived.MatchString(r.vault.RootToken) {
		t.Errorf("a Vault token is not recognised")
	}
	prove(t, noSecretKept, "%d Secrets and %d bytes of the cluster's other objects hold no Vault token, private key or JWT", len(list.Items), len(rest))
}

// testCorporate reaches a registry with a private authority's certificate through a
// proxy that alone knows where it is, and Vault without the proxy.
func testCorporate(t *testing.T, r *rig) {
	company := newCompany(t)
	registry := company.front(t, "registry.example.com", r.registry.RegistryURL())
	vault := company.front(t, "vault.example.com", r.vault.VaultAddr)
	proxy := company.proxy(t, map[string]string{"registry.example.com:443": registry})
	r.push(t, r.vault, r.registry.Registry+"/models/vad:v1", keyName)
	r.kubectl(t, encode(t, object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "corporate-ca", "namespace": "default"},
		"data": object{"ca.crt": string(company.caPEM)}}), "apply", "-f", "-")

	make := func(name string) *deployment {
		// The reference stays as it is: registry.example.com, on port 443.
		d := deploymentOf(t, name, caExample, "vault.example.com:8200", "vault.example.com:"+portOf(t, vault), "http://proxy.example.com:3128", proxy.url)
		d.pod(t)["hostAliases"] = []any{object{"ip": "127.0.0.1", "hostnames": []any{"vault.example.com"}}}
		return d
	}
	d := make("corporate")
	r.run(t, d)
	r.holdsModel(t, r.app(t, r.awaitRunning(t, d, time.Minute)))
	hosts := proxy.asked()
	if hosts["registry.example.com:443"] == 0 || len(hosts) != 1 {
		t.Errorf("the proxy was asked for %v, want the registry alone", hosts)
	}
	stranger := make("corporate-unknown")
	stranger.replaceArg(t, "--ca-file=/etc/corporate-ca/ca.crt", "--concurrency=4")
	stranger.replaceArg(t, "--retry-timeout=10m", "--retry-timeout=2s")
	r.run(t, stranger)
	p, end := r.awaitRefused(t, stranger, time.Minute)
	r.isReason(t, p, end, 4, "registry_tls")
	prove(t, private, "a private authority's certificates; the proxy was asked for %v, and never for Vault", hosts)
}

// testKServe makes the pod that KServe's webhook would: the container of the
// ClusterStorageContainer with KServe's name, arguments, volume and CA bundle.
func testKServe(t *testing.T, r *rig) {
	registry := servertest.Stack(t, "-no-vault", "-tls")
	for _, c := range []struct{ name, key string }{{"kserve", keyName}, {"kserve-unsigned", ""}} {
		repo := registry.Registry + "/models/" + c.name
		r.push(t, r.vault, repo+":v1", c.key, "--ca-file", registry.CAFile)
		d := r.kservePod(t, c.name, registry, "aegis://"+repo+":v1")
		r.run(t, d)
		if c.key == "" {
			p, end := r.awaitRefused(t, d, time.Minute)
			r.isReason(t, p, end, 3, "unsigned")
			continue
		}
		p := r.awaitRunning(t, d, time.Minute)
		r.holdsModel(t, r.app(t, p))
		var result struct {
			Models []struct {
				Verified bool
				Path     string
			}
		}
		if err := json.Unmarshal([]byte(r.logs(t, p, "storage-initializer")), &result); err != nil {
			t.Fatal(err)
		}
		if len(result.Models) != 1 || !result.Models[0].Verified || result.Models[0].Path != "/mnt/models" {
			t.Errorf("%+v", result)
		}
	}
}
