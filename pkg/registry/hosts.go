// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// What containerd calls a registry's host namespace: a folder that is named after
// the registry, with a file that lists where its content may come from. The format
// and its meaning are those of containerd 2.4, docs/hosts.md, except that a host's
// capability "resolve" is not used: no mirror says what a tag means.

const (
	hostsFile    = "hosts.toml"
	hostsDefault = "_default"
	maxHostsFile = 1 << 20
	maxHosts     = 100
)

// hostsOf reads the mirrors of a registry from dir. No folder, no file and an
// empty file are no mirrors. Errors are *ConfigError: containerd passes over a file
// that it cannot read, and pulls from elsewhere than was asked for. warn hears of hosts
// that are left out.
func hostsOf(dir, registry, goos string, warn func(string)) ([]Mirror, error) {
	for _, name := range hostsFolders(registry, goos) {
		folder := filepath.Join(dir, name)
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, &ConfigError{Option: "mirrors", Path: folder, Err: cause(err)}
		}
		// The first folder counts, whatever is in it.
		file := filepath.Join(folder, hostsFile)
		content, err := readHosts(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, &ConfigError{Option: "mirrors", Path: file, Err: cause(err)}
		}
		mirrors, err := parseHosts(content, folder, registry, warn)
		if err != nil {
			return nil, &ConfigError{Option: "mirrors", Path: file, Err: err}
		}
		return mirrors, nil
	}
	// A folder of folders that is not there at all is a mistake.
	if _, err := os.Stat(dir); err != nil {
		return nil, &ConfigError{Option: "mirrors", Path: dir, Err: cause(err)}
	}
	return nil, nil
}

// hostsFolders are the names under which a registry is looked for: host:5000 is
// host_5000_ first, because not every file system takes a colon.
func hostsFolders(registry, goos string) []string {
	var names []string
	host, port := registry, ""
	if i := strings.LastIndexByte(registry, ':'); i > 0 && !strings.HasSuffix(registry, "]") {
		host, port = registry[:i], registry[i+1:]
	}
	if port != "" {
		names = append(names, host+"_"+port+"_")
	}
	if goos == "windows" {
		registry = strings.ReplaceAll(registry, ":", "")
	}
	return append(names, registry, hostsDefault)
}

func readHosts(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxHostsFile+1))
	if err == nil && len(content) > maxHostsFile {
		err = fmt.Errorf("it is larger than %d bytes", maxHostsFile)
	}
	return content, err
}

// hostTable is one host, and the file's top level, which describes the server.
type hostTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
	// These two lead elsewhere than to the host's address, and are not supported.
	Proxy    any `toml:"proxy"`
	DialAddr any `toml:"dial_addr"`
}

// parseHosts reads a hosts.toml that lies in folder: the hosts in the order of
// their tables, then the server, unless that is the registry itself. Keys that
// nobody knows are passed over. A host that content is pulled from and that cannot be
// asked as the file says is left out with a warning.
func parseHosts(content []byte, folder, registry string, warn func(string)) ([]Mirror, error) {
	var file struct {
		hostTable
		Server string               `toml:"server"`
		Hosts  map[string]hostTable `toml:"host"`
	}
	if err := toml.Unmarshal(content, &file); err != nil {
		return nil, fmt.Errorf("it is no TOML of the form that containerd reads: %s", clip(printable(err.Error()), 300))
	}
	order := hostOrder(content)
	if len(order) > maxHosts {
		return nil, fmt.Errorf("it names more than %d hosts", maxHosts)
	}
	var mirrors []Mirror
	add := func(name string, t hostTable) error {
		shown, _ := withoutUser(name)
		shown = clip(printable(shown), 100)
		m, pulls, err := t.mirror(name, folder)
		if err != nil {
			return fmt.Errorf("host %q: %w", shown, err)
		}
		if !pulls || m.isRegistry(registry) {
			return nil
		}
		if reason := t.unusable(m); reason != "" {
			warn("mirror " + shown + ": not used: " + reason)
			return nil
		}
		if t.wantsTLS() && strings.HasPrefix(m.URL, "http:") {
			warn("mirror " + shown + ": asked in plain HTTP: its hosts.toml has keys about TLS too, for which containerd tries TLS first")
		}
		mirrors = append(mirrors, m)
		return nil
	}
	for _, name := range order {
		if err := add(name, file.Hosts[name]); err != nil {
			return nil, err
		}
	}
	if file.Server != "" {
		if err := add(file.Server, file.hostTable); err != nil {
			return nil, err
		}
	}
	return mirrors, nil
}

