// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
)

const cliPage = "docs/cli.md"

// flag is what --help, or the page, says of one.
type flag struct {
	short  string
	preset string
	env    string
}

// run starts the program without any environment and returns stdout.
func run(t *testing.T, wantExit int, args ...string) string {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != wantExit {
		t.Fatalf("aegis-oci %s: exit code %d, want %d", strings.Join(args, " "), got, wantExit)
	}
	return string(out)
}

var (
	subcommand = regexp.MustCompile(`(?m)^  ([a-z-]+) +[A-Z]`)
	helpFlag   = regexp.MustCompile(`(?m)^ +(?:-(\w), )?--([a-z0-9-]+)(?: \w+)?(?:   *(.*))?$`)
	preset     = regexp.MustCompile(`\(default (.+)\)$`)
)

// commands lists the words after aegis-oci of every command, the root's first.
func commands(t *testing.T, path ...string) [][]string {
	t.Helper()
	all := [][]string{path}
	_, list, found := strings.Cut(run(t, 0, append(path, "--help")...), "Available Commands:\n")
	if !found {
		return all
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
		if m[1] != "help" {
			all = append(all, commands(t, append(slices.Clone(path), m[1])...)...)
		}
	}
	return all
}

// helpFlags reads the flags of a command from its --help.
func helpFlags(t *testing.T, path []string) map[string]flag {
	t.Helper()
	_, list, found := strings.Cut(run(t, 0, append(path, "--help")...), "\nFlags:\n")
	if !found {
		t.Fatalf("%v --help lists no flags", path)
	}
	flags := make(map[string]flag)
	for _, m := range helpFlag.FindAllStringSubmatch(list, -1) {
		if m[2] == "help" {
			continue
		}
		f := flag{short: m[1], env: "AEGIS_" + strings.ToUpper(strings.ReplaceAll(m[2], "-", "_"))}
		if d := preset.FindStringSubmatch(m[3]); d != nil {
			f.preset = plain(d[1])
		}
		flags[m[2]] = f
	}
	return flags
}

// plain strips what quotes a default, and writes durations alike.
func plain(s string) string {
	s = strings.Trim(strings.ReplaceAll(s, "`", ""), `"[]`)
	if d, err := time.ParseDuration(s); err == nil {
		return d.String()
	}
	return s
}

var pageFlag = regexp.MustCompile("^(?:`-(\\w)`, )?`--([a-z0-9-]+)(?: [^`]+)?`$")

// tableFlags reads the flags of the tables in text.
func tableFlags(t *testing.T, text string) map[string]flag {
	t.Helper()
	flags := make(map[string]flag)
	for _, row := range tables(text) {
		m := pageFlag.FindStringSubmatch(row[0])
		if m == nil {
			continue
		}
		if len(row) != 4 || row[3] == "" {
			t.Errorf("the row of --%s has %d cells: %q", m[2], len(row), row)
			continue
		}
		if _, twice := flags[m[2]]; twice {
			t.Errorf("--%s stands twice in one section", m[2])
		}
		flags[m[2]] = flag{short: m[1], preset: plain(row[2]), env: strings.Trim(row[1], "`")}
	}
	return flags
}

var groupLink = regexp.MustCompile(`\[(\w+) flags\]\(#\w+-flags\)`)

// pageFlags is what the page says of a command: its own table, and those of the
// groups that its section links to.
func pageFlags(t *testing.T, command string) map[string]flag {
	t.Helper()
	text := page(t, cliPage)
	// A command of a group has a section of its own, or shares its parent's.
	if parent, _, nested := strings.Cut(command, " "); nested && !strings.Contains(text, "\n## "+command+"\n") {
		command = parent
	}
	own := section(t, text, "## "+command)
	flags := tableFlags(t, own)
	for _, m := range groupLink.FindAllStringSubmatch(own, -1) {
		heading := "## " + strings.ToUpper(m[1][:1]) + m[1][1:] + " flags"
		for name, f := range tableFlags(t, section(t, text, heading)) {
			if _, twice := flags[name]; twice {
				t.Errorf("%s: --%s stands in its own table and in that of the %s flags", command, name, m[1])
			}
			flags[name] = f
		}
	}
	return flags
}

// TestEveryFlagIsDocumented compares --help of every command with the page, in
// both directions: names, shorthands, defaults and variables.
func TestEveryFlagIsDocumented(t *testing.T) {
	all := commands(t)
	if len(all) < 12 {
		t.Fatalf("--help shows %d commands only: %v", len(all), all)
	}
	for _, path := range all[1:] {
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			real, said := helpFlags(t, path), pageFlags(t, strings.Join(path, " "))
			if len(path) == 1 && path[0] == "completion" {
				delete(said, "no-descriptions") // of its subcommands
			}
			for _, name := range slices.Sorted(maps.Keys(real)) {
				got, ok := said[name]
				switch {
				case !ok:
					t.Errorf("--%s is not on the page", name)
				case got != real[name]:
					t.Errorf("--%s: the page says %+v, --help %+v", name, got, real[name])
				}
			}
			for _, name := range slices.Sorted(maps.Keys(said)) {
				if _, ok := real[name]; !ok {
					t.Errorf("--%s is on the page and does not exist", name)
				}
			}
		})
	}
}

