// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Reference names a repository and in it a tag, a digest, both or neither. Where
// both are given the digest decides.
type Reference struct {
	// Registry is the host, lower-cased, with its port if one was written.
	Registry   string
	Repository string
	Tag        string
	Digest     digest.Digest
}

// ReferenceError says why a string is no reference. It is the caller's mistake.
type ReferenceError struct{ Input, Reason string }

func (e *ReferenceError) Error() string {
	return fmt.Sprintf("reference %q: %s", e.Input, e.Reason)
}

// Limits and grammar of the distribution spec 1.1, "Pulling manifests".
const (
	maxReference  = 1024
	maxRepository = 255
)

var (
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	hostPattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	referrersTag      = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)
)

// ParseReference reads HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]. The registry must
// be written: there is no default one, and no default tag. Errors are
// *ReferenceError.
func ParseReference(s string) (Reference, error) {
	shown, hasUser := withoutUser(s)
	bad := func(format string, args ...any) (Reference, error) {
		return Reference{}, &ReferenceError{Input: clip(shown, 200), Reason: fmt.Sprintf(format, args...)}
	}
	if s == "" {
		return bad("it is empty")
	}
	if len(s) > maxReference {
		return bad("it is longer than %d bytes", maxReference)
	}
	if scheme, _, found := strings.Cut(s, "://"); found {
		return bad("leave out %q: a reference has no scheme", clip(scheme, 20)+"://")
	}
	if hasUser {
		return bad("leave out the user before the registry")
	}
	host, path, found := strings.Cut(s, "/")
	if !found {
		return bad("it must be HOST/REPOSITORY[:TAG][@DIGEST]")
	}
	ref := Reference{Registry: strings.ToLower(host)}
	if reason := checkHost(ref.Registry); reason != "" {
		return bad("%s", reason)
	}
	path, dgst, hasDigest := strings.Cut(path, "@")
	if hasDigest {
		if reason := checkDigest(dgst); reason != "" {
			return bad("%s", reason)
		}
		ref.Digest = digest.Digest(dgst)
	}
	repository, tag, hasTag := strings.Cut(path, ":")
	if hasTag && !tagPattern.MatchString(tag) {
		return bad("%q is not a tag: up to 128 letters, digits, '_', '.', '-', not beginning with '.' or '-'", clip(tag, 150))
	}
	if len(repository) > maxRepository || !repositoryPattern.MatchString(repository) {
		return bad("%q is not a repository name: lower-case letters and digits, separated by '/', '.', '_' or '-'", clip(repository, 100))
	}
	ref.Repository, ref.Tag = repository, tag
	return ref, nil
}

// withoutUser takes away a user and password before the registry's name: what is
// refused is shown, and the password must not be.
func withoutUser(s string) (shown string, found bool) {
	scheme, rest, hasScheme := strings.Cut(s, "://")
	if !hasScheme {
		scheme, rest = "", s
	}
	host, path, hasPath := strings.Cut(rest, "/")
	at := strings.LastIndexByte(host, '@')
	if at < 0 || !hasPath && !hasScheme {
		return s, false
	}
	shown = host[at+1:]
	if hasPath {
		shown += "/" + path
	}
	if hasScheme {
		shown = scheme + "://" + shown
	}
	return shown, true
}

// ParseReferences reads REFERENCE[,TAG...]: several tags in one repository, each
// as a Reference of its own, in order and without repeats.
func ParseReferences(s string) ([]Reference, error) {
	first, rest, several := strings.Cut(s, ",")
	ref, err := ParseReference(first)
	if err != nil {
		return nil, err
	}
	refs := []Reference{ref}
	if !several {
		return refs, nil
	}
	if ref.Tag == "" || ref.Digest != "" {
		return nil, &ReferenceError{Input: clip(s, 200), Reason: "more tags can only follow a tag"}
	}
	for tag := range strings.SplitSeq(rest, ",") {
		if !tagPattern.MatchString(tag) {
			return nil, &ReferenceError{Input: clip(s, 200), Reason: fmt.Sprintf("%q is not a tag", clip(tag, 150))}
		}
		next := ref
		next.Tag = tag
		if !slices.Contains(refs, next) {
			refs = append(refs, next)
		}
	}
	return refs, nil
}

// checkHost returns why host cannot be a registry, "" when it can.
func checkHost(host string) string {
	name, port, hasPort := host, "", false
	if strings.HasPrefix(host, "[") {
		inner, after, closed := strings.Cut(host[1:], "]")
		addr, err := netip.ParseAddr(inner)
		if !closed || err != nil || !addr.Is6() || addr.Zone() != "" {
			return fmt.Sprintf("%q is not an IPv6 address in brackets", host)
		}
		if after != "" && !strings.HasPrefix(after, ":") {
			return fmt.Sprintf("%q is not a registry host", host)
		}
		port, hasPort = strings.CutPrefix(after, ":")
		name = ""
	} else {
		name, port, hasPort = strings.Cut(host, ":")
		if len(name) > 253 || !hostPattern.MatchString(name) {
			return fmt.Sprintf("%q is not a registry host", clip(host, 100))
		}
	}
	if hasPort {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
			return fmt.Sprintf("%q has no usable port", host)
		}
	}
	// Docker reads such a name as a namespace of its hub; two tools would fetch
	// two different things for one reference.
	if name != "" && !hasPort && name != "localhost" && !strings.Contains(name, ".") {
		return fmt.Sprintf("%q does not look like a registry: write its host with a dot or a port, as in %s:443/...", name, name)
	}
	return ""
}

func checkDigest(s string) string {
	d := digest.Digest(s)
	if d.Validate() != nil && !strings.HasPrefix(s, "sha256:") {
		return fmt.Sprintf("%q is not a digest of the form sha256:<64 hex digits>", clip(s, 100))
	}
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return fmt.Sprintf("%q is not a sha256 digest of 64 lower-case hex digits, the only kind used", clip(s, 100))
	}
	return ""
}

// WithTag is the reference of a tag to be written in the same repository. Tags of
// the form sha256-<hex> are refused: on registries without the referrers API they
// hold the lists of referrers. Errors are *ReferenceError.
func (r Reference) WithTag(tag string) (Reference, error) {
	about := clip(r.Name()+":"+tag, 200)
	if !tagPattern.MatchString(tag) {
		return Reference{}, &ReferenceError{Input: about, Reason: "it names no tag"}
	}
	if referrersTag.MatchString(tag) {
		return Reference{}, &ReferenceError{Input: about, Reason: "tags of the form sha256-<hex> are kept for lists of referrers"}
	}
	r.Tag, r.Digest = tag, ""
	return r, nil
}

// Name is registry/repository.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// isLoopback reports whether a registry host means this machine: localhost,
// 127.0.0.0/8 or ::1.
func isLoopback(host string) bool {
	name := host
	if strings.HasPrefix(host, "[") {
		name, _, _ = strings.Cut(host[1:], "]")
	} else {
		name, _, _ = strings.Cut(host, ":")
	}
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// apiHost is where a registry's API is; only Docker Hub's differs from its name.
func apiHost(registry string) string {
	if registry == "docker.io" || registry == "index.docker.io" {
		return "registry-1.docker.io"
	}
	return registry
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
