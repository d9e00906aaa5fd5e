// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
)

// Whatever reads standard input second would find it empty, and take that for a
// document, a token or a log without entries.
func TestStandardInputHasOneReader(t *testing.T) {
	t.Parallel()
	const secret = `{"version":1,"policies":[{"name":"hunter2","scopes":["*"],"keys":[{"name":"k","key":"hashivault://transit/models"}]}]}`
	approle := []string{"--vault-auth", "approle", "--vault-role-id", "r", "--vault-secret-id-file", "-", "--vault-addr", "http://127.0.0.1:1", "--retry-timeout", "1ms"}
	for name, args := range map[string][]string{
		"--check-jwt - and --vault-secret-id-file - both": append([]string{"vault", "setup", "github", "--repository", "acme/models", "--check", "--check-jwt", "-"}, approle...),
		"--log - and --vault-secret-id-file - both":       append([]string{"vault", "audit", "--key", "hashivault://models", "--repo", "127.0.0.1:1/m", "--log", "-"}, approle...),
		"--policy - and --vault-secret-id-file - both":    append([]string{"verify", "--policy", "-", "127.0.0.1:1/m:v1"}, approle...),
		"--log - and --password-stdin both":               {"vault", "audit", "--key", "hashivault://models", "--repo", "127.0.0.1:1/m", "--log", "-", "-u", "ci", "--password-stdin"},
		"--password-stdin and --policy - both":            {"verify", "--policy", "-", "-u", "ci", "--password-stdin", "127.0.0.1:1/m:v1"},
		"standard input can be read once":                 {"vault", "audit", "--key", "hashivault://models", "--repo", "127.0.0.1:1/m", "--log", "-", "--log", "-"},
	} {
		r := runCLI(t, nil, secret, args...)
		if !strings.Contains(name, "once") {
			name += " read standard input"
		}
		wantExit(t, r, exitUsage, strings.Replace(name, "secret-id-file - both", "secret-id-file both", 1))
		if strings.Contains(r.stdout+r.stderr, "hunter2") {
			t.Errorf("%s: what was read is shown:\n%s%s", name, r.stdout, r.stderr)
		}
	}
}