// TestEveryTwinWorks gives each flag's variable a value that no flag takes, and
// expects the error to name the variable. Texts take any value.
func TestEveryTwinWorks(t *testing.T) {
	for _, name := range []string{"AEGIS_TIMEOUT", "AEGIS_DEBUG", "AEGIS_CONCURRENCY", "AEGIS_PLAIN_HTTP", "AEGIS_MAX_TOKEN_TTL"} {
		cmd := exec.Command(program(t), "verify", "--key", "none.pub", "registry.example.com/models/vad:v1")
		cmd.Env = []string{name + "=not-a-value"}
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), name+": ") {
			t.Errorf("%s=not-a-value: exit code %d: %s", name, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// field is one field of a result: "signatures[].format".
type field struct{ name, kind string }

// fields lists the JSON of a struct in its order, nested structs after their
// parents.
func fields(t reflect.Type, prefix string) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		kind, inner, suffix := kindOf(f.Type)
		if strings.HasPrefix(options, "omit") {
			kind += ", optional"
		}
		all = append(all, field{prefix + name, kind})
		if inner != nil {
			all = append(all, fields(inner, prefix+name+suffix+".")...)
		}
	}
	return all
}

// kindOf is the JSON type, and the struct inside if there is one.
func kindOf(t reflect.Type) (kind string, inner reflect.Type, suffix string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "string", nil, ""
	case t.Kind() == reflect.Struct:
		return "object", t, ""
	case t == reflect.TypeFor[[]byte](): // base64
		return "string", nil, ""
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "array", t.Elem(), "[]"
	}
	return map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer",
		reflect.Map: "object", reflect.Slice: "array",
	}[t.Kind()], nil, ""
}

// saidFields reads the table of a section.
func saidFields(t *testing.T, heading string) []field {
	t.Helper()
	var all []field
	for _, row := range tables(section(t, page(t, cliPage), heading)) {
		if len(row) != 3 {
			t.Errorf("%s: a row has %d cells: %q", heading, len(row), row)
			continue
		}
		all = append(all, field{strings.Trim(row[0], "`"), row[1]})
	}
	return all
}

func TestEveryResultIsDocumented(t *testing.T) {
	for heading, result := range map[string]any{
		"### Result of push":    aegis.PushResult{},
		"### Result of sign":    aegis.SignResult{},
		"### Result of pull":    aegis.PullResult{},
		"### Result of verify":  aegis.VerifyResult{},
		"### Result of inspect": aegis.InspectResult{},
		"### Result of tag":     aegis.TagResult{},
		"### Result of copy":    aegis.CopyResult{},

		"### Result of vault audit":               auditlog.Report{},
		"### Result of sign with --dir or --file": aegis.LocalSignResult{},
		"### Result of key show":                  aegis.KeyResult{},
		"### Result of key public":                aegis.PublicKeyResult{},
		"### Result of key certificate":           aegis.CertificateResult{},
		"### Result of key csr":                   aegis.RequestResult{},
		"### Result of policy explain":            aegis.Record{},
		"### Result of policy replay":             aegis.ReplayResult{},
	} {
		want, got := fields(reflect.TypeOf(result), ""), saidFields(t, heading)
		for _, f := range want {
			if !slices.Contains(got, f) {
				t.Errorf("%s lacks | `%s` | %s |", heading, f.name, f.kind)
			}
		}
		for _, f := range got {
			if !slices.Contains(want, f) {
				t.Errorf("%s has `%s` (%s), which does not exist", heading, f.name, f.kind)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s has %d fields, the result %d", heading, len(got), len(want))
		}
	}
}

// expired is a file with a token that nobody signed.
func expired(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token.jwt")
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1000,"aud":"vault"}`))
	if err := os.WriteFile(name, []byte("e30."+claims+".c2ln"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPrintedResultsAreDocumented looks at the results whose types this package
// cannot see.
func TestPrintedResultsAreDocumented(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	document := "version: 1\npolicies:\n- {name: n, scopes: ['*'], keys: [{name: k, key: 'hashivault://k'}]}\n"
	if err := os.WriteFile(policy, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	for heading, out := range map[string]string{
		"### Result of version":          run(t, 0, "version", "--format", "json"),
		"### Result of policy init":      run(t, 0, "policy", "init", "--scope", "r.io/**", "--key", "k.pub", "--format", "json"),
		"### Result of policy check":     run(t, 0, "policy", "check", "--policy", policy, "--format", "json"),
		"### Result of policy test":      run(t, 0, "policy", "test", "--policy", policy, "--format", "json", "r.io/x"),
		"### Result of login and logout": run(t, 0, "logout", "--registry-config", config, "--format", "json", "registry.example.com"),
		"### Result of doctor":           run(t, 4, "doctor", "--format", "json", "--key", "hashivault://NAME"),
		"### Result of vault setup":      run(t, 3, "vault", "setup", "kubernetes", "--check-jwt", expired(t), "--format", "json"),
		"### Failures":                   run(t, 2, "verify", "--format", "json", "registry.example.com/models/vad:v1"),
	} {
		var printed map[string]any
		if err := json.Unmarshal([]byte(out), &printed); err != nil {
			t.Errorf("%s: %v: %s", heading, err, out)
			continue
		}
		if list, ok := printed["checks"].([]any); ok {
			for _, e := range list {
				for k, v := range e.(map[string]any) {
					printed["checks[]."+k] = v
				}
			}
		}
		if e, ok := printed["error"].(map[string]any); ok {
			for k, v := range e {
				printed["error."+k] = v
			}
		}
		said := saidFields(t, heading)
		for _, f := range said {
			if _, ok := printed[f.name]; !ok && !strings.HasSuffix(f.kind, "optional") {
				t.Errorf("%s: %s is not printed", heading, f.name)
			}
			delete(printed, f.name)
		}
		for name := range printed {
			t.Errorf("%s: %s is printed and not on the page", heading, name)
		}
	}
}
