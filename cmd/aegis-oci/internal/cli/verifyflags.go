// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// trustFlags say what makes a signature count; pull, verify and inspect share them.
type trustFlags struct {
	keys        []string
	policy      string
	annotations annotationFlag
}

func (t *trustFlags) register(f *flagSet) {
	f.StringArrayVar(&t.keys, "key", nil, "key that must have signed: hashivault://..., a PEM file or env://NAME (repeatable; any one suffices)")
	f.StringVar(&t.policy, "policy", "", "trust policy file")
	t.annotations.register(f, "claim that the signature must carry, key=value (repeatable)")
}

func (t *trustFlags) given() bool { return len(t.keys) > 0 || t.policy != "" }

// maxPolicyFile bounds a policy document; Parse has its own limit too.
const maxPolicyFile = 1 << 20

// requirement turns the flags into what has to hold for repository
// ("registry/repository").
func (t *trustFlags) requirement(ctx context.Context, a *app, v *vaultFlags, repository string) (verify.Requirement, error) {
	if len(t.keys) > 0 && t.policy != "" {
		return verify.Requirement{}, usagef("--key and --policy exclude each other: name the key in the policy")
	}
	annotations, err := t.annotations.parse()
	if err != nil {
		return verify.Requirement{}, err
	}
	req := verify.Requirement{Name: "--key"}
	if t.policy != "" {
		req, err = t.fromPolicy(ctx, a, v, repository)
	} else {
		req.Keys, err = a.verifyingKeys(ctx, v, t.keys)
	}
	if err != nil {
		return verify.Requirement{}, err
	}
	req.Annotations = annotations
	return req, nil
}

func (t *trustFlags) fromPolicy(ctx context.Context, a *app, v *vaultFlags, repository string) (verify.Requirement, error) {
	raw, err := readFileBounded(t.policy, maxPolicyFile)
	if err != nil {
		return verify.Requirement{}, &usageError{msg: fmt.Sprintf("--policy: %v", err)}
	}
	policy, err := trustpolicy.Parse(raw)
	if err != nil {
		return verify.Requirement{}, fmt.Errorf("--policy %s: %w", t.policy, err)
	}
	st, err := policy.Match(repository)
	if err != nil {
		return verify.Requirement{}, err
	}
	req := verify.Requirement{Name: st.Name}
	for _, k := range st.Keys {
		key, err := a.policyKey(ctx, v, k, filepath.Dir(t.policy))
		if err != nil {
			return verify.Requirement{}, err
		}
		req.Keys = append(req.Keys, key)
	}
	return req, nil
}

// policyKey opens one key of a policy. Where it names both a Transit key and a
// public key, both must accept: neither a fake Vault nor a swapped file is enough.
func (a *app) policyKey(ctx context.Context, v *vaultFlags, k trustpolicy.Key, dir string) (signature.Key, error) {
	var parts []signature.Key
	pem := k.PublicKey
	if k.PublicKeyFile != "" {
		path := k.PublicKeyFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		var err error
		if pem, err = readFileBounded(path, maxKeyFile); err != nil {
			return nil, &usageError{msg: fmt.Sprintf("policy key %q: %v", k.Name, err)}
		}
	}
	if len(pem) > 0 {
		p, err := asKey(signature.ParsePublicKeys(k.Name, pem))
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if k.Transit != "" {
		p, err := a.verifyingKey(ctx, v, k.Transit)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return signature.All(k.Name, parts...), nil
}

// trustHint names the three ways to say what may be opened.
const trustHint = "give --key KEY or --policy FILE; --verify=false extracts without any check"

func countedText(w io.Writer, signatures []aegis.SignatureCounted) {
	for _, s := range signatures {
		fmt.Fprintf(w, "signed by %s%s (%s)\n", s.Key, versionText(s.KeyVersion), s.Format)
		claimsText(w, "  ", s.Claims)
	}
}

func claimsText(w io.Writer, indent string, c signature.Claims) {
	if !c.SignedAt.IsZero() {
		fmt.Fprintf(w, "%ssigned at  %s\n", indent, c.SignedAt.UTC().Format(time.RFC3339))
	}
	if !c.Expires.IsZero() {
		fmt.Fprintf(w, "%sexpires    %s\n", indent, c.Expires.UTC().Format(time.RFC3339))
	}
	if c.Repository != "" {
		ref := c.Repository
		if c.Tag != "" {
			ref += ":" + c.Tag
		}
		fmt.Fprintf(w, "%spushed as  %s\n", indent, oneLine(ref))
	}
	mapText(w, indent+"builder    ", c.Builder)
	mapText(w, indent+"annotation ", c.Annotations)
}

func mapText(w io.Writer, prefix string, m map[string]string) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "%s%s=%s\n", prefix, oneLine(k), oneLine(m[k]))
	}
}

// oneLine keeps text that others wrote from moving the cursor or faking a line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || (r >= 0x7f && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '\uFFFD'
		}
		return r
	}, s)
}
