// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"fmt"
	"strings"
	"time"
)

// Plan is everything that one method needs, in the order in which it is made.
type Plan struct {
	Method    Method
	Resources []Resource

	options Options
}

// Kind tells how a resource is made and read.
type Kind string

// The kinds of resources.
const (
	Mount  Kind = "mount"  // a secrets engine
	Key    Kind = "key"    // a Transit key
	Policy Kind = "policy" // an ACL policy
	Auth   Kind = "auth"   // an auth method's mount
	Config Kind = "config" // its configuration
	Role   Kind = "role"
)

// Resource is one thing in Vault.
type Resource struct {
	Kind Kind
	Name string // of the mount, key, policy or role; of the mount for Config
	// Path is where the API reads and writes it, without /v1/.
	Path   string
	Fields []Field
}

// Field is one setting. Value is a string, bool, int, time.Duration, []string or
// map[string]string.
type Field struct {
	Name  string
	Value any
}

func (r Resource) field(name string) any {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
}

// resource is the plan's one resource of a kind.
func (p Plan) resource(k Kind) Resource {
	for _, r := range p.Resources {
		if r.Kind == k {
			return r
		}
	}
	return Resource{}
}

// New makes the plan of a method. Errors are *OptionError.
func New(m Method, o Options) (Plan, error) {
	o = o.withDefaults(m)
	if err := o.check(m); err != nil {
		return Plan{}, err
	}
	p := Plan{Method: m, options: o}
	authType := map[Method]string{GitHub: "jwt", JWT: "jwt", Kubernetes: "kubernetes", AppRole: "approle"}[m]
	p.Resources = append(p.Resources,
		Resource{Kind: Mount, Name: o.TransitMount, Path: "sys/mounts/" + o.TransitMount, Fields: []Field{{"type", "transit"}}},
		Resource{Kind: Key, Name: o.Key, Path: o.TransitMount + "/keys/" + o.Key, Fields: []Field{
			{"type", o.KeyType}, {"derived", false}, {"exportable", false}, {"allow_plaintext_backup", false}, {"deletion_allowed", false},
		}},
		Resource{Kind: Policy, Name: o.Policy, Path: "sys/policies/acl/" + o.Policy, Fields: []Field{{"policy", o.policy()}}},
		Resource{Kind: Auth, Name: o.AuthMount, Path: "sys/auth/" + o.AuthMount, Fields: []Field{{"type", authType}}},
	)
	if config := o.config(m); config != nil {
		p.Resources = append(p.Resources, Resource{Kind: Config, Name: o.AuthMount, Path: "auth/" + o.AuthMount + "/config", Fields: config})
	}
	p.Resources = append(p.Resources, Resource{Kind: Role, Name: o.Role, Path: "auth/" + o.AuthMount + "/role/" + o.Role,
		Fields: append(o.role(m), o.token()...)})
	return p, nil
}

// policy is the ACL policy: the key, and what a token needs to look at itself and
// to end, which the role's token_no_default_policy takes away.
func (o Options) policy() string {
	var b strings.Builder
	grant := func(why, path, capability string) {
		fmt.Fprintf(&b, "# %s\npath %q {\n  capabilities = [%q]\n}\n", why, path, capability)
	}
	if !o.VerifyOnly {
		grant("sign with this key, and no other", o.TransitMount+"/sign/"+o.Key, "update")
	}
	grant("verify with this key, and no other", o.TransitMount+"/verify/"+o.Key, "update")
	grant("learn the token's own lifetime", "auth/token/lookup-self", "read")
	grant("end the token when the work is done", "auth/token/revoke-self", "update")
	return b.String()
}

func (o Options) config(m Method) []Field {
	switch m {
	case GitHub, JWT:
		fields := []Field{{"oidc_discovery_url", o.Issuer}, {"bound_issuer", o.Issuer}}
		if o.IssuerCA != "" {
			fields = append(fields, Field{"oidc_discovery_ca_pem", o.IssuerCA})
		}
		return fields
	case Kubernetes:
		fields := []Field{{"kubernetes_host", o.KubernetesHost}}
		if o.KubernetesCA != "" {
			fields = append(fields, Field{"kubernetes_ca_cert", o.KubernetesCA})
		}
		return fields
	}
	return nil
}

