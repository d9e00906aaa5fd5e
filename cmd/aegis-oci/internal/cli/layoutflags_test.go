// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// TestFlagsForARegistryNeedOne gives every flag that says how to reach a registry where
// there is none: in a layout, in a directory, and on one side of a copy.
func TestFlagsForARegistryNeedOne(t *testing.T) {
	t.Parallel()
	layout, key := filepath.Join(t.TempDir(), "layout")+":v1", filepath.Join(t.TempDir(), "release.pub")
	commands := []struct {
		prefix, why string
		args        []string
	}{
		{"", "REF is in a layout", []string{"pull", "--key", key, "-o", t.TempDir(), "--oci-layout", layout}},
		{"", "REF is in a layout", []string{"verify", "--key", key, "--oci-layout", layout}},
		{"", "REF is in a layout", []string{"sign", "--key", "hashivault://models", "--oci-layout", layout}},
		{"", "REF is in a layout", []string{"inspect", "--oci-layout", layout}},
		{"", "a bundle is in none", []string{"verify", "--key", key, "--file", key, "--bundle", key}},
		{"", "--dir asks none", []string{"verify", "--key", key, "--dir", t.TempDir()}},
		{"", "a bundle is in none", []string{"verify", "--key", key, "--dir", t.TempDir(), "--bundle", key}},
		{"", "a bundle is in none", []string{"sign", "--key", "hashivault://models", "--dir", t.TempDir(), "--bundle", key}},
		{"", "no REF is given", []string{"doctor"}},
		{"", "no --repo is given", []string{"vault", "audit", "--log", key}},
		{"from-", "SRC is in a layout", []string{"copy", "--from-oci-layout", layout, "127.0.0.1:1/models/vad:v1"}},
		{"to-", "DST is in a layout", []string{"copy", "--to-oci-layout", "127.0.0.1:1/models/vad:v1", layout}},
	}
	for _, c := range commands {
		for _, f := range registryFlagsOf(t, c.args[0], c.prefix) {
			arg := "--" + f.Name + "=x"
			if f.Value.Type() == "bool" {
				arg = "--" + f.Name
			}
			r := runCLI(t, nil, "secret", append(slices.Clone(c.args), arg)...)
			wantExit(t, r, 2, arg[:len("--"+f.Name)]+" says how to reach a registry, and "+c.why)
		}
	}
}

// registryFlagsOf returns the flags of a command that say how to reach a registry.
func registryFlagsOf(t *testing.T, command, prefix string) []*pflag.Flag {
	t.Helper()
	all, r := pflag.NewFlagSet("", pflag.ContinueOnError), &registryFlags{}
	if prefix == "" {
		r.register(all)
	} else {
		r.registerSide(all, prefix, "")
	}
	if command == "pull" || command == "verify" || prefix == "from-" {
		r.registerMirrors(all)
	}
	var flags []*pflag.Flag
	all.VisitAll(func(f *pflag.Flag) {
		if f.Name != "concurrency" {
			flags = append(flags, f)
		}
	})
	if len(flags) < 10 {
		t.Fatalf("%s has %d flags for a registry", command, len(flags))
	}
	return flags
}

// TestVariablesForARegistryAreForOtherCommands sets what would be refused on the command
// line: nothing is said, and no secret read.
func TestVariablesForARegistryAreForOtherCommands(t *testing.T) {
	t.Parallel()
	layout := filepath.Join(t.TempDir(), "layout") + ":v1"
	variables := map[string]string{
		"AEGIS_INSECURE": "true", "AEGIS_MIRROR": "no URL", "AEGIS_PASSWORD_STDIN": "true",
		"AEGIS_FROM_INSECURE": "true", "AEGIS_FROM_CERT_FILE": "one", "AEGIS_FROM_PASSWORD_STDIN": "true",
		"AEGIS_FROM_MIRROR": "no URL", "AEGIS_TO_INSECURE": "true", "AEGIS_TO_PASSWORD_STDIN": "true",
	}
	key := filepath.Join(t.TempDir(), "release.pub")
	if err := os.WriteFile(key, testkey.New(t, signature.ECDSAP256).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"inspect", "--oci-layout", layout},
		{"verify", "--key", key, "--oci-layout", layout},
		{"verify", "--key", key, "--dir", layout},
		{"copy", "--from-oci-layout", "--to-oci-layout", layout, layout + "-copy:v1"},
		// What has its default is not asked for, and what is no registry's is for layouts too.
		{"inspect", "--insecure=false", "--concurrency", "2", "--oci-layout", layout},
		{"copy", "--concurrency", "2", "--limit-rate", "1M", "--from-oci-layout", "--to-oci-layout", layout, layout + "-copy:v1"},
	} {
		r := runCLI(t, variables, "", args...)
		if r.exit < 3 {
			t.Errorf("%q: exit code %d:\n%s", args, r.exit, r.stderr)
		}
		if strings.Contains(r.stderr, "insecure:") {
			t.Errorf("%s: a warning about a registry:\n%s", args[0], r.stderr)
		}
	}
}
