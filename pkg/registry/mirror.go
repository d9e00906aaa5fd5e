// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"runtime"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Mirror is a place that may have what a registry has: a pull-through cache, a
// peer-to-peer agent, a copy. It is never trusted: it is asked only for what has
// a digest, and gets none of the registry's credentials. Its own come from the
// docker configuration.
type Mirror struct {
	// URL is http:// or https://, a host, perhaps a port and a path. The API is
	// below the path and "/v2", unless the path begins or ends with "/v2" itself.
	URL string
	// OverridePath says that the API is below the path as it is.
	OverridePath bool
	// CAFiles hold PEM certificates that are added to the system's roots and to
	// those of Options.CAFile.
	CAFiles []string
	// Clients are pairs of client certificate and key, PEM files; without a key
	// it is in the certificate's file.
	Clients [][2]string
	// Header is sent to the mirror, and to no other host.
	Header http.Header
	// InsecureSkipTLS accepts any certificate of the mirror.
	InsecureSkipTLS bool
	// DialTimeout bounds the wait for a connection. Zero means five seconds.
	DialTimeout time.Duration
}

const (
	// mirrorPatience bounds the silence of a mirror: there is somebody else to ask.
	mirrorPatience    = 15 * time.Second
	mirrorDialTimeout = 5 * time.Second
	mirrorBudget      = 5 * time.Second
)

// ParseMirror reads the URL of a mirror. Errors are *ConfigError.
func ParseMirror(s string) (Mirror, error) {
	m := Mirror{URL: s}
	_, err := m.parse()
	return m, err
}

var mirrorPath = regexp.MustCompile(`^[A-Za-z0-9._~/-]*$`)

// parse returns the mirror's URL with the path of its API.
func (m Mirror) parse() (*url.URL, error) {
	shown, hasUser := withoutUser(m.URL)
	bad := func(reason string) (*url.URL, error) {
		return nil, &ConfigError{Option: fmt.Sprintf("mirror %q", clip(printable(shown), 200)), Err: errors.New(reason)}
	}
	if hasUser {
		return bad("leave out the user: a mirror's credentials come from the docker configuration")
	}
	u, err := url.Parse(m.URL)
	if err != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil {
		return bad("it must be http(s)://HOST[:PORT][/PATH]")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return bad("it must begin with https:// or http://")
	}
	host := strings.ToLower(u.Host)
	// A name without a dot is fine here, unlike in a reference.
	if reason := checkHost(host); reason != "" && (u.Port() != "" || !hostPattern.MatchString(host)) {
		return bad(reason)
	}
	if !mirrorPath.MatchString(u.EscapedPath()) {
		return bad("its path holds other characters than letters, digits, '.', '_', '~' and '-'")
	}
	root := path.Clean("/" + u.Path)
	if root == "/" {
		root = ""
	}
	if !m.OverridePath && root != "/v2" && !strings.HasPrefix(root, "/v2/") && !strings.HasSuffix(root, "/v2") {
		root += "/v2"
	}
	return &url.URL{Scheme: u.Scheme, Host: host, Path: root}, nil
}

// mirror is a Mirror in use. Its health is that of the whole run.
type mirror struct {
	name   string // for warnings
	base   url.URL
	root   string
	client *Client
	health
}

// newMirror makes the client of a mirror. It shares nothing with that of the
// registry: neither credentials nor tokens, connections or client certificates.
func newMirror(o Options, m Mirror) (*mirror, error) {
	u, err := m.parse()
	if err != nil {
		return nil, err
	}
	if m.DialTimeout <= 0 {
		m.DialTimeout = mirrorDialTimeout
	}
	own := Options{
		InsecureSkipTLS: m.InsecureSkipTLS,
		CAFile:          o.CAFile,
		Credentials:     CredentialOptions{ConfigFiles: o.Credentials.ConfigFiles, DockerConfigDir: o.Credentials.DockerConfigDir},
		Resolve:         o.Resolve,
		Proxy:           o.Proxy,
		UserAgent:       o.UserAgent,
		Concurrency:     o.Concurrency,
		Retry:           RetryPolicy{Budget: min(o.Retry.Budget, mirrorBudget)},
		AnswerTimeout:   min(o.AnswerTimeout, mirrorPatience),
		Logger:          o.Logger,
		Now:             o.Now,
		Sleep:           o.Sleep,
		mirror:          &m,
	}
	client, err := NewClient(own)
	if err != nil {
		return nil, err
	}
	if len(m.Header) > 0 {
		client.http.Transport = &headers{next: client.http.Transport, base: u, header: m.Header}
	}
	return &mirror{
		name: u.Scheme + "://" + u.Host + u.Path, base: url.URL{Scheme: u.Scheme, Host: u.Host}, root: u.Path,
		client: client, health: health{now: o.Now, warn: o.Warn},
	}, nil
}

