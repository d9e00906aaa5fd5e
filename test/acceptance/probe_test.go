// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

const probedKey = "aegis-model-sign"

// probe is one request that a token may not make.
type probe struct{ method, path string }

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// described are the requests that Vault's own description of its API names, for
// all that is mounted, with the key's name where a name goes. What needs no token
// is left out: no policy could deny it.
func described(t *testing.T, srv *servertest.Server) (all []probe) {
	t.Helper()
	paths, _ := srv.Read(t, "sys/internal/specs/openapi")["paths"].(map[string]any)
	if len(paths) < 200 {
		t.Fatalf("Vault describes %d paths", len(paths))
	}
	for path, v := range paths {
		item, _ := v.(map[string]any)
		if item["x-vault-unauthenticated"] == true {
			continue
		}
		path = strings.TrimPrefix(placeholder.ReplaceAllString(path, probedKey), "/")
		for method, operation := range map[string]string{"get": http.MethodGet, "post": http.MethodPut, "delete": http.MethodDelete} {
			if item[method] != nil {
				all = append(all, probe{operation, path})
			}
		}
		all = append(all, probe{"LIST", path})
	}
	return all
}

// besides are requests that the description leaves out, or has under other names.
func besides() (all []probe) {
	for _, path := range []string{
		"transit/sign/other", "transit/sign/aegis-model-sign2", "transit/sign/aegis-model-sign/sha2-256", "transit/sign/aegis-model-sign/sha2-512",
		"transit/sign/aegis-model-sign/", "transit/sign/", "transit/verify/other", "transit/verify/aegis-model-sign/sha2-256", "transit/verify/aegis-model-sign/",
		"transit/sign/AEGIS-MODEL-SIGN", "transit/keys/other", "transit/keys/aegis-model-sign/trim", "transit/restore/aegis-model-sign",
		"transit/export/signing-key/aegis-model-sign", "transit/export/signing-key/aegis-model-sign/1", "transit/export/public-key/aegis-model-sign",
		"transit/hmac/aegis-model-sign/sha2-256", "transit/random/32", "transit/datakey/plaintext/aegis-model-sign", "transit/csr",
		"auth/token/create", "auth/token/create-orphan", "auth/token/renew-self", "auth/token/lookup", "auth/token/revoke", "auth/token/accessors",
		"auth/jwt/role", "auth/jwt/config", "auth/jwt/role/aegis-github-role",
		"cubbyhole/x", "cubbyhole/", "identity/entity", "identity/group", "identity/oidc/token/x", "identity/lookup/entity", "secret/data/x",
		"sys/capabilities-self", "sys/capabilities", "sys/policies/acl", "sys/policies/acl/aegis-transit-policy", "sys/policies/acl/root", "sys/policy",
		"sys/raw/core", "sys/audit", "sys/audit-hash/file", "sys/mounts", "sys/mounts/x", "sys/auth", "sys/auth/x", "sys/leases/lookup", "sys/seal",
		"sys/step-down", "sys/rotate", "sys/storage/raft/snapshot", "sys/config/state/sanitized", "sys/wrapping/wrap", "sys/tools/random", "sys/tools/hash",
		"sys/pprof/heap", "sys/monitor", "sys/metrics", "sys/host-info", "sys/in-flight-req", "sys/plugins/catalog", "sys/namespaces",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, "LIST"} {
			all = append(all, probe{method, path})
		}
	}
	// The granted paths, by ways that were not granted.
	for _, path := range []string{"transit/sign/aegis-model-sign", "transit/verify/aegis-model-sign", "auth/token/revoke-self"} {
		for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPatch, "LIST"} {
			all = append(all, probe{method, path})
		}
	}
	return append(all, probe{http.MethodDelete, "auth/token/lookup-self"}, probe{http.MethodPatch, "auth/token/lookup-self"}, probe{"LIST", "auth/token/lookup-self"})
}