func (o Options) role(m Method) []Field {
	switch m {
	case GitHub:
		return jwtRole(o.Audience, o.boundClaims(), "repository", githubMetadata())
	case JWT:
		mappings := make(map[string]string)
		for name := range o.BoundClaims {
			mappings[name] = name
		}
		return jwtRole(o.Audience, o.BoundClaims, o.UserClaim, mappings)
	case Kubernetes:
		return []Field{
			{"bound_service_account_names", []string{o.ServiceAccount}},
			{"bound_service_account_namespaces", []string{o.ServiceAccountNamespace}},
			{"audience", o.ServiceAccountAudience},
		}
	}
	return []Field{
		{"bind_secret_id", true},
		{"secret_id_num_uses", o.SecretIDUses},
		{"secret_id_ttl", o.SecretIDTTL},
		{"secret_id_bound_cidrs", o.BoundCIDRs},
		{"token_bound_cidrs", o.BoundCIDRs},
	}
}

// boundClaims names the repository and where in it the job ran. It is never sub,
// whose form changed for repositories made after 15 July 2026.
func (o Options) boundClaims() map[string]string {
	claims := map[string]string{"repository": o.Repository}
	for name, value := range map[string]string{
		"ref": o.Ref, "environment": o.Environment, "job_workflow_ref": o.JobWorkflowRef,
		"repository_id": o.RepositoryID, "repository_owner_id": o.RepositoryOwnerID,
	} {
		if value != "" {
			claims[name] = value
		}
	}
	return claims
}

// githubMetadata are the claims that the audit log shows beside each request.
func githubMetadata() map[string]string {
	all := make(map[string]string)
	for _, name := range []string{"repository", "ref", "workflow_ref", "run_id", "actor"} {
		all[name] = name
	}
	return all
}

func jwtRole(audience string, bound map[string]string, user string, mappings map[string]string) []Field {
	return []Field{
		{"role_type", "jwt"},
		{"bound_audiences", []string{audience}},
		{"bound_claims_type", "string"}, // literally, never as globs
		{"bound_claims", bound},
		{"user_claim", user},
		{"claim_mappings", mappings},
	}
}

// token is what every role says of the tokens it gives. A period would let a token
// live for ever.
func (o Options) token() []Field {
	return []Field{
		{"token_policies", []string{o.Policy}},
		{"token_no_default_policy", true},
		{"token_type", "service"}, // a batch token cannot be revoked
		{"token_ttl", o.TokenTTL},
		{"token_max_ttl", o.TokenTTL},
		{"token_period", time.Duration(0)},
	}
}

// Notices are what the operator should be told aloud.
func (p Plan) Notices() []string {
	o := p.options
	switch p.Method {
	case GitHub:
		bound := p.resource(Role).field("bound_claims").(map[string]string)
		list := []string{"only jobs of " + describe(bound) + " can log in"}
		if o.RepositoryID == "" {
			list = append(list, "whoever takes over the name "+o.Repository+" later could log in too: --repository-id and --repository-owner-id prevent that")
		}
		return list
	case JWT:
		return []string{"every token of " + o.Issuer + " for " + o.Audience + " with " + describe(o.BoundClaims) + " can log in"}
	case Kubernetes:
		return []string{"the pod needs a projected token with the audience " + o.ServiceAccountAudience + "; its default token is refused"}
	}
	return []string{"AppRole is for hosts without an identity of their own; deliver each secret_id wrapped"}
}

func describe(claims map[string]string) string {
	var parts []string
	for _, name := range sortedKeys(claims) {
		parts = append(parts, name+"="+claims[name])
	}
	return strings.Join(parts, ", ")
}
