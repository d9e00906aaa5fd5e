// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
)

type explainOptions struct {
	registryFlags
	vaultFlags
	policyFlags
}

func (a *app) policyExplainCmd() *cobra.Command {
	o := &explainOptions{}
	cmd := &cobra.Command{
		Use:   "explain [flags] REF",
		Short: "Show why a reference is accepted or not: every candidate, key and rule",
		Long: `Resolve REF and decide as verify does, and show the statement that applies and, for
every candidate signature, what each key and each rule saw. The decision is in the
result; the exit code says only that it could be explained.

With --format json the result is a record with everything that the decision was
made from: policy replay decides it again, without a registry and without Vault.

Example:
  aegis-oci policy explain --policy policy.yaml registry.example.com/models/vad:v1`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runPolicyExplain(cmd, o, args) },
	}
	f := cmd.Flags()
	o.policyFlags.register(f)
	o.registryFlags.register(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runPolicyExplain(cmd *cobra.Command, o *explainOptions, args []string) error {
	ref, err := parseRef(args[0])
	if err != nil {
		return err
	}
	p, err := o.policyFlags.open(a)
	if err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	rec, err := client.Explain(cmd.Context(), aegis.ExplainOptions{
		Ref: ref, Kind: p.kind, Document: p.document, Open: p.opener(a, &o.vaultFlags),
	})
	if err != nil {
		return err
	}
	return a.print(rec, func(w io.Writer) error {
		fmt.Fprintf(w, "statement  %s\n", rec.Policy.Statement)
		fmt.Fprintf(w, "reference  %s (%s)\n", rec.Reference, rec.Digest)
		fmt.Fprintf(w, "requires   %d of %s\n", rec.Policy.Require, strings.Join(rec.Policy.Keys, ", "))
		candidatesText(w, rec.Candidates)
		if rec.Truncated {
			fmt.Fprintln(w, "more is attached than was looked at")
		}
		decisionText(w, "decision ", rec.Decision)
		return nil
	})
}

func candidatesText(w io.Writer, candidates []aegis.Candidate) {
	for _, c := range candidates {
		fmt.Fprintf(w, "candidate  %s %s\n", c.Digest, first(string(c.Format), c.State))
		if c.Reason != "" {
			fmt.Fprintf(w, "  %s: %s\n", c.State, oneLine(c.Reason))
		}
		for _, k := range c.Keys {
			fmt.Fprintf(w, "  %s: %s%s\n", oneLine(k.Key), k.Outcome, versionText(k.KeyVersion))
			for _, r := range k.Rules {
				rulesText(w, r)
			}
		}
	}
}

func rulesText(w io.Writer, r aegis.Rule) {
	word := "ok"
	if !r.Holds {
		word = "NO"
	}
	fmt.Fprintf(w, "    %s  %-18s %s", word, r.Rule, oneLine(r.Saw))
	if r.Reason != "" {
		fmt.Fprintf(w, ": %s", oneLine(r.Reason))
	}
	fmt.Fprintln(w)
}

func decisionText(w io.Writer, label string, d aegis.Decision) {
	fmt.Fprintf(w, "%s  %s", label, d.Outcome)
	if len(d.Signers) > 0 {
		fmt.Fprintf(w, ", signed by %s", oneLine(strings.Join(d.Signers, ", ")))
	}
	if d.Reason != "" {
		fmt.Fprintf(w, ": %s", oneLine(d.Reason))
	}
	fmt.Fprintln(w)
}

// maxRecord bounds a record: a hundred candidates with their envelopes.
const maxRecord = 256 << 20

// differsError means that a record does not come out as it was written.
type differsError struct{ recorded, decided aegis.Decision }

func (e *differsError) Error() string {
	if e.recorded.Outcome != e.decided.Outcome {
		return fmt.Sprintf("the record says %s, and deciding it again says %s: %s", e.recorded.Outcome, e.decided.Outcome, first(e.decided.Reason, strings.Join(e.decided.Signers, ", ")))
	}
	return "the record does not come out as it was written: its candidates, rules or reasons differ"
}

func (a *app) policyReplayCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "replay [flags] RECORD",
		Short: "Decide a record of policy explain again, offline",
		Long: `Decide again what policy explain --format json has recorded, without a registry and
without Vault. The policy is parsed and matched again, the manifest hashed, the
envelopes parsed, signatures under public keys verified, and every rule judged as at
the recorded time. What Vault said is taken from the record as it was written: a
record is a protocol and proves nothing about Transit keys. Exit code 3 means that
the result is not the recorded one. RECORD is a file, or - for standard input.

Example:
  aegis-oci policy replay record.json`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runPolicyReplay(cmd, args[0]) },
	}
}

func (a *app) runPolicyReplay(cmd *cobra.Command, path string) error {
	raw, err := a.readInput("policy replay", path, maxRecord)
	if err != nil {
		return &usageError{msg: err.Error()}
	}
	rec, err := aegis.ParseRecord(raw)
	if err != nil {
		return err
	}
	r, err := aegis.Replay(cmd.Context(), rec)
	if err != nil {
		return err
	}
	if !r.Same {
		return &differsError{recorded: r.Recorded, decided: r.Decision}
	}
	return a.print(r, func(w io.Writer) error {
		fmt.Fprintf(w, "replayed   %s (%s) as at %s\n", oneLine(r.Reference), r.Digest, r.Time.Format(time.RFC3339))
		fmt.Fprintf(w, "verified again   %s\n", oneLine(first(strings.Join(r.VerifiedAgain, ", "), "none")))
		fmt.Fprintf(w, "as recorded      %s\n", oneLine(first(strings.Join(r.AsRecorded, ", "), "none")))
		decisionText(w, "decision ", r.Decision)
		return nil
	})
}