// notByPolicy are requests that Vault answers without asking a policy, each with
// the only answer that is taken for harmless.
var notByPolicy = map[probe]int{
	// It does nothing on a server without HA, before it looks at the token.
	{http.MethodPut, "sys/step-down"}: http.StatusNoContent,
	// It takes tokens of its own, and says that ours is none.
	{http.MethodGet, "identity/oidc/provider/aegis-model-sign/userinfo"}: http.StatusUnauthorized,
	{http.MethodPut, "identity/oidc/provider/aegis-model-sign/userinfo"}: http.StatusUnauthorized,
	// Whoever has a wrapping token may use it, and ours is none.
	{http.MethodPut, "sys/wrapping/rewrap"}: http.StatusBadRequest,
	{http.MethodPut, "sys/wrapping/unwrap"}: http.StatusBadRequest,
	// Which features the web page has: nothing here.
	{http.MethodGet, "sys/internal/ui/feature-flags"}: http.StatusOK,
}

// deniedEverywhereElse makes real requests: what a token may do is what the server
// lets it do, whatever sys/capabilities says. It returns how many were
// denied.
func deniedEverywhereElse(t *testing.T, srv *servertest.Server, token string, may ...string) (denied int) {
	t.Helper()
	granted := []probe{{http.MethodGet, "auth/token/lookup-self"}, {http.MethodPut, "auth/token/revoke-self"}}
	for _, verb := range may {
		granted = append(granted, probe{http.MethodPut, "transit/" + verb + "/" + probedKey})
	}
	for _, p := range append(described(t, srv), besides()...) {
		if slices.Contains(granted, p) {
			continue
		}
		switch status, text := p.ask(t, srv, token); {
		case status == http.StatusForbidden:
			denied++
		case status == http.StatusMethodNotAllowed, notByPolicy[p] == status: // 405: no such request
		case strings.HasSuffix(p.path, "/") && strings.Contains(text, "cannot write to a path ending in '/'"):
		default:
			t.Errorf("%s %s: status %d, want 403", p.method, p.path, status)
		}
	}
	return denied
}

func (p probe) ask(t *testing.T, srv *servertest.Server, token string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), p.method, srv.VaultAddr+"/v1/"+p.path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := srv.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// TestSetupsOfPodsAndHostsMayNoMore applies what vault setup prints and asks with
// the token that a login gets.
func TestSetupsOfPodsAndHostsMayNoMore(t *testing.T) {
	t.Parallel()
	for name, may := range map[string][]string{"signs": {"sign", "verify"}, "verifies": {"verify"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := servertest.Vault(t)
			env := operator(t, srv, "vault")
			setup := []string{"vault", "setup", "approle"}
			if len(may) == 1 {
				setup = append(setup, "--verify-only")
			}
			if r := run(t, env, run(t, env, "", builtProgram(t), setup...).stdout, "sh"); r.code != 0 {
				t.Fatalf("exit code %d\n%s", r.code, r)
			}
			const role = "auth/approle/role/aegis-approle-role"
			login := map[string]any{"role_id": field(t, srv.Read(t, role+"/role-id"), "data", "role_id")}
			_, answer := srv.Do(t, http.MethodPut, role+"/secret-id", srv.RootToken, map[string]any{})
			login["secret_id"] = field(t, answer, "data", "secret_id")
			_, answer = srv.Do(t, http.MethodPut, "auth/approle/login", "", login)
			token := field(t, answer, "auth", "client_token")
			// What is granted works. The body is empty: Transit signs that, and has
			// no signature to verify.
			for verb, want := range map[string]int{"sign": http.StatusOK, "verify": http.StatusBadRequest} {
				if !slices.Contains(may, verb) {
					want = http.StatusForbidden
				}
				if status, _ := (probe{http.MethodPut, "transit/" + verb + "/" + probedKey}).ask(t, srv, token); status != want {
					t.Errorf("transit/%s: status %d, want %d", verb, status, want)
				}
			}
			denied := deniedEverywhereElse(t, srv, token, may...)
			prove(t, onlyOneKey, "vault %s: the token may %s, %d other requests are denied", strings.Join(setup[1:], " "), strings.Join(may, " and "), denied)
		})
	}
}

// field is a text in an answer.
func field(t *testing.T, answer map[string]any, outer, name string) string {
	t.Helper()
	inner, _ := answer[outer].(map[string]any)
	text, _ := inner[name].(string)
	if text == "" {
		t.Fatalf("no %s.%s: %v", outer, name, answer["errors"])
	}
	return text
}
