// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseNotation reads notation's trustpolicy.json (Notary Project specification,
// "Trust Store and Trust Policy", version 1.0 of the OCI policy) and yields the
// same Policy as Parse: statements whose one key has TrustStores and Identities,
// and that count Notary's two formats alone.
//
// Only the levels strict and permissive are read, and permissive is enforced as
// strict but for revocation, which it logs: here a signature counts or does not.
// Trust stores of type tsa say whose stamps count, as verifyTimestamp has it. audit and skip let pass what does
// not verify, and are refused with that reason, as are overrides. Errors are
// *ParseError.
func ParseNotation(data []byte) (Policy, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return Policy{}, &ParseError{1, "a policy of notation is JSON"}
	}
	root, err := readDocument(data)
	if err != nil {
		return Policy{}, err
	}
	doc, err := objectOf(root, "")
	if err != nil {
		return Policy{}, err
	}
	if err := doc.knowsOnly("version", "trustPolicies"); err != nil {
		return Policy{}, err
	}
	version, err := doc.optional("version", func(s string) string {
		if s != "1.0" {
			return fmt.Sprintf("%q is not known; this program reads version 1.0", clip(s))
		}
		return ""
	})
	if err != nil {
		return Policy{}, err
	}
	if version == "" {
		return Policy{}, fault(doc.node, "", "field \"version\" is missing")
	}
	return statementsOf(doc, "trustPolicies", reader.notation)
}

func (r reader) notation(n *yaml.Node, path string) (statement, error) {
	o, err := objectOf(n, path)
	if err != nil {
		return statement{}, err
	}
	if err := o.knowsOnly("name", "registryScopes", "signatureVerification", "trustStores", "trustedIdentities"); err != nil {
		return statement{}, err
	}
	s := statement{Statement: Statement{Require: 1}}
	s.Formats = append(s.Formats, "notary", "notary-cose")
	if s.Name, err = o.name(r.names); err != nil {
		return statement{}, err
	}
	if s.scopes, err = r.readScopes(o, "registryScopes"); err != nil {
		return statement{}, err
	}
	s.Scopes = scopeTexts(s.scopes)
	for i, sc := range s.scopes {
		if sc.breadth != exact && sc.breadth != everything {
			scopes := o.fields["registryScopes"]
			return statement{}, fault(scopes.Content[i], o.at("registryScopes"), `a scope of notation is a repository or "*"`)
		}
	}
	level, err := o.level()
	if err != nil {
		return statement{}, err
	}
	k := Key{Name: s.Name, Revocation: level.revocation}
	stores, err := o.optionalTexts("trustStores", checkTrustStore)
	if err != nil {
		return statement{}, err
	}
	for _, store := range stores {
		if strings.HasPrefix(store, "tsa:") {
			s.Timestamps.TrustStores = append(s.Timestamps.TrustStores, store)
		} else {
			k.TrustStores = append(k.TrustStores, store)
		}
	}
	if s.Timestamps.Given() {
		s.Timestamps.Required, s.Timestamps.AfterExpiry, s.Timestamps.Revocation = !level.afterExpiry, level.afterExpiry, level.revocation
	}
	if k.Identities, err = o.optionalTexts("trustedIdentities", checkIdentity); err != nil {
		return statement{}, err
	}
	switch {
	case len(stores) == 0:
		return statement{}, fault(n, path, "field \"trustStores\" is missing")
	case len(k.TrustStores) == 0:
		return statement{}, fault(o.fields["trustStores"], o.at("trustStores"), "it names no store of type ca, so that nobody is trusted")
	case len(k.Identities) == 0:
		return statement{}, fault(n, path, "field \"trustedIdentities\" is missing")
	case len(k.Identities) > 1 && slices.Contains(k.Identities, "*"):
		return statement{}, fault(o.fields["trustedIdentities"], o.at("trustedIdentities"), `"*" stands alone`)
	}
	s.Keys = []Key{k}
	return s, nil
}

// level is what signatureVerification asks for.
type level struct {
	revocation  Revocation
	afterExpiry bool
}

// level reads signatureVerification.
func (o object) level() (level, error) {
	n, found := o.fields["signatureVerification"]
	if !found {
		return level{}, fault(o.node, o.path, "field \"signatureVerification\" is missing")
	}
	in, err := objectOf(n, o.at("signatureVerification"))
	if err != nil {
		return level{}, err
	}
	if override, found := in.fields["override"]; found {
		return level{}, fault(override, in.at("override"), "overrides are not read: they turn checks off that are always made here")
	}
	if err := in.knowsOnly("level", "verifyTimestamp"); err != nil {
		return level{}, err
	}
	when, err := in.optional("verifyTimestamp", func(s string) string {
		if s != "always" && s != "afterCertExpiry" {
			return fmt.Sprintf("%q is neither always nor afterCertExpiry", clip(s))
		}
		return ""
	})
	if err != nil {
		return level{}, err
	}
	name, err := in.optional("level", func(s string) string {
		switch s {
		case "strict", "permissive":
			return ""
		case "audit", "skip":
			return fmt.Sprintf("level %q lets pass what does not verify; use strict", s)
		}
		return fmt.Sprintf("level %q is not known", clip(s))
	})
	switch {
	case err != nil:
		return level{}, err
	case name == "":
		return level{}, fault(n, in.path, "field \"level\" is missing")
	}
	l := level{revocation: Enforce, afterExpiry: when == "afterCertExpiry"}
	if name == "permissive" {
		l.revocation = Log
	}
	return l, nil
}

var namedStore = regexp.MustCompile(`^[a-zA-Z]+:[a-zA-Z0-9_.-]+$`)

func checkTrustStore(s string) string {
	if !namedStore.MatchString(s) {
		return fmt.Sprintf("%q is not of the form ca:NAME", clip(s))
	}
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case name == "." || name == "..":
		return fmt.Sprintf("%q does not name a trust store", s)
	case kind == "ca", kind == "tsa":
		return ""
	}
	return fmt.Sprintf("trust stores of type %q are not read; only ca and tsa are", clip(kind))
}
