// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"fmt"
	"strings"
	"time"
)

// Terraform is the plan for the hashicorp/vault provider, which takes address and
// token from the environment. Where the mounts exist already they want an import.
func (p Plan) Terraform() string {
	var b strings.Builder
	p.comment(&b, "For Terraform and OpenTofu.")
	b.WriteString("\nterraform {\n  required_providers {\n    vault = {\n      source = \"hashicorp/vault\"\n    }\n  }\n}\n")
	for _, r := range p.Resources {
		switch r.Kind {
		case Mount:
			block(&b, "vault_mount", "transit", []Field{{"path", r.Name}, {"type", "transit"}})
		case Key:
			fields := append([]Field{{"backend", expression("vault_mount.transit.path")}, {"name", r.Name}}, r.Fields...)
			block(&b, "vault_transit_secret_backend_key", "signing", fields)
		case Policy:
			block(&b, "vault_policy", "aegis", []Field{{"name", r.Name}, {"policy", heredoc(r.field("policy").(string))}})
		case Auth:
			// The provider makes the mount of jwt auth with its configuration.
			if p.Method == Kubernetes || p.Method == AppRole {
				block(&b, "vault_auth_backend", "aegis", []Field{{"path", r.Name}, {"type", r.field("type")}})
			}
		case Config:
			p.terraformConfig(&b, r)
		case Role:
			p.terraformRole(&b, r)
		}
	}
	return b.String()
}

func (p Plan) terraformConfig(b *strings.Builder, r Resource) {
	if p.Method == Kubernetes {
		block(b, "vault_kubernetes_auth_backend_config", "aegis", append([]Field{{"backend", expression("vault_auth_backend.aegis.path")}}, r.Fields...))
		return
	}
	block(b, "vault_jwt_auth_backend", "aegis", append([]Field{{"path", r.Name}, {"type", "jwt"}}, r.Fields...))
}

func (p Plan) terraformRole(b *strings.Builder, r Resource) {
	kind, backend := "vault_jwt_auth_backend_role", "vault_jwt_auth_backend.aegis.path"
	switch p.Method {
	case Kubernetes:
		kind, backend = "vault_kubernetes_auth_backend_role", "vault_auth_backend.aegis.path"
	case AppRole:
		kind, backend = "vault_approle_auth_backend_role", "vault_auth_backend.aegis.path"
	}
	fields := []Field{{"backend", expression(backend)}, {"role_name", r.Name}}
	for _, f := range r.Fields {
		if f.Name == "token_policies" {
			f.Value = expression("[vault_policy.aegis.name]")
		}
		fields = append(fields, f)
	}
	block(b, kind, "aegis", fields)
}

type (
	expression string
	heredoc    string
)

func block(b *strings.Builder, kind, name string, fields []Field) {
	width := 0
	for _, f := range fields {
		width = max(width, len(f.Name))
	}
	fmt.Fprintf(b, "\nresource %q %q {\n", kind, name)
	for _, f := range fields {
		fmt.Fprintf(b, "  %-*s = %s\n", width, f.Name, terraformValue(f.Value))
	}
	b.WriteString("}\n")
}

func terraformValue(v any) string {
	switch v := v.(type) {
	case expression:
		return string(v)
	case heredoc:
		return "<<-EOT\n" + indent(template(string(v))) + "  EOT"
	case string:
		return quoted(v)
	case time.Duration:
		return fmt.Sprint(int64(v / time.Second))
	case []string:
		var items []string
		for _, s := range v {
			items = append(items, quoted(s))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]string:
		s := "{\n"
		for _, k := range sortedKeys(v) {
			s += "    " + quoted(k) + " = " + quoted(v[k]) + "\n"
		}
		return s + "  }"
	}
	return fmt.Sprint(v)
}

// template keeps what stands in a value from being evaluated.
func template(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "${", "$${", "%{", "%%{").Replace(s) + `"`
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("    " + line)
	}
	return b.String()
}
