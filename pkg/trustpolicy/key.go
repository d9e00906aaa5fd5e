// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// maxVersion bounds the versions of a Transit key that a policy may name.
const maxVersion = 1 << 30

func readKeys(o object) ([]Key, error) {
	list, err := o.list("keys")
	if err != nil {
		return nil, err
	}
	names := make(map[string]int)
	var keys []Key
	for i, n := range list {
		k, err := readKey(n, fmt.Sprintf("%s[%d]", o.at("keys"), i), names)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func readKey(n *yaml.Node, path string, names map[string]int) (Key, error) {
	o, err := objectOf(n, path)
	if err != nil {
		return Key{}, err
	}
	if err := o.knowsOnly("name", "key", "minVersion", "publicKey", "publicKeyFile", "certificatesFile", "identities", "revocation", "vault"); err != nil {
		return Key{}, err
	}
	var k Key
	if k.Name, err = o.name(names); err != nil {
		return Key{}, err
	}
	var pem string
	for _, f := range []struct {
		field string
		check func(string) string
		into  *string
	}{
		{"key", checkTransit, &k.Transit},
		{"publicKey", checkPublicKey, &pem},
		{"publicKeyFile", checkFile, &k.PublicKeyFile},
		{"certificatesFile", checkFile, &k.CertificatesFile},
	} {
		if *f.into, err = o.optional(f.field, f.check); err != nil {
			return Key{}, err
		}
	}
	if pem != "" {
		k.PublicKey = []byte(pem)
	}
	if k.MinVersion, err = o.integer("minVersion", maxVersion); err != nil {
		return Key{}, err
	}
	if k.Identities, err = readIdentities(o); err != nil {
		return Key{}, err
	}
	if k.Revocation, err = o.revocation(); err != nil {
		return Key{}, err
	}
	if k.Vault, err = readVault(o); err != nil {
		return Key{}, err
	}
	return k, o.combined(k)
}

// combined refuses what cannot stand together in one entry, and what would mean
// nothing without another field.
func (o object) combined(k Key) error {
	has := func(field string) bool { return o.fields[field] != nil }
	reason := func(field, format string, args ...any) error {
		return fault(o.fields[field], o.path, format, args...)
	}
	for _, pair := range [][2]string{
		{"publicKey", "publicKeyFile"}, {"key", "certificatesFile"}, {"publicKey", "certificatesFile"}, {"publicKeyFile", "certificatesFile"},
	} {
		if has(pair[0]) && has(pair[1]) {
			return reason(pair[1], "%s and %s exclude each other", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{{"minVersion", "key"}, {"vault", "key"}, {"identities", "certificatesFile"}, {"certificatesFile", "identities"}, {"revocation", "certificatesFile"}} {
		if has(pair[0]) && !has(pair[1]) {
			return reason(pair[0], "%s needs %s beside it", pair[0], pair[1])
		}
	}
	if !has("key") && !has("publicKey") && !has("publicKeyFile") && !has("certificatesFile") {
		return fault(o.node, o.path, "it needs key, publicKey, publicKeyFile or certificatesFile")
	}
	if _, pinned, found := strings.Cut(k.Transit, "version="); found && k.MinVersion > 0 {
		return reason("minVersion", "the key pins version %s already", clip(pinned))
	}
	return nil
}

func readVault(o object) (Vault, error) {
	n, found := o.fields["vault"]
	if !found {
		return Vault{}, nil
	}
	in, err := objectOf(n, o.at("vault"))
	if err != nil {
		return Vault{}, err
	}
	if err := in.knowsOnly("address", "caFile", "namespace"); err != nil {
		return Vault{}, err
	}
	if len(in.fields) == 0 {
		return Vault{}, fault(n, in.path, "it is empty")
	}
	var v Vault
	if v.Address, err = in.optional("address", checkAddress); err != nil {
		return Vault{}, err
	}
	if v.CAFile, err = in.optional("caFile", checkFile); err != nil {
		return Vault{}, err
	}
	if v.Namespace, err = in.optional("namespace", checkToken); err != nil {
		return Vault{}, err
	}
	return v, nil
}

func readIdentities(o object) ([]string, error) {
	list, err := o.optionalTexts("identities", checkIdentity)
	if err != nil {
		return nil, err
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		return nil, fault(o.fields["identities"], o.at("identities"), `"*" stands alone`)
	}
	return list, nil
}

// identityPrefix is the one kind of identity that certificates have here
// (Notary Project specification, "trusted identities").
const identityPrefix = "x509.subject:"

var attribute = regexp.MustCompile(`^\s*([A-Za-z]+)\s*=\s*\S`)

// checkIdentity is strict about the form alone: who compares it with a
// certificate parses it. C, ST and O are mandatory there.
func checkIdentity(s string) string {
	if s == "*" {
		return ""
	}
	name, found := strings.CutPrefix(s, identityPrefix)
	if !found || strings.ContainsFunc(s, unicode.IsControl) {
		return `it must be "*" or begin with x509.subject:`
	}
	seen := make(map[string]bool)
	for _, part := range splitName(name) {
		m := attribute.FindStringSubmatch(part)
		if m == nil {
			return fmt.Sprintf("%q is not of the form C=US, ST=WA, O=Acme", clip(strings.TrimSpace(name)))
		}
		seen[strings.ToUpper(m[1])] = true
	}
	for _, a := range []string{"C", "ST", "O"} {
		if !seen[a] {
			return "an identity needs C, ST and O"
		}
	}
	return ""
}

// splitName cuts a distinguished name at its commas; \, is text (RFC 4514).
func splitName(s string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ',':
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	return append(parts, s[start:])
}

// checkTransit knows the schemes only; the rest of the URI is for whoever holds
// the key. A path here must not pass for one.
func checkTransit(s string) string {
	for _, scheme := range []string{"hashivault://", "openbao://"} {
		if rest, found := strings.CutPrefix(s, scheme); found {
			if checkToken(rest) != "" {
				return fmt.Sprintf("%q does not name a Transit key", clip(s))
			}
			return ""
		}
	}
	return "it must begin with hashivault:// or openbao://; a file belongs in publicKeyFile"
}

// checkToken wants printable ASCII without spaces.
func checkToken(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "it has a character that is not printable ASCII"
	}
	return ""
}

func checkAddress(s string) string {
	for _, scheme := range []string{"https://", "http://", "unix:///"} {
		if rest, found := strings.CutPrefix(s, scheme); found && checkToken(rest) == "" {
			if strings.Contains(rest, "@") {
				return "it must hold no credentials"
			}
			return ""
		}
	}
	return "it must be the URL of a Vault, as in https://vault.example.com"
}

func checkPublicKey(s string) string {
	_, err := signature.ParsePublicKeys("publicKey", []byte(s))
	var bad *signature.KeyFileError
	if errors.As(err, &bad) {
		return bad.Reason
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func checkFile(s string) string {
	if strings.Contains(s, "://") {
		return "it must be a path; a Transit key belongs in key"
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "it has a control character"
	}
	return ""
}
