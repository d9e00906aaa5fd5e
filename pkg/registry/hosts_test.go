// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const fullHosts = `
server = "https://registry.example.com"
unknown = "passed over"

[host."https://second.example.com:8443/v2/proxy"]
  capabilities = ["pull", "Resolve"]
  override_path = true
  ca = ["one.pem", "/etc/two.pem"]
  client = [["client.cert", "client.key"], ["/etc/client.pem", ""]]
  dial_timeout = "3s"
  new_in_a_later_version = 1
  [host."https://second.example.com:8443/v2/proxy".header]
    x-team = "models"
    x-many = ["a", "b"]

[host."http://127.0.0.1:30020"]
  capabilities = ["pull"]
  skip_verify = true

[host."https://pushed-to.example.com"]
  capabilities = ["push"]

[host."first-without-a-scheme.example.com"]
  ca = "ca.crt"
  client = "both.pem"
`

func TestHostsFile(t *testing.T) {
	t.Parallel()
	var warnings []string
	warn := func(s string) { warnings = append(warnings, s) }
	got, err := parseHosts([]byte(fullHosts), "/certs", "registry.example.com", warn)
	want := []Mirror{
		{
			URL: "https://second.example.com:8443/v2/proxy", OverridePath: true, CAFiles: []string{"/certs/one.pem", "/etc/two.pem"},
			Clients: [][2]string{{"/certs/client.cert", "/certs/client.key"}, {"/etc/client.pem", ""}},
			Header:  http.Header{"X-Team": {"models"}, "X-Many": {"a", "b"}}, DialTimeout: 3 * time.Second,
		},
		{URL: "http://127.0.0.1:30020", InsecureSkipTLS: true, Header: http.Header{}},
		{URL: "https://first-without-a-scheme.example.com", CAFiles: []string{"/certs/ca.crt"}, Clients: [][2]string{{"/certs/both.pem", ""}}, Header: http.Header{}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "http://127.0.0.1:30020: asked in plain HTTP") {
		t.Errorf("warnings %q", warnings)
	}
	// A server that is not the registry is one more mirror, the last.
	got, err = parseHosts([]byte(fullHosts), "/certs", "other.example.com", warn)
	if err != nil || len(got) != 4 || got[3].URL != "https://registry.example.com" {
		t.Errorf("%v %+v", err, got)
	}
	// Docker Hub's own API is no mirror of it.
	got, err = parseHosts([]byte(`server = "https://docker.io"`+"\n"+`[host."https://registry-1.docker.io"]`), "/certs", "docker.io", warn)
	if err != nil || len(got) != 0 {
		t.Errorf("%v %+v", err, got)
	}
}

func TestHostsFileRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, reason string }{
		"no TOML":               {`[host.`, "no TOML"},
		"a table twice":         {"[host.\"https://a.example.com\"]\n[host.\"https://a.example.com\"]", "no TOML"},
		"another type":          {`server = 5`, "no TOML"},
		"an unknown capability": {"[host.\"https://a.example.com\"]\ncapabilities = [\"delete\"]", "unknown capability"},
		"a ca that is a number": {"[host.\"https://a.example.com\"]\nca = 1", "ca is a int64"},
		"a list of numbers":     {"[host.\"https://a.example.com\"]\nca = [1]", "ca holds a int64"},
		"three of a pair":       {"[host.\"https://a.example.com\"]\nclient = [[\"a\",\"b\",\"c\"]]", "not a pair"},
		"a header's name":       {"[host.\"https://a.example.com\".header]\n\"x y\" = \"v\"", "no header's name"},
		"a second request":      {"[host.\"https://a.example.com\".header]\nx = \"s3cret\\r\\nX-Y: z\"", "no line of text"},
		"a header of ours":      {"[host.\"https://a.example.com\".header]\nrange = \"bytes=0-1\"", "cannot be set"},
		"a dial timeout":        {"[host.\"https://a.example.com\"]\ndial_timeout = \"soon\"", "no duration"},
	} {
		_, err := parseHosts([]byte(c.file), "/certs", "registry.example.com", func(string) {})
		if err == nil || !strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, c.reason)
		}
	}
}

// TestHostsThatCannotBeAsked are left out, each with a warning, and the others of the file stay.
func TestHostsThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	const good = "https://good.example.com"
	for name, c := range map[string]struct {
		host, table string
		warning     string // "" for none
		used        bool
	}{
		"a name that is none":           {"https://my_mirror/", "", "mirror https://my_mirror/: not used: ", false},
		"another scheme":                {"httpx://a.example.com", "", "must begin with https:// or http://", false},
		"a user":                        {"https://u:s3cret@a.example.com", "", "mirror https://a.example.com: not used: leave out the user", false},
		"a query":                       {"https://a.example.com/?a=b", "", "not used: it must be http(s)://HOST[:PORT][/PATH]", false},
		"for pushing, whatever it is":   {"https://my_mirror/", `capabilities = ["push"]`, "", false},
		"for pushing, through a proxy":  {"https://a.example.com", "capabilities = [\"push\"]\nproxy = \"http://p:8080\"", "", false},
		"through a proxy":               {"https://a.example.com", `proxy = "http://u:s3cret@p:8080"`, "not used: its hosts.toml has proxy, which is not supported", false},
		"at a socket":                   {"http://127.0.0.1:8088", `dial_addr = "unix:///run/cache.sock"`, "not used: its hosts.toml has dial_addr, which is not supported", false},
		"empty keys":                    {"https://a.example.com", "proxy = \"\"\ndial_addr = \"\"", "", true},
		"plain HTTP, and keys of TLS":   {"http://a.example.com:5000", "skip_verify = true", "mirror http://a.example.com:5000: asked in plain HTTP: ", true},
		"plain HTTP, and a certificate": {"http://a.example.com:5000", `client = "c.pem"`, "asked in plain HTTP: ", true},
		"plain HTTP":                    {"http://a.example.com:5000", "", "", true},
	} {
		var warnings []string
		file := "[host.\"" + c.host + "\"]\n" + c.table + "\n[host.\"" + good + "\"]\n"
		got, err := parseHosts([]byte(file), "/certs", "registry.example.com", func(s string) { warnings = append(warnings, s) })
		want := []string{good}
		if c.used {
			want = []string{c.host, good}
		}
		var urls []string
		for _, m := range got {
			urls = append(urls, m.URL)
		}
		if err != nil || !slices.Equal(urls, want) {
			t.Errorf("%s: %q, %v", name, urls, err)
		}
		if said := strings.Join(warnings, "\n"); (said == "") != (c.warning == "") || !strings.Contains(said, c.warning) || strings.Contains(said, "s3cret") || len(warnings) > 1 {
			t.Errorf("%s: warnings %q", name, warnings)
		}
	}
	// What leads elsewhere than to the registry itself is about no mirror.
	got, err := parseHosts([]byte("server = \"https://registry.example.com\"\nproxy = \"http://p:8080\"\n"), "/certs", "registry.example.com", func(s string) { t.Error(s) })
	if err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}

// TestHostsFolders: the first folder that is there counts, as containerd has it.
func TestHostsFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, mirror string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if mirror == "" {
			return
		}
		if err := os.WriteFile(filepath.Join(dir, name, "hosts.toml"), []byte("[host.\"https://"+mirror+"\"]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := func(registry, mirror string) {
		t.Helper()
		got, err := hostsOf(dir, registry, "linux", func(string) {})
		if err != nil || (mirror == "") != (len(got) == 0) || mirror != "" && got[0].URL != "https://"+mirror {
			t.Errorf("%s: %v %+v, want %s", registry, err, got, mirror)
		}
	}
	want("a.example.com:5000", "")
	write("_default", "all.example.com")
	want("a.example.com:5000", "all.example.com")
	write("a.example.com:5000", "colon.example.com")
	want("a.example.com:5000", "colon.example.com")
	write("a.example.com_5000_", "port.example.com")
	want("a.example.com:5000", "port.example.com")
	want("a.example.com", "all.example.com")
	write("a.example.com", "") // a folder without the file
	want("a.example.com", "")

	_, err := hostsOf(filepath.Join(dir, "nowhere"), "a.example.com", "linux", func(string) {})
	var config *ConfigError
	if !errors.As(err, &config) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if got := hostsFolders("[::1]:5000", "windows"); !reflect.DeepEqual(got, []string{"[::1]_5000_", "[1]5000", "_default"}) {
		t.Errorf("%q", got)
	}
}

func TestMirrorURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://m.example.com":               "https://m.example.com/v2",
		"https://m.example.com/":              "https://m.example.com/v2",
		"https://m.example.com/v2/":           "https://m.example.com/v2",
		"https://m.example.com/v2/proxy-hub":  "https://m.example.com/v2/proxy-hub",
		"https://m.example.com/artifactory":   "https://m.example.com/artifactory/v2",
		"https://m.example.com/a/v2":          "https://m.example.com/a/v2",
		"http://spegel:5000":                  "http://spegel:5000/v2",
		"http://mirror":                       "http://mirror/v2",
		"http://[::1]:5000":                   "http://[::1]:5000/v2",
		"https://M.Example.com/a/../b/./c//d": "https://m.example.com/b/c/d/v2",
	} {
		u, err := Mirror{URL: in}.parse()
		if err != nil || u.String() != want {
			t.Errorf("%s: %v %v, want %s", in, u, err, want)
		}
	}
	for _, in := range []string{
		"", "m.example.com", "ftp://m.example.com", "https://", "https:///v2", "https://u:p@m.example.com", "https://m.example.com?x=y",
		"https://m.example.com/#f", "https://m.example.com:99999", "https://m.example.com/%2e%2e/", "https:m.example.com", "https://m.example.com/a b", "https://a_b.example.com",
	} {
		_, err := ParseMirror(in)
		var config *ConfigError
		if !errors.As(err, &config) || strings.Contains(err.Error(), "u:p@") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// FuzzHosts: whatever a hosts.toml says, what is taken from it can be asked, and
// nothing in it reaches a request but in its own place.
func FuzzHosts(f *testing.F) {
	f.Add([]byte(fullHosts))
	f.Add([]byte(`server = "https://docker.io"`))
	f.Add([]byte(`server = "0/0.."`))
	f.Add([]byte("host.\"https://a.example.com\".capabilities = [\"pull\"]\n[host]\n[[host.x]]"))
	f.Add([]byte("[host.\"https://a.example.com\".header]\nauthorization = [\"Basic eA==\"]\n[host.\"https://a.example.com\"]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		mirrors, err := parseHosts(file, "/certs", "registry.example.com:5000", func(string) {})
		if err != nil {
			return
		}
		for _, m := range mirrors {
			u, err := m.parse()
			if err != nil {
				t.Fatalf("%q was taken: %v", m.URL, err)
			}
			if u.User != nil || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path[0] != '/' || slices.Contains(strings.Split(u.Path, "/"), "..") {
				t.Fatalf("%q is asked at %s", m.URL, u)
			}
			req := http.Request{Method: http.MethodGet, URL: u, Header: m.Header, Host: u.Host}
			var wire strings.Builder
			if err := req.Write(&wire); err != nil {
				t.Fatalf("%q: %v", m.URL, err)
			}
			lines := 3 // the request, Host and User-Agent
			for name, values := range m.Header {
				if lines += len(values); name == "User-Agent" {
					lines--
				}
			}
			if n := strings.Count(wire.String(), "\r\n") - 1; n > lines {
				t.Fatalf("%d lines of header instead of %d:\n%s", n, lines, wire.String())
			}
			for _, file := range m.CAFiles {
				if file != "" && !filepath.IsAbs(file) {
					t.Fatalf("the path %q is relative to wherever we are", file)
				}
			}
		}
	})
}
