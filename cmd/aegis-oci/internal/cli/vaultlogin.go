// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// vaultLogin is how a command gets its Vault token.
type vaultLogin struct {
	source vault.TokenSource
	what   string // for one line to the user
	// picked is set when --vault-auth auto has made the choice.
	picked bool
	// listener means that an agent is asked, at an address of its own.
	listener bool
	jwt      *vault.JWT
}

// preparedLogin is vaultLogin, once for a command: standard input is read once.
func (a *app) preparedLogin(v *vaultFlags) (vaultLogin, error) {
	if a.login == nil {
		l, err := a.vaultLogin(v)
		if err != nil {
			return vaultLogin{}, err
		}
		a.login = &l
	}
	return *a.login, nil
}

const authHint = "--vault-auth is auto, token, jwt, kubernetes, approle, agent or cert"

// vaultLogin turns the flags into a login; nobody is asked yet.
func (a *app) vaultLogin(v *vaultFlags) (vaultLogin, error) {
	if mount := strings.Trim(v.authMount, "/"); v.authMount != "" {
		v.authMount = strings.TrimPrefix(mount, "auth/")
		if err := vault.CheckMount(v.authMount); err != nil {
			return vaultLogin{}, usagef("--vault-auth-mount: %v", err)
		}
	}
	switch v.auth {
	case "auto":
		l, err := a.autoLogin(v)
		l.picked = true
		return l, err
	case "token":
		return a.tokenLogin(v)
	case "jwt":
		return a.jwtLogin(v)
	case "kubernetes":
		return a.kubernetesLogin(v)
	case "approle":
		return a.appRoleLogin(v)
	case "agent":
		return a.agentLogin(v)
	case "cert":
		return a.certLogin(v)
	}
	return vaultLogin{}, &usageError{msg: fmt.Sprintf("--vault-auth %q is no login method", v.auth), hint: authHint}
}

// autoLogin picks by what is there, in the order of docs/login.md: what the
// command line names, VAULT_TOKEN, the injector's file, the CI job's identity,
// AppRole, the pod's projected token, the token helper's file. A method that is
// there and lacks its role is passed over, and named when nothing else is found.
func (a *app) autoLogin(v *vaultFlags) (vaultLogin, error) {
	for _, by := range []struct {
		login func(*vaultFlags) (vaultLogin, error)
		flags []string
	}{
		{a.tokenLogin, []string{"vault-token-file"}},
		{a.jwtLogin, []string{"vault-jwt-env", "vault-jwt-file"}},
		{a.appRoleLogin, []string{"vault-role-id", "vault-secret-id-file", "vault-wrapped-secret-id-file"}},
		{a.kubernetesLogin, []string{"vault-k8s-token-path"}},
	} {
		for _, name := range by.flags {
			if v.onCommandLine(name) {
				return by.login(v)
			}
		}
	}
	missing := &noTokenError{}
	switch {
	case v.tokenFile != "", a.env.first("VAULT_TOKEN", "BAO_TOKEN") != "":
		return a.tokenLogin(v)
	case exists(injectedToken):
		return a.agentLogin(v)
	case v.jwtEnv != "", v.jwtFile != "":
		return a.jwtLogin(v)
	case a.env[requestURL] != "" && a.env[requestToken] != "":
		if v.role != "" {
			return a.jwtLogin(v)
		}
		missing.passed = append(missing.passed, "the CI job's identity token ("+requestURL+")")
	}
	switch {
	case v.roleID != "" && (v.secretIDFile != "" || v.wrappedFile != ""):
		return a.appRoleLogin(v)
	case v.given("vault-k8s-token-path"):
		return a.kubernetesLogin(v)
	case exists(v.k8sTokenPath) && v.role != "":
		return a.kubernetesLogin(v)
	case exists(v.k8sTokenPath):
		missing.passed = append(missing.passed, "the pod's token ("+v.k8sTokenPath+")")
	}
	if helper := a.tokenHelperFile(); helper != "" {
		return vaultLogin{source: vault.TokenFile(helper), what: helper}, nil
	}
	return vaultLogin{}, missing
}

// exists reports a file or what may yet become one.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// noTokenError means that nothing says which Vault token to use.
type noTokenError struct {
	passed []string // what was there and lacks a role
}

