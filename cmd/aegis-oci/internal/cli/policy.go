// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

func (a *app) policyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Write, check and explain trust policies",
		Long: `Write a first trust policy, check one, see which statement covers a reference, and
see why a reference is accepted or not.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{msg: fmt.Sprintf("policy has no command %q", args[0]), hint: "aegis-oci policy --help"}
			}
			return &usageError{msg: "policy needs a command", hint: "aegis-oci policy --help"}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.policyInitCmd(), a.policyCheckCmd(), a.policyTestCmd(), a.policyExplainCmd(), a.policyReplayCmd())
	return cmd
}

// statementResult is one statement as check and test print it.
type statementResult struct {
	Name              string            `json:"name"`
	Scopes            []string          `json:"scopes"`
	Require           int               `json:"require"`
	Keys              []string          `json:"keys"`
	Formats           []string          `json:"formats,omitempty"`
	MaxAge            string            `json:"maxAge,omitempty"`
	NotBefore         *time.Time        `json:"notBefore,omitempty"`
	RequireRepository bool              `json:"requireRepository,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	Builder           map[string]string `json:"builder,omitempty"`
	// Revoked counts what is revoked.
	Revoked int `json:"revoked,omitempty"`
}

func describeStatement(st trustpolicy.Statement) statementResult {
	r := statementResult{
		Name: st.Name, Scopes: st.Scopes, Require: st.Require, Keys: []string{}, RequireRepository: st.RequireRepository,
		Annotations: st.Annotations, Builder: st.Builder,
		Revoked: len(st.Revoked.Subjects) + len(st.Revoked.Versions) + len(st.Revoked.Keys),
	}
	for _, k := range st.Keys {
		r.Keys = append(r.Keys, k.Name)
	}
	for _, f := range st.Formats {
		r.Formats = append(r.Formats, string(f))
	}
	if st.MaxAge.Is > 0 {
		r.MaxAge = fmt.Sprintf("%s of %s", st.MaxAge.Is, st.MaxAge.Of)
	}
	if !st.NotBefore.IsZero() {
		r.NotBefore = &st.NotBefore
	}
	return r
}

func (r statementResult) text(w io.Writer) {
	fmt.Fprintf(w, "statement  %s\n", r.Name)
	fmt.Fprintf(w, "  scopes             %s\n", strings.Join(r.Scopes, ", "))
	fmt.Fprintf(w, "  require            %d of %s\n", r.Require, strings.Join(r.Keys, ", "))
	if len(r.Formats) > 0 {
		fmt.Fprintf(w, "  formats            %s\n", strings.Join(r.Formats, ", "))
	}
	if r.MaxAge != "" {
		fmt.Fprintf(w, "  maxAge             %s\n", r.MaxAge)
	}
	if r.NotBefore != nil {
		fmt.Fprintf(w, "  notBefore          %s\n", r.NotBefore.Format(time.RFC3339))
	}
	if r.RequireRepository {
		fmt.Fprintln(w, "  requireRepository  the signed repository must be the requested one")
	}
	mapText(w, "  annotation         ", r.Annotations)
	mapText(w, "  builder            ", r.Builder)
	if r.Revoked > 0 {
		fmt.Fprintf(w, "  revoked            %d\n", r.Revoked)
	}
}

type policyCheckResult struct {
	Policy     string            `json:"policy"`
	Statements []statementResult `json:"statements"`
}

