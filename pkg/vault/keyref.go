// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// DefaultMount is where Transit is mounted unless somebody says otherwise.
const DefaultMount = "transit"

const (
	maxKeyURI     = 1024
	maxKeyVersion = 1 << 30
)

var (
	// keyName is what Transit's own routes take as a key name (the framework's
	// GenericNameRegex).
	keyName = regexp.MustCompile(`^\w(([\w.-]+)?\w)?$`)
	// pathSegment keeps a mount or namespace from changing the request's path:
	// no empty segment, no dots alone, nothing that needs escaping.
	pathSegment = regexp.MustCompile(`^[\w~+@=-][\w.~+@=-]*$`)
)

// KeyRef names a Transit key.
type KeyRef struct {
	// Mount is the path of the Transit engine, without slashes at its ends.
	Mount string
	Name  string
	// Namespace is empty for the session's own.
	Namespace string
	// Version is pinned when it is not zero.
	Version int

	written string
}

// KeyRefError says why a string does not name a Transit key.
type KeyRefError struct{ Input, Reason string }

func (e *KeyRefError) Error() string {
	return fmt.Sprintf("key %q: %s; expected hashivault://[MOUNT/]NAME[?version=N&namespace=NS]", e.Input, e.Reason)
}

// IsKeyRef reports whether uri has a scheme that ParseKeyRef takes.
func IsKeyRef(uri string) bool {
	_, ok := cutScheme(uri)
	return ok
}

func cutScheme(uri string) (string, bool) {
	for _, scheme := range []string{"hashivault://", "openbao://"} {
		if rest, ok := strings.CutPrefix(uri, scheme); ok {
			return rest, true
		}
	}
	return "", false
}

// ParseKeyRef parses hashivault://[MOUNT/]NAME[?version=N&namespace=NS], of which
// openbao:// is an alias. The last segment is the name, all before it the mount;
// with one segment the mount is defaultMount, and DefaultMount if that is empty.
// The error is a *KeyRefError.
func ParseKeyRef(uri, defaultMount string) (KeyRef, error) {
	bad := func(format string, args ...any) (KeyRef, error) {
		return KeyRef{}, &KeyRefError{Input: clip(uri, 200), Reason: fmt.Sprintf(format, args...)}
	}
	if len(uri) > maxKeyURI {
		return bad("longer than %d bytes", maxKeyURI)
	}
	rest, ok := cutScheme(uri)
	if !ok {
		return bad("it does not begin with hashivault:// or openbao://")
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	mount, name := strings.Trim(defaultMount, "/"), path
	if mount == "" {
		mount = DefaultMount
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		mount, name = path[:i], path[i+1:]
	}
	if !keyName.MatchString(name) {
		return bad("%q is no name for a Transit key", name)
	}
	if !isPath(mount) {
		return bad("%q is no mount path", mount)
	}
	ref := KeyRef{Mount: mount, Name: name, written: uri}
	if hasQuery {
		if reason := ref.parseQuery(query); reason != "" {
			return bad("%s", reason)
		}
	}
	return ref, nil
}

func (r *KeyRef) parseQuery(query string) (reason string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "the part after ? is malformed"
	}
	for k, v := range values {
		if len(v) != 1 {
			return fmt.Sprintf("%s is given twice", k)
		}
		switch k {
		case "version":
			n, err := strconv.Atoi(v[0])
			if err != nil || n < 1 || n > maxKeyVersion || strconv.Itoa(n) != v[0] {
				return fmt.Sprintf("version %q is not a number from 1", v[0])
			}
			r.Version = n
		case "namespace":
			r.Namespace = strings.Trim(v[0], "/")
			if !isPath(r.Namespace) {
				return fmt.Sprintf("%q is no namespace", v[0])
			}
		default:
			return fmt.Sprintf("unknown parameter %q", k)
		}
	}
	return ""
}

func isPath(p string) bool {
	for segment := range strings.SplitSeq(p, "/") {
		if !pathSegment.MatchString(segment) {
			return false
		}
	}
	return true
}

// String is the reference as it was written, or its full form if it was not
// parsed from a string.
func (r KeyRef) String() string {
	if r.written != "" {
		return r.written
	}
	return r.full()
}

// full names mount, version and namespace whatever the defaults are.
func (r KeyRef) full() string {
	q := url.Values{}
	if r.Version > 0 {
		q.Set("version", strconv.Itoa(r.Version))
	}
	if r.Namespace != "" {
		q.Set("namespace", r.Namespace)
	}
	s := "hashivault://" + r.Mount + "/" + r.Name
	if len(q) > 0 {
		s += "?" + q.Encode()
	}
	return s
}

func (r KeyRef) path(verb string) string { return r.Mount + "/" + verb + "/" + r.Name }
