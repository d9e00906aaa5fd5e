// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// trustFlags say what makes a signature count; pull and verify share them.
type trustFlags struct {
	policyFlags
	keys        []string
	revoked     string
	tsaRoots    string
	annotations annotationFlag

	set *flagSet
}

func (t *trustFlags) register(f *flagSet) {
	f.StringArrayVar(&t.keys, "key", nil, "key that must have signed: hashivault://..., a PEM file or env://NAME (repeatable; any one suffices)")
	f.StringVar(&t.revoked, "revoked", "", "with --key: file of revoked manifests and keys")
	f.StringVar(&t.tsaRoots, "timestamp-root-cert", "", "with --key: PEM file with the root of a timestamp authority whose RFC 3161 stamps count, so that expired certificates do where they were stamped in time")
	t.set = f
	t.policyFlags.register(f)
	t.annotations.register(f, "claim that the signature must carry, key=value (repeatable)")
}

func (t *trustFlags) given() bool { return len(t.keys) > 0 || t.policyFlags.given() }

// requirement turns the flags into what has to hold for repository
// ("registry/repository").
func (t *trustFlags) requirement(ctx context.Context, a *app, v *vaultFlags, repository string) (verify.Requirement, error) {
	if len(t.keys) > 0 && t.policyFlags.given() {
		return verify.Requirement{}, usagef("--key and a policy exclude each other: name the key in the policy")
	}
	annotations, err := t.annotations.parse()
	if err != nil {
		return verify.Requirement{}, err
	}
	var req verify.Requirement
	if t.policyFlags.given() {
		req, err = t.fromPolicy(ctx, a, v, repository)
	} else {
		req, err = t.fromKeys(ctx, a, v)
	}
	if err != nil {
		return verify.Requirement{}, err
	}
	return req, addAnnotations(&req, annotations)
}

// addAnnotations asks for what -a names besides what the policy asks for.
func addAnnotations(req *verify.Requirement, annotations map[string]string) error {
	for k, v := range annotations {
		if asked, found := req.Annotations[k]; found && asked != v {
			return usagef("-a %s=%s contradicts the policy, which asks for %q", k, v, asked)
		}
		if req.Annotations == nil {
			req.Annotations = make(map[string]string)
		}
		req.Annotations[k] = v
	}
	return nil
}

func (t *trustFlags) fromPolicy(ctx context.Context, a *app, v *vaultFlags, repository string) (verify.Requirement, error) {
	if t.revoked != "" {
		return verify.Requirement{}, &usageError{msg: "--revoked goes with --key", hint: "write it under revoked in the policy's statement"}
	}
	if onCommandLine(t.set.Lookup("timestamp-root-cert")) {
		// Its variable may be there for what sign asks.
		return verify.Requirement{}, &usageError{msg: "--timestamp-root-cert goes with --key", hint: "write timestamps: {certificatesFile: FILE} in the policy's statement"}
	}
	p, err := t.policyFlags.open(a)
	if err != nil {
		return verify.Requirement{}, err
	}
	st, err := p.policy.Match(repository)
	if err != nil {
		return verify.Requirement{}, err
	}
	return aegis.RequirementOf(ctx, st, repository, p.opener(a, v))
}

func (t *trustFlags) fromKeys(ctx context.Context, a *app, v *vaultFlags) (verify.Requirement, error) {
	req := verify.Requirement{Name: "--key"}
	if t.revoked != "" {
		raw, err := readFileBounded(t.revoked, maxPolicyFile)
		if err != nil {
			return verify.Requirement{}, &usageError{msg: fmt.Sprintf("--revoked: %v", err)}
		}
		revoked, err := trustpolicy.ParseRevoked(raw, t.keys...)
		if err != nil {
			return verify.Requirement{}, &usageError{msg: fmt.Sprintf("--revoked %s: %v", t.revoked, err)}
		}
		req.Revoked = aegis.RevokedOf(revoked)
	}
	var err error
	if req.Stamps.Judge, err = t.stamps(); err != nil {
		return verify.Requirement{}, err
	}
	req.Keys, err = a.verifyingKeys(ctx, v, t.keys, req.NeedsIdentity())
	return req, err
}

// stamps trusts the authorities of --timestamp-root-cert; nil without.
func (t *trustFlags) stamps() (verify.StampJudge, error) {
	if t.tsaRoots == "" {
		return nil, nil
	}
	data, err := readFileBounded(t.tsaRoots, maxKeyFile)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--timestamp-root-cert: %v", err)}
	}
	return timestamp.NewJudge(t.tsaRoots, data)
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