func (a *app) policyCheckCmd() *cobra.Command {
	o := &policyFlags{}
	cmd := &cobra.Command{
		Use:   "check [flags]",
		Short: "Check a trust policy and the key files that it names",
		Long: `Parse the policy as pull and verify do and read the files that it names. Vault and
registries are not contacted.

Example:
  aegis-oci policy check --policy policy.yaml`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := o.open(a)
			if err != nil {
				return err
			}
			r := policyCheckResult{Policy: p.source, Statements: []statementResult{}}
			for _, st := range p.policy.Statements() {
				open := &unaskedOpener{p.opener(a, &vaultFlags{})}
				if _, err := aegis.RequirementOf(cmd.Context(), st, "", open); err != nil {
					return fmt.Errorf("policy %s: statement %q: %w", p.source, st.Name, err)
				}
				r.Statements = append(r.Statements, describeStatement(st))
			}
			return a.print(r, func(w io.Writer) error {
				for _, st := range r.Statements {
					st.text(w)
				}
				return nil
			})
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// unaskedOpener opens files, and Transit keys as far as their names are right.
type unaskedOpener struct{ *policyOpener }

func (o *unaskedOpener) Transit(_ context.Context, k trustpolicy.Key, _ bool) (signature.Key, error) {
	if _, err := o.a.keyRef(k.Transit); err != nil {
		return nil, err
	}
	if k.Vault.CAFile != "" {
		if _, err := o.ReadFile(k.Vault.CAFile); err != nil {
			return nil, &signature.KeyFileError{Name: k.Name, Reason: err.Error()}
		}
	}
	return unasked(k.Transit), nil
}

// unasked is a key that answers no question.
type unasked string

func (u unasked) ID() signature.KeyID { return signature.KeyID{Name: string(u)} }
func (u unasked) Local() bool         { return false }

func (u unasked) Check(_ context.Context, checks []signature.Check) []signature.Verdict {
	out := make([]signature.Verdict, len(checks))
	for i := range out {
		out[i].Err = errors.New("the key is not asked")
	}
	return out
}

type policyTestResult struct {
	Reference  string          `json:"reference"`
	Repository string          `json:"repository"`
	Statement  statementResult `json:"statement"`
}

func (a *app) policyTestCmd() *cobra.Command {
	o := &policyFlags{}
	cmd := &cobra.Command{
		Use:   "test [flags] REF",
		Short: "Say which statement covers a reference, without asking anybody",
		Long: `Say which statement of the policy covers REF, and what it asks for. Nothing is
resolved and no signature is looked at. Exit code 3 means that no statement does.

Example:
  aegis-oci policy test --policy policy.yaml registry.example.com/models/vad:v1`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			p, err := o.open(a)
			if err != nil {
				return err
			}
			st, err := p.policy.Match(ref.Name())
			if err != nil {
				return err
			}
			r := policyTestResult{Reference: ref.String(), Repository: ref.Name(), Statement: describeStatement(st)}
			return a.print(r, func(w io.Writer) error {
				fmt.Fprintf(w, "reference  %s\n", r.Reference)
				r.Statement.text(w)
				return nil
			})
		},
	}
	o.register(cmd.Flags())
	return cmd
}

type policyInitOptions struct {
	scopes  []string
	keys    []string
	require int
	output  string
}

type policyInitResult struct {
	// Path is empty where the policy went to standard output.
	Path   string `json:"path,omitempty"`
	Policy string `json:"policy"`
}

func (a *app) policyInitCmd() *cobra.Command {
	o := &policyInitOptions{}
	cmd := &cobra.Command{
		Use:   "init [flags]",
		Short: "Write a first trust policy",
		Long: `Write a policy of one statement to a new file, or to standard output. A Transit key
is hashivault://..., everything else the path of a PEM file, which the policy keeps
as it is given.

Example:
  aegis-oci policy init --scope 'registry.example.com/models/**' --key hashivault://transit/release -o policy.yaml`,
		Args: exactArgs(0),
		RunE: func(*cobra.Command, []string) error { return a.runPolicyInit(o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.scopes, "scope", nil, "repositories that the statement is for (repeatable)")
	f.StringArrayVar(&o.keys, "key", nil, "key that may sign (repeatable)")
	f.IntVar(&o.require, "require", 1, "how many of the keys must have signed")
	f.StringVarP(&o.output, "output", "o", "", "new file to write")
	return cmd
}

func (a *app) runPolicyInit(o *policyInitOptions) error {
	if len(o.scopes) == 0 || len(o.keys) == 0 {
		return &usageError{msg: "policy init needs --scope and --key", hint: "--scope 'registry.example.com/models/**' --key hashivault://transit/release"}
	}
	document := o.document()
	if _, err := trustpolicy.Parse([]byte(document)); err != nil {
		return err
	}
	r := policyInitResult{Path: o.output, Policy: document}
	if o.output != "" {
		f, err := os.OpenFile(o.output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			return &usageError{msg: o.output + " is there already", hint: "-o another file"}
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(document)
		if err := errors.Join(err, f.Close()); err != nil {
			return errors.Join(err, os.Remove(o.output))
		}
	}
	return a.print(r, func(w io.Writer) error {
		if r.Path != "" {
			_, err := fmt.Fprintf(w, "wrote %s\n", r.Path)
			return err
		}
		_, err := io.WriteString(w, document)
		return err
	})
}

func (o *policyInitOptions) document() string {
	var b strings.Builder
	b.WriteString("version: 1\npolicies:\n- name: models\n  scopes:\n")
	for _, s := range o.scopes {
		fmt.Fprintf(&b, "  - %s\n", quoted(s))
	}
	fmt.Fprintf(&b, "  require: %d\n  requireRepository: true\n  keys:\n", o.require)
	for i, k := range o.keys {
		field := "publicKeyFile"
		if vault.IsKeyRef(k) {
			field = "key"
		}
		fmt.Fprintf(&b, "  - name: key-%d\n    %s: %s\n", i+1, field, quoted(k))
	}
	return b.String()
}

// quoted is a YAML single-quoted scalar, in which nothing but the quote itself is
// special.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
