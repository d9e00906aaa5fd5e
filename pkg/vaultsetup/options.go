// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
)

// Method is how a client proves who it is.
type Method string

// The methods. GitHub is JWT with the claims of a GitHub Actions job.
const (
	GitHub     Method = "github"
	Kubernetes Method = "kubernetes"
	AppRole    Method = "approle"
	JWT        Method = "jwt"
)

// MaxTokenTTL bounds the tokens that a role may give out.
const MaxTokenTTL = time.Hour

// GitHubIssuer issues the tokens of jobs on github.com.
const GitHubIssuer = "https://token.actions.githubusercontent.com"

// Options say which names to use and who may log in. A zero field has the default
// that its comment names.
type Options struct {
	TransitMount string // transit
	Key          string // aegis-model-sign
	KeyType      string // ecdsa-p256
	// VerifyOnly leaves signing out of the policy, for the run-time side.
	VerifyOnly bool
	Policy     string // aegis-transit-policy; with VerifyOnly aegis-transit-verify-policy
	AuthMount  string // jwt, kubernetes or approle
	Role       string // aegis-github-role, aegis-k8s-role, aegis-approle-role, aegis-jwt-role
	TokenTTL   time.Duration

	// GitHub and JWT.
	Issuer   string // GitHubIssuer; no default for JWT
	IssuerCA string // PEM; the system's roots
	Audience string // vault; no default for JWT

	// GitHub. Repository and one of the three that follow are bound; with none of
	// them it is Ref refs/heads/main.
	Repository        string
	Ref               string
	Environment       string
	JobWorkflowRef    string
	RepositoryID      string
	RepositoryOwnerID string

	// JWT.
	BoundClaims map[string]string
	UserClaim   string // sub

	// Kubernetes.
	ServiceAccount          string // aegis-app
	ServiceAccountNamespace string // default
	ServiceAccountAudience  string // vault
	KubernetesHost          string // https://kubernetes.default.svc
	KubernetesCA            string // PEM; what Vault's own pod has

	// AppRole.
	SecretIDTTL  time.Duration // 10m
	SecretIDUses int           // 1
	BoundCIDRs   []string      // none
}

// OptionError is an option that no set-up can be made of.
type OptionError struct {
	Option string // as the command line calls it, without dashes
	Reason string
}

func (e *OptionError) Error() string { return "--" + e.Option + ": " + e.Reason }

func refuse(option, format string, args ...any) error {
	return &OptionError{Option: option, Reason: fmt.Sprintf(format, args...)}
}

func (o Options) withDefaults(m Method) Options {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&o.TransitMount, "transit")
	set(&o.Key, "aegis-model-sign")
	set(&o.KeyType, "ecdsa-p256")
	if o.VerifyOnly {
		// Not the other's name: one would take the other's right to sign away.
		set(&o.Policy, "aegis-transit-verify-policy")
	}
	set(&o.Policy, "aegis-transit-policy")
	if o.TokenTTL == 0 {
		o.TokenTTL = 10 * time.Minute
	}
	o.TransitMount, o.AuthMount = strings.Trim(o.TransitMount, "/"), strings.Trim(o.AuthMount, "/")
	switch m {
	case GitHub:
		set(&o.AuthMount, "jwt")
		set(&o.Role, "aegis-github-role")
		set(&o.Issuer, GitHubIssuer)
		// Not GitHub's own default, the owner's URL: a token that a job asked for
		// without thinking of Vault should not open it.
		set(&o.Audience, "vault")
		if o.Environment == "" && o.JobWorkflowRef == "" {
			set(&o.Ref, "refs/heads/main")
		}
	case JWT:
		set(&o.AuthMount, "jwt")
		set(&o.Role, "aegis-jwt-role")
		set(&o.UserClaim, "sub")
	case Kubernetes:
		set(&o.AuthMount, "kubernetes")
		set(&o.Role, "aegis-k8s-role")
		set(&o.ServiceAccount, "aegis-app")
		set(&o.ServiceAccountNamespace, "default")
		set(&o.ServiceAccountAudience, "vault")
		set(&o.KubernetesHost, "https://kubernetes.default.svc")
	case AppRole:
		set(&o.AuthMount, "approle")
		set(&o.Role, "aegis-approle-role")
		if o.SecretIDTTL == 0 {
			o.SecretIDTTL = 10 * time.Minute
		}
		if o.SecretIDUses == 0 {
			o.SecretIDUses = 1
		}
	}
	return o
}

var (
	mountName  = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,100}(/[A-Za-z0-9][A-Za-z0-9._-]{0,100}){0,8}$`)
	plainName  = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$`)
	repository = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$`)
	number     = lazyregexp.New(`^[1-9][0-9]{0,18}$`)
	// A slash in front would make it a JSON pointer.
	claimName = lazyregexp.New(`^[A-Za-z0-9_.:-][A-Za-z0-9_/.:-]{0,99}$`)
	// plainURL keeps what a shell or a reader could misread out of URLs.
	plainURL     = lazyregexp.New(`^https?://[A-Za-z0-9._~:/\[\]-]{1,300}$`)
	dnsLabel     = lazyregexp.New(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
	addressRange = lazyregexp.New(`^[0-9A-Fa-f.:]+/[0-9]{1,3}$`)
)

// SigningKeyTypes are the Transit key types that can sign models.
var SigningKeyTypes = []string{"ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519"}

