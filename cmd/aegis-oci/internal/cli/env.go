// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const envPrefix = "AEGIS_"

// requireVerify is the one variable that is no flag's twin: set to 1 by whoever
// runs a platform, it refuses --verify=false to everybody.
const requireVerify = "AEGIS_REQUIRE_VERIFY"

// exclusive lists the flags of which one speaks for all: given on the command
// line it beats the variables of the others too.
var exclusive = [][]string{
	{"key", "policy", "notation-policy", "verify"},
	{"password", "password-stdin", "identity-token-stdin"},
	{"digest-cache", "no-digest-cache"},
	{"vault-jwt-env", "vault-jwt-file"},
	{"vault-secret-id-file", "vault-wrapped-secret-id-file"},
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// environment looks variables up; it is passed in, so that tests need no
// process-wide state.
type environment map[string]string

func newEnvironment(environ []string) environment {
	e := make(environment, len(environ))
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		e[k] = v
	}
	return e
}

// first returns the first of names that is set and not empty.
func (e environment) first(names ...string) string {
	for _, n := range names {
		if e[n] != "" {
			return e[n]
		}
	}
	return ""
}

// applyTwins gives every flag of cmd that is not on the command line the value of
// its variable.
func (e environment) applyTwins(cmd *cobra.Command) error {
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if failed != nil || f.Changed || f.Name == "help" {
			return
		}
		value, set := e[envName(f.Name)]
		if !set || value == "" {
			return
		}
		if beaten(cmd, f.Name) {
			// It has no effect, and must not be a switch that only seems to be set.
			if _, err := strconv.ParseBool(value); err != nil && f.Value.Type() == "bool" {
				failed = usagef("%s: %q is neither true nor false", envName(f.Name), value)
			}
			return
		}
		if err := setTwin(f, value); err != nil {
			failed = usagef("%s: %v", envName(f.Name), err)
		}
	})
	return failed
}

// beaten reports that a flag of name's group stands on the command line.
func beaten(cmd *cobra.Command, name string) bool {
	for _, group := range exclusive {
		if !slices.Contains(group, name) {
			continue
		}
		for _, other := range group {
			if onCommandLine(cmd.Flags().Lookup(other)) {
				return true
			}
		}
	}
	return false
}

// onCommandLine reports that there is such a flag, and that it is set and not by its
// variable.
func onCommandLine(f *pflag.Flag) bool {
	return f != nil && f.Changed && f.Annotations[fromEnv] == nil
}

// fromEnv marks a flag that its variable has set.
const fromEnv = "aegis-from-environment"

// setTwin sets a flag from its variable. Lists are separated by commas.
func setTwin(f *pflag.Flag, value string) error {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		var items []string
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		if err := list.Replace(items); err != nil {
			return err
		}
	} else if err := f.Value.Set(value); err != nil {
		return err
	}
	f.Changed = true
	if f.Annotations == nil {
		f.Annotations = make(map[string][]string)
	}
	f.Annotations[fromEnv] = []string{"true"}
	return nil
}

// unknownTwins returns a warning for every AEGIS_ variable that no command knows.
func (e environment) unknownTwins(root *cobra.Command) []string {
	known := map[string]bool{requireVerify: true}
	var learn func(*cobra.Command)
	learn = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known[envName(f.Name)] = true })
		c.PersistentFlags().VisitAll(func(f *pflag.Flag) { known[envName(f.Name)] = true })
		for _, sub := range c.Commands() {
			learn(sub)
		}
	}
	learn(root)
	var warnings []string
	for name := range e {
		if !strings.HasPrefix(name, envPrefix) || known[name] || serviceLink(name) {
			continue
		}
		w := fmt.Sprintf("%s is not a variable of aegis-oci", name)
		if near := nearest(name, known); near != "" {
			w += "; did you mean " + near + "?"
		}
		warnings = append(warnings, w)
	}
	slices.Sort(warnings)
	return warnings
}

// serviceLink tells the variables that Kubernetes makes for a service called
// aegis or aegis-something.
func serviceLink(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") ||
		strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}

func nearest(name string, known map[string]bool) string {
	best, bestDistance := "", 4
	for k := range known {
		if d := distance(name, k); d < bestDistance || (d == bestDistance && best != "" && k < best) {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