func (e *noTokenError) Error() string {
	if len(e.passed) == 0 {
		return "no Vault token"
	}
	return "no Vault token: " + strings.Join(e.passed, " and ") + " could log in, and --vault-role is not given"
}

const noTokenHint = "--vault-role ROLE in a CI job or a pod, else VAULT_TOKEN or --vault-token-file FILE"

func (a *app) tokenLogin(v *vaultFlags) (vaultLogin, error) {
	if v.tokenFile != "" {
		return vaultLogin{source: vault.TokenFile(v.tokenFile), what: v.tokenFile}, nil
	}
	for _, name := range []string{"VAULT_TOKEN", "BAO_TOKEN"} {
		if t := a.env[name]; t != "" {
			return vaultLogin{source: vault.StaticToken(t, name), what: name}, nil
		}
	}
	if helper := a.tokenHelperFile(); helper != "" {
		return vaultLogin{source: vault.TokenFile(helper), what: helper}, nil
	}
	return vaultLogin{}, &noTokenError{}
}

// tokenHelperFile is where `vault login` keeps its token, "" if it does not.
func (a *app) tokenHelperFile() string {
	if home := a.home(); home != "" {
		if path := filepath.Join(home, ".vault-token"); exists(path) {
			return path
		}
	}
	return ""
}

// agentLogin uses the token that an agent keeps in a file, or its listener.
func (a *app) agentLogin(v *vaultFlags) (vaultLogin, error) {
	switch {
	case v.tokenFile != "":
		return vaultLogin{source: vault.TokenFile(v.tokenFile), what: v.tokenFile}, nil
	case exists(injectedToken):
		return vaultLogin{source: vault.TokenFile(injectedToken), what: injectedToken}, nil
	}
	return vaultLogin{source: vault.Listener(), what: "the agent's own", listener: true}, nil
}

func (v *vaultFlags) needsRole(method string) error {
	if v.role == "" {
		return &usageError{msg: "--vault-auth " + method + " needs --vault-role", hint: "--vault-role ROLE"}
	}
	return nil
}

func (v *vaultFlags) login() vault.Login { return vault.Login{Mount: v.authMount, Role: v.role} }

func (v *vaultFlags) described(method, from string) string {
	s := method + " login with " + from
	if v.role != "" {
		s += fmt.Sprintf(", role %q", v.role)
	}
	return s
}

