// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// policyFlags name a trust policy.
type policyFlags struct {
	policy   string
	notation string
}

func (p *policyFlags) register(f *flagSet) {
	f.StringVar(&p.policy, "policy", "", "trust policy: a file, - for standard input, or env://NAME")
	f.StringVar(&p.notation, "notation-policy", "", "notation's trustpolicy.json, with its truststore folder beside it")
}

func (p *policyFlags) given() bool { return p.policy != "" || p.notation != "" }

// openPolicy is a parsed policy and where its paths begin.
type openPolicy struct {
	kind     string
	source   string
	document []byte
	dir      string
	policy   trustpolicy.Policy
}

func (p *policyFlags) open(a *app) (*openPolicy, error) {
	o := &openPolicy{kind: aegis.PolicyAegis, source: p.policy}
	flag := "--policy"
	switch {
	case p.policy != "" && p.notation != "":
		return nil, usagef("--policy and --notation-policy exclude each other")
	case p.policy == "" && p.notation == "":
		return nil, &usageError{msg: "a policy is needed", hint: "--policy FILE"}
	case p.notation != "":
		o.kind, o.source, flag = aegis.PolicyNotation, p.notation, "--notation-policy"
	}
	var err error
	if o.document, o.dir, err = a.readPolicy(o.source); err != nil {
		return nil, &usageError{msg: fmt.Sprintf("%s: %v", flag, err)}
	}
	if o.policy, err = aegis.ParsePolicy(o.kind, o.document); err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, o.source, err)
	}
	return o, nil
}

// maxPolicyFile bounds a policy document; Parse has its own limit too.
const maxPolicyFile = 1 << 20

// readPolicy returns the document that source names ("-", env://NAME or a file)
// and the folder that paths in it are relative to. Symbolic links are followed:
// Kubernetes makes a ConfigMap of them, and the folder is the one that was named.
func (a *app) readPolicy(source string) (document []byte, dir string, err error) {
	if source == "-" {
		document, err = a.readInput("--policy", source, maxPolicyFile)
		return document, ".", err
	}
	if name, ok := strings.CutPrefix(source, "env://"); ok {
		if a.env[name] == "" {
			return nil, "", fmt.Errorf("the variable %s is empty or not set", name)
		}
		return []byte(a.env[name]), ".", nil
	}
	document, err = readFileBounded(source, maxPolicyFile)
	return document, filepath.Dir(source), err
}

// opener opens what the policy names.
func (o *openPolicy) opener(a *app, v *vaultFlags) *policyOpener {
	return &policyOpener{a: a, flags: v, dir: o.dir}
}

type policyOpener struct {
	a     *app
	flags *vaultFlags
	dir   string
}

var _ aegis.KeyOpener = (*policyOpener)(nil)

func (o *policyOpener) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(o.dir, p)
}

// ReadFile reads a file that the policy names.
func (o *policyOpener) ReadFile(path string) ([]byte, error) {
	return readFileBounded(o.path(path), maxKeyFile)
}

// Transit opens k at the Vault that it names, or at the command's own.
func (o *policyOpener) Transit(ctx context.Context, k trustpolicy.Key, identified bool) (signature.Key, error) {
	ref, err := o.a.keyRef(k.Transit)
	if err != nil {
		return nil, err
	}
	s, err := o.a.sessionAt(ctx, o.flags, k.Vault, o.path)
	if err != nil {
		return nil, err
	}
	key := s.Key(ref)
	if identified {
		key = key.Identified()
	}
	return key, nil
}

// sessionAt opens the Vault of one policy entry, once for each. What the entry
// leaves out is as the command has it.
func (a *app) sessionAt(ctx context.Context, v *vaultFlags, at trustpolicy.Vault, path func(string) string) (*vault.Session, error) {
	if at == (trustpolicy.Vault{}) {
		return a.session(ctx, v)
	}
	flags := *v
	flags.addr, flags.namespace = first(at.Address, v.addr), first(at.Namespace, v.namespace)
	if at.CAFile != "" {
		flags.caCert = path(at.CAFile)
	}
	where := trustpolicy.Vault{Address: flags.addr, CAFile: flags.caCert, Namespace: flags.namespace}
	if s := a.vaults[where]; s != nil {
		return s, nil
	}
	l, err := a.preparedLogin(v)
	if err != nil {
		return nil, err
	}
	s, err := a.openVault(ctx, &flags, l)
	if err != nil {
		return nil, err
	}
	if a.vaults == nil {
		a.vaults = make(map[trustpolicy.Vault]*vault.Session)
	}
	a.vaults[where] = s
	return s, nil
}

// Revocation looks up certificates where they say, through the proxy if one is set.
// One checker serves the whole command: it keeps what it has learned.
func (o *policyOpener) Revocation() aegis.RevocationChecker {
	if o.a.checker == nil {
		o.a.checker = revocation.New(revocation.Options{})
	}
	return o.a.checker
}

// Warn says something on standard error.
func (o *policyOpener) Warn(message string) { o.a.warn(message) }

// TrustStore reads a store beside the policy.
func (o *policyOpener) TrustStore(store string) ([]byte, error) { return readTrustStore(o.dir, store) }
