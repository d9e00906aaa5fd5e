// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"net/http"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// vaultFlags say how to reach Vault and how to get a token.
type vaultFlags struct {
	addr          string
	namespace     string
	authNamespace string
	caCert        string
	insecure      bool

	auth         string
	role         string
	authMount    string
	tokenFile    string
	jwtAudience  string
	jwtEnv       string
	jwtFile      string
	roleID       string
	secretIDFile string
	wrappedFile  string
	k8sTokenPath string

	maxTokenTTL  time.Duration
	requireShort bool

	set *flagSet
}

// Where our manifests and Vault's injector put what a pod logs in with.
const (
	projectedToken = "/var/run/secrets/vault/token"
	injectedToken  = "/vault/secrets/token"
)

func (v *vaultFlags) register(f *flagSet) {
	v.set = f
	f.StringVar(&v.addr, "vault-addr", "", "address of Vault (default $VAULT_ADDR)")
	f.StringVar(&v.namespace, "vault-namespace", "", "namespace of the Transit key (default $VAULT_NAMESPACE)")
	f.StringVar(&v.authNamespace, "vault-auth-namespace", "", "namespace of the login, root for the root namespace (default that of --vault-namespace)")
	f.StringVar(&v.caCert, "vault-cacert", "", "PEM file of Vault's certificate authority (default $VAULT_CACERT)")
	f.BoolVar(&v.insecure, "insecure-vault", false, "allow plain HTTP beyond this machine and VAULT_SKIP_VERIFY: a fake Vault can then steal the token and accept any signature")
	f.StringVar(&v.auth, "vault-auth", "auto", "how to get a Vault token: auto, token, jwt, kubernetes, approle, agent or cert")
	f.StringVar(&v.role, "vault-role", "", "role to log in to Vault as")
	f.StringVar(&v.authMount, "vault-auth-mount", "", "path of the auth method (default its own name: jwt, kubernetes, approle, cert)")
	f.StringVar(&v.tokenFile, "vault-token-file", "", "file with a Vault token, read again when the token is refused")
	f.StringVar(&v.jwtAudience, "vault-jwt-audience", "vault", "audience that a CI job's identity token is asked for")
	f.StringVar(&v.jwtEnv, "vault-jwt-env", "", "name of the variable that holds the identity token")
	f.StringVar(&v.jwtFile, "vault-jwt-file", "", "file that holds the identity token")
	f.StringVar(&v.roleID, "vault-role-id", "", "role_id of an AppRole")
	f.StringVar(&v.secretIDFile, "vault-secret-id-file", "", "file with the AppRole's secret_id, - for standard input, env://NAME for a variable")
	f.StringVar(&v.wrappedFile, "vault-wrapped-secret-id-file", "", "the same with a response-wrapped secret_id, which is unwrapped once")
	f.StringVar(&v.k8sTokenPath, "vault-k8s-token-path", projectedToken, "file of the pod's service account token")
	f.DurationVar(&v.maxTokenTTL, "max-token-ttl", time.Hour, "report a Vault token that lives longer")
	f.BoolVar(&v.requireShort, "require-short-lived", false, "refuse a root, never-expiring or longer-lived Vault token")
}

// given reports that a flag was set, by itself or by its variable.
func (v *vaultFlags) given(name string) bool {
	f := v.set.Lookup(name)
	return f != nil && f.Changed
}

// onCommandLine reports that a flag was set by itself.
func (v *vaultFlags) onCommandLine(name string) bool {
	return onCommandLine(v.set.Lookup(name))
}

// session logs in to Vault, once for a command.
func (a *app) session(ctx context.Context, v *vaultFlags) (*vault.Session, error) {
	if a.vault != nil {
		return a.vault, nil
	}
	l, err := a.preparedLogin(v)
	if err != nil {
		return nil, err
	}
	s, err := a.openVault(ctx, v, l)
	if err != nil {
		return nil, err
	}
	a.vault, a.jwt = s, l.jwt
	return s, nil
}

// openVault logs in to one Vault and closes the session when the command ends.
func (a *app) openVault(ctx context.Context, v *vaultFlags, l vaultLogin) (*vault.Session, error) {
	if l.picked {
		a.notice("Vault token: " + l.what)
	}
	s, err := vault.Open(ctx, a.vaultConfig(v, l.listener), l.source)
	if err != nil {
		return nil, err
	}
	a.cleanup = append(a.cleanup, func(ctx context.Context) { s.Close(ctx) })
	return s, nil
}

// vaultConfig is how Vault is reached, flags before variables: itself, or an agent
// that listens and adds the token.
func (a *app) vaultConfig(v *vaultFlags, listener bool) vault.Config {
	address := first(v.addr, a.env.first("VAULT_ADDR", "BAO_ADDR"))
	if listener {
		address = first(v.addr, a.env.first("VAULT_PROXY_ADDR", "VAULT_AGENT_ADDR", "BAO_PROXY_ADDR", "BAO_AGENT_ADDR"), address)
	}
	return vault.Config{
		Address:           address,
		Namespace:         first(v.namespace, a.env.first("VAULT_NAMESPACE", "BAO_NAMESPACE")),
		AuthNamespace:     v.authNamespace,
		CAFile:            first(v.caCert, a.env.first("VAULT_CACERT", "BAO_CACERT")),
		CAPath:            a.env.first("VAULT_CAPATH", "BAO_CAPATH"),
		CertFile:          a.env.first("VAULT_CLIENT_CERT", "BAO_CLIENT_CERT"),
		KeyFile:           a.env.first("VAULT_CLIENT_KEY", "BAO_CLIENT_KEY"),
		TLSServerName:     a.env.first("VAULT_TLS_SERVER_NAME", "BAO_TLS_SERVER_NAME"),
		SkipVerify:        truthy(a.env.first("VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY")),
		InsecureVault:     v.insecure,
		Proxy:             http.ProxyFromEnvironment,
		RetryBudget:       a.retryTimeout,
		UserAgent:         userAgent(),
		Logger:            a.logger,
		Warn:              a.warn,
		MaxTokenTTL:       v.maxTokenTTL,
		RequireShortLived: v.requireShort,
	}
}
