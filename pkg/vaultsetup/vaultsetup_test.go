// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
	"github.com/aegis-oci/aegis-oci/pkg/vaultsetup"
)

// session is a Reader with a token of the given policy, "" for root.
func session(t *testing.T, srv *servertest.Server, policy string) *vault.Session {
	t.Helper()
	token := srv.RootToken
	if policy != "" {
		token = srv.Token(t, map[string]any{"policies": []string{policy}, "ttl": "5m"})
	}
	s, err := vault.Open(t.Context(), vault.Config{Address: srv.VaultAddr, RetryBudget: -1}, vault.StaticToken(token, "test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.WithoutCancel(t.Context())) })
	return s
}

// apply writes the plan over the API.
func apply(t *testing.T, srv *servertest.Server, p vaultsetup.Plan) {
	t.Helper()
	for _, r := range p.Resources {
		body := make(map[string]any)
		for _, f := range r.Fields {
			if d, ok := f.Value.(time.Duration); ok {
				f.Value = int(d.Seconds())
			}
			body[f.Name] = f.Value
		}
		if r.Kind == vaultsetup.Mount {
			continue // aegis-stack has it
		}
		srv.Write(t, r.Path, body)
	}
}

func verdict(t *testing.T, p vaultsetup.Plan, r vaultsetup.Reader) ([]vaultsetup.Check, error) {
	t.Helper()
	checks, err := p.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return checks, vaultsetup.Verdict(checks)
}

// options are a plan for each method.
func options(issuer string) map[vaultsetup.Method]vaultsetup.Options {
	return map[vaultsetup.Method]vaultsetup.Options{
		vaultsetup.GitHub:     {Repository: "acme/models", Issuer: issuer},
		vaultsetup.JWT:        {Issuer: issuer, Audience: "vault", BoundClaims: map[string]string{"project_path": "acme/models"}},
		vaultsetup.AppRole:    {BoundCIDRs: []string{"127.0.0.0/8"}, VerifyOnly: true},
		vaultsetup.Kubernetes: {TokenTTL: time.Hour},
	}
}

func TestCheckAcceptsWhatWasPlanned(t *testing.T) {
	issuer := servertest.OIDC(t)
	for method, o := range options(issuer.URL) {
		t.Run(string(method), func(t *testing.T) {
			srv := servertest.Stack(t)
			if method == vaultsetup.Kubernetes {
				o.KubernetesHost, o.KubernetesCA = servertest.TokenReviewStandIn(t, issuer)
			}
			p, err := vaultsetup.New(method, o)
			if err != nil {
				t.Fatal(err)
			}
			root := session(t, srv, "")
			if checks, err := verdict(t, p, root); !errors.Is(err, vaultsetup.ErrDiffers) || checks[1].Status != vaultsetup.Missing {
				t.Errorf("an empty Vault: %v, %+v", err, checks)
			}
			apply(t, srv, p)
			if checks, err := verdict(t, p, root); err != nil {
				t.Errorf("%v: %+v", err, checks)
			}
			// Without the right to read, nothing can be told.
			checks, err := verdict(t, p, session(t, srv, "default"))
			if !errors.Is(err, vaultsetup.ErrUnknown) || checks[0].Status != vaultsetup.Unknown || checks[0].Detail == "" {
				t.Errorf("a token that may read nothing: %v, %+v", err, checks)
			}
		})
	}
}

// TestCheckFindsAKeyThatCannotSign: the default type of a Transit key.
func TestCheckFindsAKeyThatCannotSign(t *testing.T) {
	srv := servertest.Stack(t)
	p, err := vaultsetup.New(vaultsetup.AppRole, vaultsetup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, srv, p)
	srv.Write(t, "transit/keys/aegis-model-sign/config", map[string]any{"deletion_allowed": true})
	srv.Delete(t, "transit/keys/aegis-model-sign")
	srv.Write(t, "transit/keys/aegis-model-sign", map[string]any{})
	checks, err := verdict(t, p, session(t, srv, ""))
	if !errors.Is(err, vaultsetup.ErrDiffers) {
		t.Fatalf("%v: %+v", err, checks)
	}
	for _, c := range checks {
		if c.Status == vaultsetup.Differs && (c.Have != "aes256-gcm96" || !strings.Contains(c.Detail, "do not delete it")) {
			t.Errorf("%+v", c)
		}
	}
}

// TestPolicyIsComparedByWhatItGrants covers what a policy can say besides paths and
// capabilities.
func TestPolicyIsComparedByWhatItGrants(t *testing.T) {
	srv := servertest.Stack(t)
	p, err := vaultsetup.New(vaultsetup.AppRole, vaultsetup.Options{VerifyOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, srv, p)
	root := session(t, srv, "")
	const self = "path \"auth/token/lookup-self\" { capabilities = [\"read\"] }\npath \"auth/token/revoke-self\" { capabilities = [\"update\"] }\n"
	for name, tc := range map[string]struct {
		policy string
		want   error
	}{
		"other words":  {self + `path "transit/verify/aegis-model-sign" { capabilities = [ "update", ] } # pods`, nil},
		"JSON":         {`{"path": {"transit/verify/aegis-model-sign": {"capabilities": ["update"]}, "auth/token/lookup-self": {"capabilities": ["read"]}, "auth/token/revoke-self": {"capabilities": ["update"]}}}`, nil},
		"read as well": {self + `path "transit/verify/aegis-model-sign" { capabilities = ["update", "read"] }`, vaultsetup.ErrDiffers},
		"glob":         {self + `path "transit/verify/*" { capabilities = ["update"] }`, vaultsetup.ErrDiffers},
		"signs too":    {self + "path \"transit/verify/aegis-model-sign\" { capabilities = [\"update\"] }\npath \"transit/sign/aegis-model-sign\" { capabilities = [\"update\"] }", vaultsetup.ErrDiffers},
		"denied":       {self + `path "transit/verify/aegis-model-sign" { capabilities = ["deny"] }`, vaultsetup.ErrDiffers},
		"parameters":   {self + `path "transit/verify/aegis-model-sign" { capabilities = ["update"] required_parameters = ["prehashed"] }`, vaultsetup.ErrDiffers},
	} {
		srv.Policy(t, "aegis-transit-verify-policy", tc.policy)
		if checks, err := verdict(t, p, root); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v: %+v", name, err, tc.want, checks)
		}
	}
}

func TestOptionsThatWouldLetTooMuchInAreRefused(t *testing.T) {
	good := options("https://issuer.example.com")
	for name, tc := range map[string]struct {
		method vaultsetup.Method
		option string
		change func(*vaultsetup.Options)
	}{
		"no repository":      {vaultsetup.GitHub, "repository", func(o *vaultsetup.Options) { o.Repository = "" }},
		"every repository":   {vaultsetup.GitHub, "repository", func(o *vaultsetup.Options) { o.Repository = "acme/*" }},
		"every branch":       {vaultsetup.GitHub, "git-ref", func(o *vaultsetup.Options) { o.Ref = "refs/heads/*" }},
		"short ref":          {vaultsetup.GitHub, "git-ref", func(o *vaultsetup.Options) { o.Ref = "main" }},
		"two bindings":       {vaultsetup.GitHub, "git-ref", func(o *vaultsetup.Options) { o.Ref, o.Environment = "refs/heads/main", "production" }},
		"id":                 {vaultsetup.GitHub, "repository-id", func(o *vaultsetup.Options) { o.RepositoryID = "12x" }},
		"control character":  {vaultsetup.GitHub, "environment", func(o *vaultsetup.Options) { o.Environment = "a\nb" }},
		"HTTP issuer":        {vaultsetup.GitHub, "issuer", func(o *vaultsetup.Options) { o.Issuer = "http://issuer.example.com" }},
		"quote in issuer":    {vaultsetup.GitHub, "issuer", func(o *vaultsetup.Options) { o.Issuer = "https://issuer.example.com/';id;'" }},
		"no claim":           {vaultsetup.JWT, "bound-claim", func(o *vaultsetup.Options) { o.BoundClaims = nil }},
		"claim of any value": {vaultsetup.JWT, "bound-claim", func(o *vaultsetup.Options) { o.BoundClaims = map[string]string{"ref": "*"} }},
		"no audience":        {vaultsetup.JWT, "audience", func(o *vaultsetup.Options) { o.Audience = "" }},
		"every account":      {vaultsetup.Kubernetes, "service-account", func(o *vaultsetup.Options) { o.ServiceAccount = "*" }},
		"HTTP cluster":       {vaultsetup.Kubernetes, "kubernetes-host", func(o *vaultsetup.Options) { o.KubernetesHost = "http://10.0.0.1" }},
		"unlimited uses":     {vaultsetup.AppRole, "secret-id-uses", func(o *vaultsetup.Options) { o.SecretIDUses = -1 }},
		"range":              {vaultsetup.AppRole, "bound-cidr", func(o *vaultsetup.Options) { o.BoundCIDRs = []string{"everywhere"} }},
		"long life":          {vaultsetup.AppRole, "token-ttl", func(o *vaultsetup.Options) { o.TokenTTL = 2 * time.Hour }},
		"encrypting key":     {vaultsetup.AppRole, "key-type", func(o *vaultsetup.Options) { o.KeyType = "aes256-gcm96" }},
		"root policy":        {vaultsetup.AppRole, "policy-name", func(o *vaultsetup.Options) { o.Policy = "root" }},
		"substitution":       {vaultsetup.AppRole, "role", func(o *vaultsetup.Options) { o.Role = "$(id)" }},
		"path as a name":     {vaultsetup.AppRole, "transit-mount", func(o *vaultsetup.Options) { o.TransitMount = "a/../sys" }},
	} {
		o := good[tc.method]
		if _, err := vaultsetup.New(tc.method, o); err != nil {
			t.Fatalf("%s: before the change: %v", name, err)
		}
		tc.change(&o)
		var refused *vaultsetup.OptionError
		if _, err := vaultsetup.New(tc.method, o); !errors.As(err, &refused) || refused.Option != tc.option {
			t.Errorf("%s: %v, want a refusal of --%s", name, err, tc.option)
		}
	}
}

// TestScriptIsShell parses what CLI prints without running it.
func TestScriptIsShell(t *testing.T) {
	for method, o := range options("https://issuer.example.com") {
		o.IssuerCA = "-----BEGIN CERTIFICATE-----\nJSON\n'$(id)'\n-----END CERTIFICATE-----\n"
		p, err := vaultsetup.New(method, o)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "setup.sh")
		if err := os.WriteFile(name, []byte(p.CLI()), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sh", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s\n%s", method, err, out, p.CLI())
		}
		if method == vaultsetup.GitHub && (strings.Contains(p.CLI(), "\n'$(id)'") || strings.Contains(p.CLI(), "sub")) {
			t.Errorf("it holds a line of the certificate, or binds sub:\n%s", p.CLI())
		}
	}
}