// The variables by which GitHub Actions and Forgejo lend a job its identity.
const (
	requestURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	requestToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

func (a *app) jwtLogin(v *vaultFlags) (vaultLogin, error) {
	if err := v.needsRole("jwt"); err != nil {
		return vaultLogin{}, err
	}
	id, from, err := a.identity(v)
	if err != nil {
		return vaultLogin{}, err
	}
	jwt := vault.NewJWT(v.login(), id)
	return vaultLogin{source: jwt, jwt: jwt, what: v.described("jwt", from)}, nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

func (a *app) identity(v *vaultFlags) (id vault.Identity, from string, err error) {
	switch {
	case v.jwtEnv != "" && v.jwtFile != "":
		return nil, "", usagef("--vault-jwt-env and --vault-jwt-file exclude each other")
	case v.jwtFile != "":
		return vault.IdentityFile(v.jwtFile), v.jwtFile, nil
	case v.jwtEnv != "" && !variableName.MatchString(v.jwtEnv):
		// It may be the token itself, given by mistake.
		return nil, "", &usageError{msg: "--vault-jwt-env takes the name of a variable", hint: "--vault-jwt-env VAULT_ID_TOKEN"}
	case v.jwtEnv != "":
		value := a.env[v.jwtEnv]
		if value == "" {
			return nil, "", &usageError{msg: fmt.Sprintf("--vault-jwt-env: the variable %s is empty or not set", v.jwtEnv),
				hint: "on GitLab: id_tokens: { " + v.jwtEnv + ": { aud: vault } }"}
		}
		return vault.IdentityValue(value, "$"+v.jwtEnv), "$" + v.jwtEnv, nil
	case a.env[requestURL] == "" || a.env[requestToken] == "":
		return nil, "", &usageError{msg: "--vault-auth jwt finds no identity token: " + requestURL + " and " + requestToken + " are not set",
			hint: "on GitHub and Forgejo: permissions: { id-token: write }; elsewhere --vault-jwt-env NAME or --vault-jwt-file FILE"}
	case v.jwtAudience == "":
		return nil, "", usagef("--vault-jwt-audience is empty")
	}
	return vault.JobIdentity{
		URL:          a.env[requestURL],
		RequestToken: vault.NewSecret(a.env[requestToken]),
		Audience:     v.jwtAudience,
		// HTTP/1.1: the endpoint refuses some HTTP/2 requests with HTTP_1_1_REQUIRED.
		Client: &http.Client{Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			TLSNextProto:    map[string]func(string, *tls.Conn) http.RoundTripper{},
		}},
	}, "the job's identity token", nil
}

func (a *app) kubernetesLogin(v *vaultFlags) (vaultLogin, error) {
	if err := v.needsRole("kubernetes"); err != nil {
		return vaultLogin{}, err
	}
	return vaultLogin{
		source: vault.Kubernetes{Login: v.login(), Path: v.k8sTokenPath, AnyAudience: v.given("vault-k8s-token-path")},
		what:   v.described("kubernetes", v.k8sTokenPath),
	}, nil
}

func (a *app) appRoleLogin(v *vaultFlags) (vaultLogin, error) {
	const hint = "--vault-role-id ID with --vault-secret-id-file FILE or --vault-wrapped-secret-id-file FILE"
	switch {
	case v.roleID == "":
		return vaultLogin{}, &usageError{msg: "--vault-auth approle needs --vault-role-id", hint: hint}
	case v.secretIDFile == "" && v.wrappedFile == "":
		return vaultLogin{}, &usageError{msg: "--vault-auth approle needs a secret_id", hint: hint}
	case v.secretIDFile != "" && v.wrappedFile != "":
		return vaultLogin{}, usagef("--vault-secret-id-file and --vault-wrapped-secret-id-file exclude each other")
	}
	m := vault.AppRole{Login: v.login(), RoleID: v.roleID}
	var err error
	from := "a secret_id"
	if v.wrappedFile != "" {
		from = "a wrapped secret_id"
		m.Wrapping, err = a.secretFrom("--vault-wrapped-secret-id-file", v.wrappedFile)
	} else {
		m.SecretID, err = a.secretFrom("--vault-secret-id-file", v.secretIDFile)
	}
	if err != nil {
		return vaultLogin{}, err
	}
	return vaultLogin{source: m, what: v.described("approle", from)}, nil
}

// maxSecretFile bounds a secret_id or wrapping token, in bytes.
const maxSecretFile = 4 << 10

// secretFrom reads a secret from a file, a variable (env://NAME) or standard
// input (-). A command line is no place for one: others can read it.
func (a *app) secretFrom(flag, where string) (vault.Secret, error) {
	var value string
	if name, ok := strings.CutPrefix(where, "env://"); ok {
		value = a.env[name]
	} else if where == "-" {
		if err := a.takeStdin(flag); err != nil {
			return vault.Secret{}, err
		}
		s, err := readSecret(a.stdin)
		if err != nil {
			return vault.Secret{}, err
		}
		value = s
	} else {
		raw, err := readFileBounded(where, maxSecretFile)
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err // the path may be the secret itself, given by mistake
		}
		if err != nil {
			return vault.Secret{}, &usageError{msg: fmt.Sprintf("%s: %v", flag, err), hint: flag + " takes the path of a file, - or env://NAME"}
		}
		value = string(raw)
	}
	if strings.TrimSpace(value) == "" {
		return vault.Secret{}, &usageError{msg: flag + ": what it names is empty or not set", hint: flag + " takes the path of a file, - or env://NAME"}
	}
	return vault.NewSecret(value), nil
}

func (a *app) certLogin(v *vaultFlags) (vaultLogin, error) {
	cert, key := a.env.first("VAULT_CLIENT_CERT", "BAO_CLIENT_CERT"), a.env.first("VAULT_CLIENT_KEY", "BAO_CLIENT_KEY")
	if cert == "" || key == "" {
		return vaultLogin{}, &usageError{msg: "--vault-auth cert needs a client certificate", hint: "set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY"}
	}
	return vaultLogin{source: vault.Cert{Login: v.login()}, what: v.described("cert", cert)}, nil
}
