// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

type doctorOptions struct {
	registryFlags
	vaultFlags
	keys []string
}

// DoctorResult is what doctor found. OK is true when no check failed.
type DoctorResult struct {
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// Check is one line. Hint says what to do about it.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// The statuses of a Check.
const (
	checkOK      = "ok"
	checkWarn    = "warn"
	checkFail    = "fail"
	checkSkipped = "skipped"
)

// doctorPatience is how long an unreachable server is tried again unless
// --retry-timeout says otherwise: a person waits for the answer.
const doctorPatience = 5 * time.Second

func (a *app) doctorCmd() *cobra.Command {
	o := &doctorOptions{}
	cmd := &cobra.Command{
		Use:   "doctor [flags] [REF]",
		Short: "Check registry, Vault, token and key, and say what to do",
		Long: `Go through what push, sign, verify and pull need and print a line for each: the
registry of REF (reachable, TLS, credentials, REF itself, how it lists referrers),
Vault (reachable, unsealed, clock), the login, the token's lifetime, what it may do
with each --key, and whether the key can sign. Nothing is written, signed or pushed;
a token that was obtained is revoked.

Exit codes: 0 nothing failed, 4 something did. A warning fails nothing.

Example:
  aegis-oci doctor --key hashivault://aegis-model-sign registry.example.com/models/vad:v1`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runDoctor(cmd, o, args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "key to look at: hashivault://..., a PEM file or env://NAME (repeatable)")
	o.registryFlags.register(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runDoctor(cmd *cobra.Command, o *doctorOptions, args []string) error {
	if len(args) > 1 {
		return &usageError{msg: "doctor takes one reference", hint: cmd.UseLine()}
	}
	if !cmd.Flags().Changed("retry-timeout") {
		a.retryTimeout = doctorPatience
	}
	d := &doctor{a: a, o: o}
	if len(args) > 0 {
		if err := d.registry(cmd.Context(), args[0]); err != nil {
			return err
		}
	} else {
		if err := o.noRegistry(cmd, "no REF is given"); err != nil {
			return err
		}
		d.add("registry", checkSkipped, "no REF given", "")
	}
	if err := d.vault(cmd.Context()); err != nil {
		return err
	}
	r := DoctorResult{OK: true, Checks: d.checks}
	var failed []string
	for _, c := range d.checks {
		if c.Status == checkFail {
			failed = append(failed, c.Name)
		}
	}
	r.OK = len(failed) == 0
	if err := a.print(r, func(w io.Writer) error { return doctorText(w, r) }); err != nil {
		return err
	}
	if !r.OK {
		return &printedError{exit: exitUndecided, code: "doctor", message: "not in order: " + strings.Join(failed, ", ")}
	}
	return nil
}

// doctor collects the lines.
type doctor struct {
	a      *app
	o      *doctorOptions
	checks []Check
}

func (d *doctor) add(name, status, detail, hint string) {
	d.checks = append(d.checks, Check{Name: name, Status: status, Detail: oneLine(detail), Hint: oneLine(hint)})
}

// failed adds a red line with the hint that the same error has everywhere. What
// ended the whole command is returned.
func (d *doctor) failed(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o := classify(ctx, err)
	d.add(name, checkFail, o.message, first(o.hint, "see the message"))
	return nil
}

// clock compares a server's Date with ours. Signatures are judged by time, and so
// are tokens and certificates.
func (d *doctor) clock(name string, date time.Time, took time.Duration) {
	if date.IsZero() {
		d.add(name, checkSkipped, "the server sends no Date", "")
		return
	}
	// Date has whole seconds, and was written somewhere within the request.
	skew := time.Since(date.Add(time.Second / 2)).Round(time.Second)
	off := skew.Abs() - took - time.Second
	detail := fmt.Sprintf("%s apart, at most %s is allowed", skew.Abs(), verify.ClockSkew)
	switch {
	case off > verify.ClockSkew:
		d.add(name, checkFail, detail, "set the clock of this machine, or of the server, with NTP")
	case off > verify.ClockSkew/2:
		d.add(name, checkWarn, detail, "set the clock of this machine, or of the server, with NTP")
	default:
		d.add(name, checkOK, detail, "")
	}
}

func doctorText(w io.Writer, r DoctorResult) error {
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%-7s  %-*s  %s\n", c.Status, width, c.Name, c.Detail)
		if c.Hint != "" {
			fmt.Fprintf(w, "%-7s  %-*s  -> %s\n", "", width, "", c.Hint)
		}
	}
	return nil
}