func (o Options) check(m Method) error {
	for option, value := range map[string]string{"transit-mount": o.TransitMount, "auth-mount": o.AuthMount} {
		if !mountName().MatchString(value) {
			return refuse(option, "%q is no name of a mount", value)
		}
	}
	for option, value := range map[string]string{"key-name": o.Key, "policy-name": o.Policy, "role": o.Role} {
		if !plainName().MatchString(value) {
			return refuse(option, "%q is no name: letters, digits, dot, dash, underscore", value)
		}
	}
	switch {
	case !slices.Contains(SigningKeyTypes, o.KeyType):
		return refuse("key-type", "%q cannot sign models; %s can", o.KeyType, strings.Join(SigningKeyTypes, ", "))
	case o.Policy == "root" || o.Policy == "default":
		return refuse("policy-name", "%s is Vault's own policy", o.Policy)
	case o.TokenTTL < time.Minute || o.TokenTTL > MaxTokenTTL || o.TokenTTL%time.Second != 0:
		return refuse("token-ttl", "%s is not between 1m and %s, in whole seconds", o.TokenTTL, MaxTokenTTL)
	}
	switch m {
	case GitHub:
		return o.checkGitHub()
	case JWT:
		return o.checkJWT()
	case Kubernetes:
		return o.checkKubernetes()
	case AppRole:
		return o.checkAppRole()
	}
	return refuse("method", "%q is not known", m)
}

// literal refuses what a reader could take for a pattern: the role compares
// literally, so that a glob would match nothing, or, set to globs by somebody
// later, too much.
func literal(option, value string) error {
	if strings.ContainsAny(value, "*?") || strings.TrimSpace(value) != value {
		return refuse(option, "%q: claims are compared literally; patterns are not used", value)
	}
	for _, r := range value {
		if r < ' ' || r == 0x7f {
			return refuse(option, "%q holds a control character", value)
		}
	}
	if value == "" || len(value) > 500 {
		return refuse(option, "it is empty or longer than 500 bytes")
	}
	return nil
}

func (o Options) checkGitHub() error {
	if !repository().MatchString(o.Repository) {
		return refuse("repository", "%q is not OWNER/REPOSITORY", o.Repository)
	}
	given := 0
	for option, value := range map[string]string{"git-ref": o.Ref, "environment": o.Environment, "job-workflow-ref": o.JobWorkflowRef} {
		if value == "" {
			continue
		}
		given++
		if err := literal(option, value); err != nil {
			return err
		}
	}
	if given > 1 {
		return refuse("git-ref", "give one of --git-ref, --environment, --job-workflow-ref")
	}
	if o.Ref != "" && !strings.HasPrefix(o.Ref, "refs/") {
		return refuse("git-ref", "%q is no full ref, such as refs/heads/main or refs/tags/v1", o.Ref)
	}
	for option, value := range map[string]string{"repository-id": o.RepositoryID, "repository-owner-id": o.RepositoryOwnerID} {
		if value != "" && !number().MatchString(value) {
			return refuse(option, "%q is no number", value)
		}
	}
	return o.checkIssuer()
}

func (o Options) checkIssuer() error {
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" || !plainURL().MatchString(o.Issuer) {
		return refuse("issuer", "%q is no URL such as https://gitlab.example.com", o.Issuer)
	}
	if h := u.Hostname(); u.Scheme == "http" && h != "127.0.0.1" && h != "localhost" && h != "::1" {
		return refuse("issuer", "%q: over plain HTTP anybody on the way could issue tokens", o.Issuer)
	}
	return literal("audience", o.Audience)
}

func (o Options) checkJWT() error {
	if len(o.BoundClaims) == 0 {
		return refuse("bound-claim", "give at least one: without it every token of the issuer could sign")
	}
	for name, value := range o.BoundClaims {
		if !claimName().MatchString(name) {
			return refuse("bound-claim", "%q is no name of a claim", name)
		}
		if err := literal("bound-claim", value); err != nil {
			return err
		}
	}
	if !claimName().MatchString(o.UserClaim) {
		return refuse("user-claim", "%q is no name of a claim", o.UserClaim)
	}
	return o.checkIssuer()
}

func (o Options) checkKubernetes() error {
	for option, value := range map[string]string{"service-account": o.ServiceAccount, "service-account-namespace": o.ServiceAccountNamespace} {
		// A star would bind every one.
		if !dnsLabel().MatchString(value) {
			return refuse(option, "%q is no name in Kubernetes", value)
		}
	}
	if u, err := url.Parse(o.KubernetesHost); err != nil || u.Scheme != "https" || u.Host == "" || !plainURL().MatchString(o.KubernetesHost) {
		return refuse("kubernetes-host", "%q is no https URL", o.KubernetesHost)
	}
	return literal("service-account-audience", o.ServiceAccountAudience)
}

func (o Options) checkAppRole() error {
	if o.SecretIDTTL < time.Minute || o.SecretIDTTL%time.Second != 0 {
		return refuse("secret-id-ttl", "%s is shorter than a minute, or no whole seconds", o.SecretIDTTL)
	}
	if o.SecretIDUses < 1 {
		return refuse("secret-id-uses", "%d: a secret_id must run out", o.SecretIDUses)
	}
	for _, c := range o.BoundCIDRs {
		if !addressRange().MatchString(c) {
			return refuse("bound-cidr", "%q is no range such as 10.0.0.0/24", c)
		}
	}
	return nil
}