// headers adds a mirror's own headers to what goes to it, and not to where it
// redirects or has tokens made.
type headers struct {
	next   http.RoundTripper
	base   *url.URL
	header http.Header
}

func (h *headers) RoundTrip(req *http.Request) (*http.Response, error) {
	if !sameOrigin(h.base, req.URL) {
		return h.next.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	for key, values := range h.header {
		if key = http.CanonicalHeaderKey(key); req.Header.Get(key) == "" {
			req.Header[key] = values
		}
	}
	return h.next.RoundTrip(req)
}

// givenMirrors are those of Options.Mirrors.
func (c *Client) givenMirrors() ([]*mirror, error) {
	const given = "" // is no registry's name
	c.mu.Lock()
	defer c.mu.Unlock()
	if list, ok := c.mirrors[given]; ok {
		return list, nil
	}
	list := make([]*mirror, 0, len(c.options.Mirrors))
	for _, m := range c.options.Mirrors {
		made, err := newMirror(c.options, m)
		if err != nil {
			return nil, err
		}
		list = append(list, made)
	}
	c.mirrors[given] = list
	return list, nil
}

// mirrorsOf are those for one registry: the given ones, then those of its
// hosts.toml.
func (c *Client) mirrorsOf(registry string) ([]*mirror, error) {
	list, err := c.givenMirrors()
	if err != nil || c.options.HostsDir == "" {
		return list, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if all, ok := c.mirrors[registry]; ok {
		return all, nil
	}
	hosts, err := hostsOf(c.options.HostsDir, registry, runtime.GOOS, c.options.Warn)
	if err != nil {
		return nil, err
	}
	all := append([]*mirror(nil), list...)
	for _, m := range hosts {
		if m.InsecureSkipTLS && strings.HasPrefix(m.URL, "https:") && !c.options.InsecureSkipTLS {
			c.options.Warn("mirror " + m.URL + ": not used: its hosts.toml has skip_verify, which counts only together with --insecure")
			continue
		}
		made, err := newMirror(c.options, m)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	c.mirrors[registry] = all
	return all, nil
}

// Mirrored is Repository with the client's mirrors for ref's registry. A tag is
// resolved and signatures are listed by the registry alone; what has a digest is
// fetched from the first mirror that has it, and from the registry when none has,
// and checked against the digest. The bytes of OpenBlob and OpenRange are checked
// by the caller, who says with Doubt what was wrong.
func (c *Client) Mirrored(ref Reference) (*Repository, error) {
	r, err := c.Repository(ref)
	if err != nil {
		return nil, err
	}
	mirrors, err := c.mirrorsOf(r.ref.Registry)
	if err != nil {
		return nil, err
	}
	origin, err := c.Repository(ref)
	if err != nil {
		return nil, err
	}
	origin.once = true
	s := newSources(r, origin)
	for _, m := range mirrors {
		// The registry itself, as some hosts.toml have it, is no mirror.
		if !(sameOrigin(&m.base, &r.base) && m.root == r.root) {
			s.mirrors = append(s.mirrors, &place{mirror: m, repo: m.repository(r, true), list: m.repository(r, false)})
		}
	}
	if len(s.mirrors) > 0 {
		r.sources = s
	}
	return r, nil
}

// repository is the origin's as the mirror has it. Over plain HTTP on the origin's host
// there is no password to be had: the one that is configured for the host is the origin's,
// which is reached by TLS.
func (m *mirror) repository(origin *Repository, once bool) *Repository {
	ref := origin.ref
	plainer := m.base.Scheme != origin.base.Scheme && m.base.Scheme == "http" &&
		apiHost(m.base.Hostname()) == apiHost(strings.ToLower(origin.base.Hostname()))
	r := &Repository{client: m.client, ref: ref, base: m.base, root: m.root, once: once}
	if m.base.Host != apiHost(ref.Registry) {
		r.ns = ref.Registry
	}
	r.auth = m.client.authClient(m.base.Host, func(ctx context.Context) (auth.Credential, error) {
		if plainer {
			return auth.EmptyCredential, nil
		}
		return m.client.credentials.findFor(ctx, m.base.Host, r.scope(), m.base.Scheme == "http" && !isLoopback(m.base.Host))
	})
	return r
}

// scope is the repository's name to a token endpoint: below a path such as that
// of Harbor's proxy projects it is longer than the reference's.
func (r *Repository) scope() string {
	if below, ok := strings.CutPrefix(r.root, "/v2/"); ok {
		return below + "/" + r.ref.Repository
	}
	return r.ref.Repository
}
