// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
)

// auditVerdict turns a printed report into an exit code.
func auditVerdict(r auditlog.Report) error {
	open, unsure := 0, 0
	for _, s := range r.Signatures {
		switch s.Status {
		case auditlog.Unexplained:
			open++
		case auditlog.Hinted, auditlog.Undecided:
			unsure++
		}
	}
	requests := len(r.Unexplained) + r.Log.Unlisted
	switch r.Outcome {
	case "explained":
		return nil
	case "unexplained":
		return &printedError{exit: exitRejected, code: "audit_unexplained",
			message: fmt.Sprintf("%s without a request in the log, %s of the log without a signature in the repositories",
				count(open, "signature"), count(requests, "signature"))}
	}
	e := &printedError{exit: exitUndecided, code: "audit_undecided"}
	switch {
	case r.Proof == "none" && (unsure > 0 || requests > 0):
		e.message = "without the audit device's hash nothing is proven"
		e.hint = `path "sys/audit-hash/file" { capabilities = ["update"] } in the token's policy, or --salt-file FILE`
	case r.Log.Foreign > 0:
		e.message = fmt.Sprintf("%s of the log cannot be compared: hashed under another salt", count(r.Log.Foreign, "signature"))
		e.hint = "--audit-device NAME of the device that wrote the log; one that was disabled and enabled again has a new salt"
	case len(r.Unanswered) > 0:
		e.message = count(len(r.Unanswered), "sign request") + " of the log without an answer: give all the logs"
	case r.Log.Malformed+r.Log.LongLines > 0:
		e.message = count(r.Log.Malformed+r.Log.LongLines, "line") + " of the log could not be read and may be sign requests"
	default:
		e.message = count(unsure, "signature") + " could not be judged"
	}
	return e
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func auditText(r auditlog.Report) textFunc {
	return func(w io.Writer) error {
		fmt.Fprintf(w, "signatures (%d)\n", len(r.Signatures))
		for _, s := range r.Signatures {
			explainedText(w, s)
		}
		eventsText(w, "\nin the log, and in none of the repositories", r.Unexplained, r.Log.Unlisted)
		eventsText(w, "\nsign requests without an answer in the log", r.Unanswered, 0)
		fmt.Fprintf(w, "\nlog  %s, %s, %s, %s made", count(r.Log.Files, "file"), count(r.Log.Lines, "line"),
			count(r.Log.SignRequests, "sign request"), count(r.Log.Signatures, "signature"))
		if !r.Log.From.IsZero() {
			fmt.Fprintf(w, ", %s to %s", r.Log.From.Format(time.RFC3339), r.Log.To.Format(time.RFC3339))
		}
		_, err := fmt.Fprintln(w)
		return err
	}
}

var statusText = map[auditlog.Status]string{
	auditlog.Proven: "proven", auditlog.Hinted: "by hint, unproven",
	auditlog.Unexplained: "unexplained", auditlog.Undecided: "undecided",
}

func explainedText(w io.Writer, s auditlog.Explained) {
	fmt.Fprintf(w, "  %s  %s", statusText[s.Status], s.Reference)
	if len(s.Tags) > 0 {
		fmt.Fprintf(w, " (%s)", strings.Join(s.Tags, ", "))
	}
	fmt.Fprintf(w, "\n    signature  %s %s\n", s.Format, s.Digest)
	if s.Reason != "" {
		fmt.Fprintf(w, "    %s\n", oneLine(s.Reason))
	}
	switch {
	case s.Event != nil:
		eventText(w, *s.Event)
	case s.RequestID != "":
		fmt.Fprintf(w, "    request    %s (hint)\n", oneLine(s.RequestID))
	}
}

func eventsText(w io.Writer, title string, list []auditlog.Event, more int) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "%s (%d)\n", title, len(list)+more)
	for _, e := range list {
		fmt.Fprintf(w, "  %s\n", oneLine(e.Time))
		eventText(w, e)
	}
	if more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// eventText prints what the log says of one request. The metadata was chosen by
// whoever logged in, or by the claims of their token.
func eventText(w io.Writer, e auditlog.Event) {
	row := func(name, text string) { fmt.Fprintf(w, "    %-9s  %s\n", name, oneLine(text)) }
	who := first(e.DisplayName, "unknown")
	if e.Role != "" {
		who += ", role " + e.Role
	}
	if e.EntityID != "" {
		who += ", entity " + e.EntityID
	}
	row("by", who)
	for _, k := range slices.Sorted(maps.Keys(e.Metadata)) {
		if k != "role" {
			row("", k+"="+e.Metadata[k])
		}
	}
	row("token", tokenText(e))
	row("from", first(e.RemoteAddress, "unknown")+" at "+e.Time)
	key := "hashivault://" + e.Key
	if e.Namespace != "" {
		key += "?namespace=" + e.Namespace
	}
	row("key", key+versionText(e.KeyVersion))
	row("request", e.RequestID)
}

func tokenText(e auditlog.Event) string {
	text := first(e.TokenType, "of unknown type")
	if e.TokenTTL > 0 {
		text += ", lives " + (time.Duration(min(e.TokenTTL, 1<<32)) * time.Second).String()
	} else {
		text += ", without a lifetime in the log"
	}
	if e.TokenIssued != "" {
		text += ", issued " + e.TokenIssued
	}
	return text
}
