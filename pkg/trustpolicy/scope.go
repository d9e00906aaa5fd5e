// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// breadth orders scopes with one literal part, the widest first.
type breadth int

const (
	everything breadth = iota // *
	subtree                   // registry/path/**
	children                  // registry/path/*
	exact                     // registry/path
)

// scope is one entry of scopes. Two scopes are equal when they cover the same
// repositories because of the same text.
type scope struct {
	// literal is the part before the wildcard, with its slash; the whole
	// repository where there is no wildcard. The registry in it is lower-case.
	literal string
	breadth breadth
}

// parseScope reads a scope; reason is why s is none, "" when it is one.
func parseScope(s string) (sc scope, reason string) {
	if s == "*" {
		return scope{breadth: everything}, ""
	}
	if s == "**" {
		return scope{}, `write "*" for every repository`
	}
	literal, kind := s, exact
	if base, found := strings.CutSuffix(s, "/**"); found {
		literal, kind = base, subtree
	} else if base, found := strings.CutSuffix(s, "/*"); found {
		literal, kind = base, children
	}
	if strings.Contains(literal, "*") {
		return scope{}, "a wildcard stands alone after the last slash, as in registry.example.com/models/**"
	}
	host, path, hasPath := strings.Cut(literal, "/")
	name, reason := normaliseHost(host)
	switch {
	case reason != "":
		return scope{}, reason
	case hasPath || kind == exact:
		if reason := checkPath(path); reason != "" {
			return scope{}, reason
		}
		name += "/" + path
	}
	if kind != exact {
		name += "/"
	}
	return scope{literal: name, breadth: kind}, ""
}

func (s scope) String() string {
	switch s.breadth {
	case everything:
		return "*"
	case subtree:
		return s.literal + "**"
	case children:
		return s.literal + "*"
	}
	return s.literal
}

// covers reports whether a normalised repository is in the scope. A prefix ends
// at a slash, so a/b/** covers neither a/bc nor a/b itself.
func (s scope) covers(repository string) bool {
	rest, found := strings.CutPrefix(repository, s.literal)
	switch s.breadth {
	case everything:
		return true
	case subtree:
		return found && rest != ""
	case children:
		return found && rest != "" && !strings.Contains(rest, "/")
	case exact:
		return found && rest == ""
	}
	return false
}

// closerThan orders two scopes that cover one repository. Both literals are
// prefixes of it, so the longer one is the narrower, and an exact one, which is
// all of it, the longest.
func (s scope) closerThan(other scope) bool {
	if len(s.literal) != len(other.literal) {
		return len(s.literal) > len(other.literal)
	}
	return s.breadth > other.breadth
}

// normalise returns registry/path with the registry in lower case, or why
// repository is none.
func normalise(repository string) (name, reason string) {
	host, path, _ := strings.Cut(repository, "/")
	if host, reason = normaliseHost(host); reason != "" {
		return "", reason
	}
	if reason = checkPath(path); reason != "" {
		return "", reason
	}
	return host + "/" + path, ""
}

// The grammar of names in the distribution spec 1.1, "Pulling manifests".
const maxPath = 255

var (
	pathPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

func checkPath(path string) string {
	if path == "" {
		return "a repository must follow the registry"
	}
	if len(path) > maxPath || !pathPattern.MatchString(path) {
		return fmt.Sprintf("%q is not a repository name: lower-case letters and digits, separated by '/', '.', '_' or '-', no tag and no digest", clip(path))
	}
	return ""
}

// normaliseHost lowers host[:port]. ASCII alone is lowered: strings.ToLower also
// makes a k of the Kelvin sign, and two different texts would be one host.
func normaliseHost(host string) (name, reason string) {
	for i := range len(host) {
		if host[i] >= utf8.RuneSelf {
			return "", fmt.Sprintf("%q is not a registry host: it is not ASCII", clip(host))
		}
	}
	host = strings.ToLower(host)
	label, port, hasPort := strings.Cut(host, ":")
	if strings.HasPrefix(host, "[") {
		inner, after, closed := strings.Cut(host[1:], "]")
		addr, err := netip.ParseAddr(inner)
		if !closed || err != nil || !addr.Is6() || addr.Zone() != "" || (after != "" && after[0] != ':') {
			return "", fmt.Sprintf("%q is not an IPv6 address in brackets", clip(host))
		}
		port, hasPort = strings.CutPrefix(after, ":")
	} else if len(label) > 253 || !hostPattern.MatchString(label) {
		return "", fmt.Sprintf("%q is not a registry host", clip(host))
	} else if !hasPort && label != "localhost" && !strings.Contains(label, ".") {
		// models/** would cover nothing, ever: no reference leaves its registry out.
		return "", fmt.Sprintf("%q is not a registry: a scope begins with the registry's host, which has a dot or a port", clip(host))
	}
	if n, err := strconv.Atoi(port); hasPort && (err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port) {
		return "", fmt.Sprintf("%q has no usable port", clip(host))
	}
	return host, ""
}
