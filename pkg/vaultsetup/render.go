// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// jsonFields are the fields as the API takes them.
func jsonFields(fields []Field) string {
	var lines []string
	for _, f := range fields {
		value := f.Value
		switch v := value.(type) {
		case time.Duration:
			value = int64(v / time.Second)
		case []string:
			if v == nil {
				value = []string{}
			}
		}
		var b strings.Builder
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(value) // of strings, numbers, lists and maps of strings: it cannot fail
		lines = append(lines, fmt.Sprintf("  %q: %s", f.Name, strings.TrimSpace(b.String())))
	}
	return "{\n" + strings.Join(lines, ",\n") + "\n}"
}

// CLI is a POSIX shell script for the vault (or bao) command line. It can be run
// again: it makes what is missing, writes policy, configuration and role as
// planned, and stops before a key or an issuer that is something else.
func (p Plan) CLI() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	p.comment(&b, "Run it with VAULT_ADDR and a token that may do this.")
	b.WriteString("set -eu\nvault() { command \"${VAULT_CLI:-vault}\" \"$@\"; } # VAULT_CLI=bao for OpenBao\n")
	for _, r := range p.Resources {
		fmt.Fprintf(&b, "\n# %s\n", title(r))
		switch r.Kind {
		case Mount:
			fmt.Fprintf(&b, "vault read %s >/dev/null 2>&1 || vault secrets enable -path=%s transit\n", r.Path, r.Name)
		case Auth:
			fmt.Fprintf(&b, "vault read %s >/dev/null 2>&1 || vault auth enable -path=%s %s\n", r.Path, r.Name, r.field("type"))
		case Key:
			p.keyCommands(&b, r)
		case Policy:
			fmt.Fprintf(&b, "vault policy write %s - <<'POLICY'\n%sPOLICY\n", r.Name, r.field("policy"))
		case Config:
			p.configGuard(&b, r)
			writeJSON(&b, r.Path, r.Fields)
		case Role:
			writeJSON(&b, r.Path, r.Fields)
		}
	}
	if p.Method == AppRole {
		b.WriteString(p.delivery())
	}
	return b.String()
}

func (p Plan) comment(b *strings.Builder, how string) {
	fmt.Fprintf(b, "# What aegis-oci needs in Vault, method %s. %s\n", p.Method, how)
	for _, n := range p.Notices() {
		fmt.Fprintf(b, "# Note: %s.\n", n)
	}
}

func title(r Resource) string {
	switch r.Kind {
	case Mount:
		return "the Transit engine"
	case Key:
		return "the signing key; it cannot be exported or deleted"
	case Policy:
		return "the policy"
	case Auth:
		return "the auth method"
	case Config:
		return "whom the auth method believes"
	}
	return "the role: who may log in, and what the token may do"
}

func writeJSON(b *strings.Builder, path string, fields []Field) {
	fmt.Fprintf(b, "vault write %s - <<'JSON'\n%s\nJSON\n", path, jsonFields(fields))
}

// keyCommands never delete: what a key of the wrong type protects is lost with it.
func (p Plan) keyCommands(b *strings.Builder, r Resource) {
	creation, config := split(r.Fields)
	fmt.Fprintf(b, "type=$(vault read -field=type %s 2>/dev/null) || type=\ncase $type in\n'')\n", r.Path)
	writeJSON(b, r.Path, creation)
	fmt.Fprintf(b, "\t;;\n%s)\n\techo \"%s is there, of type $type\"\n\t;;\n*)\n", strings.Join(SigningKeyTypes, " | "), r.Path)
	fmt.Fprintf(b, "\techo \"%s is of type $type, which cannot sign. Nothing was deleted: choose another --key-name.\" >&2\n\texit 1\n\t;;\nesac\n", r.Path)
	writeJSON(b, r.Path+"/config", config)
}

// split parts what a key is made with from what can be set later.
func split(fields []Field) (creation, config []Field) {
	for _, f := range fields {
		if f.Name == "deletion_allowed" {
			config = append(config, f)
		} else {
			creation = append(creation, f)
		}
	}
	return creation, config
}

// configGuard stops before it takes the mount away from those who use it.
func (p Plan) configGuard(b *strings.Builder, r Resource) {
	first := r.Fields[0]
	fmt.Fprintf(b, "now=$(vault read -field=%s %s 2>/dev/null) || now=\n", first.Name, r.Path)
	fmt.Fprintf(b, "case $now in\n'' | '%s') ;;\n*)\n\techo \"%s is in use for $now: choose another --auth-mount\" >&2\n\texit 1\n\t;;\nesac\n", first.Value, r.Path)
}

func (p Plan) delivery() string {
	role := p.resource(Role).Path
	return fmt.Sprintf(`
# For each host: the role_id is no secret, the secret_id is one. Wrapped, it can be
# opened once within five minutes, and whoever opens it first is found out.
#   vault read -field=role_id %s/role-id
#   vault write -f -wrap-ttl=5m -field=wrapping_token %s/secret-id
`, role, role)
}

// HCL is the policy, for vault policy write NAME -, with all the rest in comments.
func (p Plan) HCL() string {
	var b strings.Builder
	policy := p.resource(Policy)
	p.comment(&b, fmt.Sprintf("This is the policy: vault policy write %s FILE.", policy.Name))
	b.WriteString("# The rest, as the API has it:\n")
	for _, r := range p.Resources {
		if r.Kind == Policy {
			continue
		}
		fmt.Fprintf(&b, "#\n# %s\n# vault write %s -\n", title(r), r.Path)
		for line := range strings.SplitSeq(jsonFields(r.Fields), "\n") {
			b.WriteString("#   " + line + "\n")
		}
	}
	b.WriteString("\n" + policy.field("policy").(string))
	return b.String()
}