// TestCheckTokenAgreesWithVault compares the judgement with that of a real jwt
// auth, for tokens of either kind.
func TestCheckTokenAgreesWithVault(t *testing.T) {
	srv, issuer := servertest.Stack(t), servertest.OIDC(t)
	p, err := vaultsetup.New(vaultsetup.GitHub, vaultsetup.Options{Repository: "acme/models", Issuer: issuer.URL})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, srv, p)
	now := time.Now()
	for name, claims := range map[string]map[string]any{
		"right":               {},
		"expired":             {"exp": now.Add(-10 * time.Minute).Unix(), "nbf": now.Add(-time.Hour).Unix(), "iat": now.Add(-time.Hour).Unix()},
		"expired within 60 s": {"exp": now.Add(-20 * time.Second).Unix()},
		"not yet":             {"nbf": now.Add(10 * time.Minute).Unix(), "exp": now.Add(20 * time.Minute).Unix()},
		"no audience":         {"aud": nil},
		"audiences":           {"aud": []string{"a", "vault"}},
		"refs":                {"ref": []string{"refs/heads/dev", "refs/heads/main"}},
		"no ref":              {"ref": nil},
		"number":              {"ref": 7},
		"number in the log":   {"run_id": 7},
		"issuer":              {"iss": issuer.URL + "/"},
	} {
		all := map[string]any{"repository": "acme/models", "ref": "refs/heads/main", "run_id": "1", "actor": "a", "workflow_ref": "w"}
		for k, v := range claims {
			all[k] = v
		}
		token := issuer.Token(t, all)
		checks, err := p.CheckToken(token, now)
		if err != nil {
			t.Fatal(err)
		}
		status, answer := srv.Do(t, http.MethodPut, "auth/jwt/login", "", map[string]any{"role": "aegis-github-role", "jwt": token})
		if (vaultsetup.Verdict(checks) == nil) != (status == http.StatusOK) {
			t.Errorf("%s: Vault answers %d %v, and we say %+v", name, status, answer["errors"], checks)
		}
	}
	for _, text := range []string{"", "hvs.token", "a.b.c", "e30.e30", "e30.bnVsbA.c2ln", strings.Repeat("a", 70000) + ".e30.c"} {
		if _, err := p.CheckToken(text, now); !errors.Is(err, vaultsetup.ErrNoToken) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}
