// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Options configure a Client. The zero value speaks TLS with the system's roots,
// plain HTTP on loopback, without credentials or a proxy.
type Options struct {
	// PlainHTTP speaks HTTP without TLS to every registry. Loopback registries
	// (localhost, 127.0.0.0/8, ::1) need no flag, unless an option about TLS is
	// set: then they are asked over TLS.
	PlainHTTP bool
	// InsecureSkipTLS accepts any server certificate.
	InsecureSkipTLS bool
	// CAFile holds PEM certificates that are added to the system's roots.
	CAFile string
	// CertFile and KeyFile are the client's certificate and key, PEM.
	CertFile, KeyFile string
	Credentials       CredentialOptions
	// Mirrors are asked before the registry, in order, for content that is named
	// by its digest, through the Repositories that Mirrored makes. HostsDir is a
	// folder like containerd's /etc/containerd/certs.d, whose hosts.toml files name
	// further ones; "" means none.
	Mirrors  []Mirror
	HostsDir string
	// Resolve redirects connections: "host:port:address[:port]", first match wins.
	Resolve []string
	// Proxy names the proxy for a request; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent is sent with every request; "" means "aegis-oci".
	UserAgent string
	// Concurrency is how many requests the caller makes at once; it sizes the
	// pool of idle connections. Zero means 8.
	Concurrency int
	Retry       RetryPolicy
	// AnswerTimeout bounds the silence of a registry: the wait for the head of an
	// answer, for the rest of a small one, and between two reads of an upload.
	// Zero means one minute. After the last byte of a blob, while registries move it
	// into place, ten times as much is allowed.
	AnswerTimeout time.Duration
	// Logger gets a line for each request and retry, at debug level. Nil discards.
	Logger *slog.Logger
	// Warn hears once of each mirror what is wrong with it. Nil discards.
	Warn func(string)
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Sleep waits between tries and returns early with the context's error. Nil
	// means a timer.
	Sleep func(context.Context, time.Duration) error

	mirror *Mirror // which the client is for, nil for a registry's own
}

// Client makes Repositories that share connections, credentials and tokens.
type Client struct {
	options     Options
	http        *http.Client
	transport   *http.Transport // of http
	tls         bool
	cache       *tokenCache
	credentials *credentialChain

	mu sync.Mutex
	// mirrors are those of each registry that was asked for.
	mirrors map[string][]*mirror
}

// NewClient checks the options and reads the files that they name. Errors are
// *ConfigError.
func NewClient(o Options) (*Client, error) {
	if o.UserAgent == "" {
		o.UserAgent = "aegis-oci"
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 8
	}
	if o.AnswerTimeout <= 0 {
		o.AnswerTimeout = time.Minute
	}
	if o.Retry.Budget <= 0 {
		o.Retry.Budget = defaultBudget
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	transport, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	credentials, err := newCredentialChain(o.Credentials, o.mirror != nil)
	if err != nil {
		return nil, err
	}
	c := &Client{
		options:     o,
		http:        &http.Client{Transport: &meter{next: transport, log: o.Logger, now: o.Now}, CheckRedirect: checkRedirect},
		transport:   transport,
		tls:         o.CAFile != "" || o.CertFile != "" || o.InsecureSkipTLS,
		cache:       newTokenCache(o.Now),
		credentials: credentials,
		mirrors:     make(map[string][]*mirror),
	}
	// A mirror that cannot be used at all is said before anything is asked.
	_, err = c.givenMirrors()
	return c, err
}

// Repository is one repository of a registry, for the reference it was made with.
// It is safe for concurrent use.
type Repository struct {
	client *Client
	ref    Reference
	base   url.URL
	// root is the path of the API, "/v2"; only a mirror's is another. ns names the
	// registry to a mirror that stands for several.
	root, ns string
	auth     *auth.Client
	// once leaves out the retries: somebody else is asked next.
	once bool
	// sources are set where mirrors may be asked too.
	sources *sources

	// elsewhere holds, by digest, the URL that a blob's range was redirected to.
	elsewhere sync.Map
	// hasAPI is what Listable found out, by digest, for the Enlist that follows.
	hasAPI sync.Map
	// unannounced is what is known of ranges where nothing is said of them.
	unannounced parts
	// whole says that blobs have to be sent in one request.
	whole    atomic.Bool
	requests atomic.Int64
	retries  atomic.Int64
}

// Repository returns the repository of ref. It sends nothing.
func (c *Client) Repository(ref Reference) (*Repository, error) {
	// A Reference made by hand goes through the same grammar as a parsed one:
	// its parts become paths of requests.
	checked, err := ParseReference(ref.String())
	if err != nil {
		return nil, err
	}
	r := &Repository{client: c, ref: checked, base: c.baseURL(checked.Registry), root: "/v2"}
	r.auth = c.authClient(checked.Registry, func(ctx context.Context) (auth.Credential, error) {
		return c.credentials.find(ctx, checked.Registry, checked.Repository)
	})
	return r, nil
}

func (c *Client) baseURL(registry string) url.URL {
	scheme := "https"
	if c.options.PlainHTTP || (isLoopback(registry) && !c.tls) {
		scheme = "http"
	}
	return url.URL{Scheme: scheme, Host: apiHost(registry)}
}

// authClient answers the challenges of one registry, and of no other host.
func (c *Client) authClient(registry string, find func(context.Context) (auth.Credential, error)) *auth.Client {
	host := apiHost(registry)
	a := &auth.Client{
		Client: c.http,
		Cache:  c.cache,
		Credential: func(ctx context.Context, hostport string) (auth.Credential, error) {
			if hostport != host {
				return auth.EmptyCredential, nil
			}
			return find(ctx)
		},
		ClientID: "aegis-oci",
	}
	if isLoopback(registry) {
		// A registry on this machine may well have its token endpoint here too,
		// under another of loopback's names. Cloud metadata stays blocked.
		a.BlockedRealmPrefixes = slices.DeleteFunc(auth.DefaultBlockedRealmPrefixes(), func(p netip.Prefix) bool {
			return p.Addr().IsLoopback()
		})
	}
	a.SetUserAgent(c.options.UserAgent)
	return a
}

// Reference is what the repository was made with.
func (r *Repository) Reference() Reference { return r.ref }

// Name is "registry/repository".
func (r *Repository) Name() string { return r.ref.Name() }

// Requests is how many HTTP requests were sent so far: redirects, token requests
// and retries, and those to mirrors, included.
func (r *Repository) Requests() int {
	n := r.requests.Load()
	for _, other := range r.sources.all() {
		n += other.requests.Load()
	}
	return int(n)
}

// Retries is how many operations were tried again so far, at another source too.
func (r *Repository) Retries() int { return int(r.retries.Load()) }

// CountRetry counts one more, of a caller that tries again itself.
func (r *Repository) CountRetry() { r.retries.Add(1) }

// DropIdle closes the connections that are kept for the next request. Where one of them
// stalled, as after a change of the network, the others are dead too, and each would be
// waited for.
func (r *Repository) DropIdle() {
	r.client.transport.CloseIdleConnections()
	for _, other := range r.sources.all() {
		other.client.transport.CloseIdleConnections()
	}
}
