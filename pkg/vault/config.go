// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Config says which Vault is meant and how it is reached. Nothing is taken from
// the environment.
type Config struct {
	// Address is the server's URL, as VAULT_ADDR has it: https://HOST[:PORT][/PREFIX],
	// http:// for loopback, or unix:///PATH of a local agent.
	Address string
	// Namespace is for keys that name none.
	Namespace string
	// AuthNamespace is where the token lives: logins, and what a token asks about
	// itself. Empty means Namespace, "root" the root namespace.
	AuthNamespace string

	// CAFile and CAPath replace the system's roots, as Vault's own CLI has it;
	// CAFile wins over CAPath.
	CAFile, CAPath string
	// CertFile and KeyFile are this side's certificate.
	CertFile, KeyFile string
	TLSServerName     string
	// SkipVerify turns the check of the server's certificate off. It is refused
	// without InsecureVault.
	SkipVerify bool
	// InsecureVault permits SkipVerify and plain HTTP off loopback: whoever sits
	// on the network can then take the token and accept any signature.
	InsecureVault bool

	// Proxy picks a proxy for each request. Nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// RetryBudget bounds the time spent on repeating one request that may yet
	// succeed. Zero means two minutes, a negative value no repetition.
	RetryBudget time.Duration
	UserAgent   string

	// MaxTokenTTL is the longest lifetime that goes unreported. Zero means 1h.
	MaxTokenTTL time.Duration
	// RequireShortLived refuses what would be reported: a token that is root,
	// never expires or outlives MaxTokenTTL, and a given one whose lifetime
	// cannot be learned.
	RequireShortLived bool

	// Warn gets one line on what the user should know. Nil drops it.
	Warn func(string)
	// Logger gets what --debug shows. Nil discards it.
	Logger *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Sleep waits between attempts. Nil means a timer; it must end with ctx.
	Sleep func(d time.Duration, done <-chan struct{})
}

const (
	defaultBudget      = 2 * time.Minute
	defaultMaxTokenTTL = time.Hour
)

func (c Config) withDefaults() Config {
	if c.RetryBudget == 0 {
		c.RetryBudget = defaultBudget
	}
	if c.MaxTokenTTL == 0 {
		c.MaxTokenTTL = defaultMaxTokenTTL
	}
	if c.Warn == nil {
		c.Warn = func(string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = func(d time.Duration, done <-chan struct{}) {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
			case <-done:
			}
		}
	}
	c.Namespace = strings.Trim(c.Namespace, "/")
	switch c.AuthNamespace = strings.Trim(c.AuthNamespace, "/"); c.AuthNamespace {
	case "":
		c.AuthNamespace = c.Namespace
	case "root":
		c.AuthNamespace = ""
	}
	return c
}

// endpoint is where requests go: a base URL, and a socket if it is local.
type endpoint struct {
	url    *url.URL
	socket string
}

// parseAddress refuses what would send a token or take an answer in the clear.
func (c Config) parseAddress() (endpoint, error) {
	if c.Address == "" {
		return endpoint{}, &Error{Op: "open Vault", Kind: BadConfig, Detail: "no address is set"}
	}
	if socket, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		return endpoint{url: &url.URL{Scheme: "http", Host: "localhost"}, socket: socket}, nil
	}
	u, err := url.Parse(c.Address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return endpoint{}, &Error{Op: "open Vault", Kind: BadConfig, Detail: "the address is not of the form https://HOST[:PORT]"}
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, &Error{Op: "open Vault", Kind: BadConfig, Detail: "the address may hold no user, query or fragment"}
	}
	if c.InsecureVault {
		return endpoint{url: u}, nil
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return endpoint{}, &Error{Op: "open Vault", Kind: Insecure,
			Detail: fmt.Sprintf("plain HTTP to %s, which is not loopback: anyone on the way could take the token and accept any signature", u.Hostname())}
	}
	if c.SkipVerify && u.Scheme == "https" {
		return endpoint{}, &Error{Op: "open Vault", Kind: Insecure,
			Detail: "the check of the server's certificate is turned off: anyone on the way could take the token and accept any signature"}
	}
	return endpoint{url: u}, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
