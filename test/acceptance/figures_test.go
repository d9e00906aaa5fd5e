// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// figureRounds is how often each figure is taken; the first round is not counted.
const figureRounds = 11

// figures is a signed model on a registry and a Vault with each login method.
type figures struct {
	vault    *servertest.Server
	registry *servertest.Proxy
	ref      string // through the proxy, which counts
	methods  map[string][]string
	env      map[string]string
	issuer   *servertest.Issuer
}

func newFigures(t *testing.T) *figures {
	t.Helper()
	f := &figures{vault: servertest.Vault(t, servertest.VaultTLS), issuer: servertest.OIDC(t)}
	v, dir := f.vault, t.TempDir()
	stack := servertest.Stack(t, "-no-vault")
	f.registry = servertest.FaultProxy(t, stack.RegistryURL())
	f.ref = strings.TrimPrefix(f.registry.URL, "http://") + "/models/small:v1"
	f.env = map[string]string{"VAULT_ADDR": v.VaultAddr, "VAULT_CACERT": v.CAFile}
	v.TransitKey(t, probedKey, "ecdsa-p256")
	v.Policy(t, "p", `path "transit/+/aegis-model-sign" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }`)
	role := func(more map[string]any) map[string]any {
		all := map[string]any{"token_policies": []string{"p"}, "token_no_default_policy": true, "token_ttl": "10m"}
		maps.Copy(all, more)
		return all
	}
	keep := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, err := os.ReadFile(v.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"jwt", "kubernetes", "approle", "cert"} {
		v.Write(t, "sys/auth/"+method, map[string]any{"type": method})
	}
	v.Write(t, "auth/jwt/config", map[string]any{"oidc_discovery_url": f.issuer.URL})
	v.Write(t, "auth/jwt/role/r", role(map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}}))
	host, hostCA := servertest.TokenReviewStandIn(t, f.issuer)
	v.Write(t, "auth/kubernetes/config", map[string]any{"kubernetes_host": host, "kubernetes_ca_cert": hostCA, "disable_local_ca_jwt": true,
		"disable_iss_validation": true, "token_reviewer_jwt": f.issuer.PodToken(t, "vault", "reviewer", nil)})
	v.Write(t, "auth/kubernetes/role/r", role(map[string]any{"bound_service_account_names": "aegis-app", "bound_service_account_namespaces": "default", "audience": "vault"}))
	v.Write(t, "auth/approle/role/r", role(nil))
	v.Write(t, "auth/cert/certs/r", role(map[string]any{"certificate": string(ca)}))
	roleID := field(t, v.Read(t, "auth/approle/role/r/role-id"), "data", "role_id")
	_, answer := v.Do(t, http.MethodPut, "auth/approle/role/r/secret-id", v.RootToken, map[string]any{})
	f.env["VAULT_CLIENT_CERT"], f.env["VAULT_CLIENT_KEY"] = v.ClientCert, v.ClientKey
	given := v.Token(t, map[string]any{"policies": []string{"p"}, "no_default_policy": true, "ttl": "30m"})
	f.methods = map[string][]string{
		"jwt":        {"--vault-role", "r", "--vault-jwt-file", keep("jwt", f.issuer.Token(t, nil))},
		"kubernetes": {"--vault-role", "r", "--vault-k8s-token-path", keep("pod", f.issuer.PodToken(t, "default", "aegis-app", nil))},
		"approle":    {"--vault-role-id", roleID, "--vault-secret-id-file", keep("secret-id", field(t, answer, "data", "secret_id"))},
		"cert":       {"--vault-role", "r"},
		"agent":      {"--vault-token-file", keep("token", given)},
	}
	for method := range f.methods {
		f.methods[method] = append(f.methods[method], "--vault-auth", method)
	}
	aegis(t, f.env, 0, append([]string{"push", "-q", "--sign", "--key", "hashivault://" + probedKey, f.ref, writeModel(t)}, f.methods["jwt"]...)...)
	return f
}

// pull runs one pull and returns how long it took, when Vault had answered with
// the token, the paths asked of Vault, and the registry's requests.
func (f *figures) pull(t *testing.T, flags ...string) (took, token time.Duration, asked []string, registry []servertest.Request) {
	t.Helper()
	before, seen := len(f.vault.AuditEntries(t)), len(f.registry.Requests())
	start := time.Now()
	aegis(t, f.env, 0, append([]string{"pull", "-q", "-o", filepath.Join(t.TempDir(), "out"), f.ref}, flags...)...)
	took = time.Since(start)
	for _, e := range f.vault.AuditEntries(t)[before:] {
		if e["type"] != "response" {
			continue
		}
		request, _ := e["request"].(map[string]any)
		path, _ := request["path"].(string)
		if asked = append(asked, path); len(asked) == 1 {
			at, err := time.Parse(time.RFC3339Nano, e["time"].(string))
			if err != nil {
				t.Fatal(err)
			}
			token = at.Sub(start)
		}
	}
	return took, token, asked, f.registry.Requests()[seen:]
}

// TestFigures holds the numbers of requests, and prints the times: those belong
// to the machine.
func TestFigures(t *testing.T) {
	f := newFigures(t)
	times, tokens := map[string][]time.Duration{}, map[string][]time.Duration{}
	for round := range figureRounds {
		for _, method := range append(slices.Sorted(maps.Keys(f.methods)), "") {
			flags := []string{"--verify=false"}
			want := ""
			if method != "" {
				flags = append([]string{"--key", "hashivault://" + probedKey}, f.methods[method]...)
				want = "auth/" + method + "/login transit/verify/aegis-model-sign auth/token/revoke-self"
			}
			if method == "agent" { // a given token is looked at, and left alone
				want = "auth/token/lookup-self transit/verify/aegis-model-sign"
			}
			took, token, asked, registry := f.pull(t, flags...)
			if got := strings.Join(asked, " "); got != want {
				t.Fatalf("%s: Vault was asked %q, want %q", method, got, want)
			}
			if n := beforeModel(registry); n > 5 {
				t.Errorf("%s: %d requests to the registry before the first blob of the model: %v", method, n, registry)
			} else if round == 0 {
				t.Logf("%-10s Vault: %s; registry: %d requests before the model, %d in all", method, want, n, len(registry))
			}
			if round > 0 {
				times[method], tokens[method] = append(times[method], took), append(tokens[method], token)
			}
		}
	}
	plain := middle(times[""])
	t.Logf("pull --verify=false: %v", plain)
	for _, method := range slices.Sorted(maps.Keys(f.methods)) {
		whole := middle(times[method])
		t.Logf("%-10s start to token %v; verified pull %v, %v more (%.2f times)", method,
			middle(tokens[method]), whole, whole-plain, whole.Seconds()/plain.Seconds())
	}
}

// beforeModel counts the requests up to the last blob: this model has one, which
// is fetched after the signature's.
func beforeModel(registry []servertest.Request) int {
	n := 0
	for i, q := range registry {
		if q.Method == http.MethodGet && strings.Contains(q.Path, "/blobs/") {
			n = i
		}
	}
	return n
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2].Round(100 * time.Microsecond)
}
