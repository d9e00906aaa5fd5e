// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"strings"
)

// Identity is the subject that a leaf certificate must have: a set of attributes
// that the subject must contain, or any subject.
type Identity struct {
	any   bool
	attrs map[string]string
}

// IdentityError says what is wrong with a trusted identity.
type IdentityError struct{ Identity, Reason string }

func (e *IdentityError) Error() string {
	return fmt.Sprintf("trusted identity %q: %s", e.Identity, e.Reason)
}

const identityPrefix = "x509.subject:"

// ParseIdentities reads trusted identities (trust policy specification, "Trusted
// Identities Constraints"): C, ST (or S) and O must be there, no attribute twice,
// and none may contain another.
func ParseIdentities(texts []string) ([]Identity, error) {
	if len(texts) == 0 {
		return nil, &IdentityError{"", "there is none; \"*\" stands for every subject"}
	}
	var ids []Identity
	for _, text := range texts {
		id, err := parseIdentity(text)
		if err != nil {
			return nil, err
		}
		if id.any && len(texts) > 1 {
			return nil, &IdentityError{text, "it stands for every subject and must stand alone"}
		}
		for n, other := range ids {
			if within(id.attrs, other.attrs) || within(other.attrs, id.attrs) {
				return nil, &IdentityError{text, fmt.Sprintf("it overlaps with %q", texts[n])}
			}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func parseIdentity(text string) (Identity, error) {
	if text == "*" {
		return Identity{any: true}, nil
	}
	dn, ok := strings.CutPrefix(text, identityPrefix)
	if !ok {
		return Identity{}, &IdentityError{text, "it begins with neither " + identityPrefix + " nor is it *"}
	}
	attrs := make(map[string]string)
	for _, part := range splitUnescaped(dn, ',') {
		pair := splitUnescaped(part, '=')
		if len(pair) != 2 {
			return Identity{}, &IdentityError{text, fmt.Sprintf("%q is not of the form NAME=VALUE; escape , and = in a value with \\", strings.TrimSpace(part))}
		}
		name, value := attributeName(strings.TrimSpace(pair[0])), unescape(strings.TrimSpace(pair[1]))
		if name == "" {
			return Identity{}, &IdentityError{text, fmt.Sprintf("attribute %q is none of C, ST, L, STREET, O, OU, CN, POSTALCODE, SERIALNUMBER", strings.TrimSpace(pair[0]))}
		}
		if value == "" || attrs[name] != "" {
			return Identity{}, &IdentityError{text, name + " is empty or given twice"}
		}
		attrs[name] = value
	}
	for _, name := range []string{"C", "ST", "O"} {
		if attrs[name] == "" {
			return Identity{}, &IdentityError{text, name + " is missing"}
		}
	}
	return Identity{attrs: attrs}, nil
}

func attributeName(s string) string {
	switch s = strings.ToUpper(s); s {
	case "S":
		return "ST"
	case "C", "ST", "L", "STREET", "O", "OU", "CN", "POSTALCODE", "SERIALNUMBER":
		return s
	}
	return ""
}

// splitUnescaped cuts s at every sep that no backslash precedes.
func splitUnescaped(s string, sep byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case sep:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// within reports whether every attribute of a is in b.
func within(a, b map[string]string) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// Matches reports whether leaf's subject contains the identity. A subject with an
// attribute twice matches nothing: which of them is meant is anybody's guess.
func (i Identity) Matches(leaf *x509.Certificate) bool {
	if i.any {
		return true
	}
	subject, ok := subjectOf(leaf.Subject)
	return ok && len(i.attrs) > 0 && within(i.attrs, subject)
}

func subjectOf(n pkix.Name) (map[string]string, bool) {
	attrs := make(map[string]string)
	lists := []struct {
		name   string
		values []string
	}{
		{"C", n.Country}, {"ST", n.Province}, {"L", n.Locality}, {"STREET", n.StreetAddress},
		{"O", n.Organization}, {"OU", n.OrganizationalUnit}, {"POSTALCODE", n.PostalCode},
	}
	for _, l := range lists {
		if len(l.values) > 1 {
			return nil, false
		}
		if len(l.values) == 1 {
			attrs[l.name] = l.values[0]
		}
	}
	common := slices.DeleteFunc(slices.Clone(n.Names), func(a pkix.AttributeTypeAndValue) bool {
		return a.Type.String() != "2.5.4.3"
	})
	if len(common) > 1 {
		return nil, false
	}
	if n.CommonName != "" {
		attrs["CN"] = n.CommonName
	}
	if n.SerialNumber != "" {
		attrs["SERIALNUMBER"] = n.SerialNumber
	}
	return attrs, true
}