// hostOrder lists the tables [host."..."] in their order, which a map loses.
func hostOrder(content []byte) []string {
	var order []string
	p := unstable.Parser{}
	p.Reset(content)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		var parts []string
		for it := e.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
		}
		if len(parts) >= 2 && parts[0] == "host" && !slices.Contains(order, parts[1]) {
			order = append(order, parts[1])
		}
	}
	return order
}

// mirror turns a table into a Mirror, and reports whether content may be pulled
// from it.
func (t hostTable) mirror(name, folder string) (m Mirror, pulls bool, err error) {
	pulls = len(t.Capabilities) == 0
	for _, c := range t.Capabilities {
		switch strings.ToLower(c) {
		case "pull":
			pulls = true
		case "resolve", "push", "referrers":
		default:
			return Mirror{}, false, fmt.Errorf("unknown capability %q", clip(printable(c), 50))
		}
	}
	if !strings.HasPrefix(name, "http") {
		name = "https://" + name
	}
	m = Mirror{URL: name, OverridePath: t.OverridePath, InsecureSkipTLS: t.SkipVerify}
	if m.CAFiles, err = paths(t.CA, "ca", folder); err != nil {
		return Mirror{}, false, err
	}
	if m.Clients, err = pairs(t.Client, folder); err != nil {
		return Mirror{}, false, err
	}
	if m.Header, err = headerOf(t.Header); err != nil {
		return Mirror{}, false, err
	}
	if t.DialTimeout != "" {
		if m.DialTimeout, err = time.ParseDuration(t.DialTimeout); err != nil || m.DialTimeout <= 0 {
			return Mirror{}, false, fmt.Errorf("dial_timeout %q is no duration", clip(printable(t.DialTimeout), 50))
		}
	}
	return m, pulls, nil
}

// unusable says why m, which t describes, is not asked; "" when it is.
func (t hostTable) unusable(m Mirror) string {
	_, err := m.parse()
	var config *ConfigError
	switch {
	case errors.As(err, &config):
		return config.Err.Error() // without the URL, which may hold a password
	case isSet(t.Proxy):
		return "its hosts.toml has proxy, which is not supported"
	case isSet(t.DialAddr):
		return "its hosts.toml has dial_addr, which is not supported"
	}
	return ""
}

func isSet(v any) bool { return v != nil && v != "" }

func (t hostTable) wantsTLS() bool { return t.SkipVerify || t.CA != nil || t.Client != nil }

// isRegistry reports that a table is about the registry itself.
func (m Mirror) isRegistry(registry string) bool {
	u, err := m.parse()
	return err == nil && u.Path == "/v2" && (u.Host == registry || u.Host == apiHost(registry))
}

// paths reads one path or a list of them, relative to folder.
func paths(v any, key, folder string) ([]string, error) {
	var list []string
	switch v := v.(type) {
	case nil:
	case string:
		list = []string{v}
	case []any:
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("%s holds a %T, not a path", key, item)
			}
			list = append(list, s)
		}
	default:
		return nil, fmt.Errorf("%s is a %T, not a path or a list of paths", key, v)
	}
	for i, p := range list {
		if p != "" && !filepath.IsAbs(p) {
			list[i] = filepath.Join(folder, p)
		}
	}
	return list, nil
}

// pairs reads a path, a list of paths, or a list of pairs of paths.
func pairs(v any, folder string) ([][2]string, error) {
	items, isList := v.([]any)
	if !isList && v != nil {
		items = []any{v}
	}
	var list [][2]string
	for _, item := range items {
		pair, err := paths(item, "client", folder)
		if err != nil {
			return nil, err
		}
		if _, nested := item.([]any); nested && len(pair) != 2 {
			return nil, fmt.Errorf("client holds a list of %d paths, not a pair", len(pair))
		}
		pair = append(pair, "")
		list = append(list, [2]string{pair[0], pair[1]})
	}
	return list, nil
}

// headerOf reads headers. What frames a request is ours.
func headerOf(fields map[string]any) (http.Header, error) {
	header := make(http.Header, len(fields))
	for key, v := range fields {
		values, ok := v.([]any)
		if !ok {
			values = []any{v}
		}
		switch name := http.CanonicalHeaderKey(key); {
		case !isToken(key):
			return nil, fmt.Errorf("header %q is no header's name", clip(printable(key), 50))
		case slices.Contains([]string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Range", "Trailer", "Te", "Upgrade"}, name):
			return nil, fmt.Errorf("header %q cannot be set", name)
		}
		for _, value := range values {
			s, ok := value.(string)
			if !ok || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				// The value may be a secret, and is not shown.
				return nil, fmt.Errorf("header %q has a value that is no line of text", clip(key, 50))
			}
			header.Add(key, s)
		}
	}
	return header, nil
}

// isToken reports a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
