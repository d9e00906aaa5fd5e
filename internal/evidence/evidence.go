// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package evidence lets tests say what they have shown of the acceptance table,
// and prints it. Tests of several packages append to one file, a JSON object a
// line, that $AEGIS_EVIDENCE names.
package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// Variable names the file that the tests append to. Without it nothing is kept.
const Variable = "AEGIS_EVIDENCE"

// The lines of the table, in the words of who asked for them.
const (
	EphemeralToken = "a CI job obtains an ephemeral token via OIDC, no static secret"
	SignatureFile  = "CI signs, Transit returns a signature, the signature file is in the workspace"
	PodsVerify     = "pods obtain short-lived tokens (Kubernetes auth; Agent) and call transit/verify before loading"
	NoSecretKept   = "no VAULT_TOKEN or private key in repo, images, long-lived secrets"
	AuditShows     = "audit log shows sign and verify from CI and pods with short TTL"
	OnlyOneKey     = "policy limited to sign/verify of one key"
	KeyRotation    = "key rotation; key_version"

	PodsRefused  = "a pod whose model is not verified does not start, and says why"
	PodsCarryOn  = "a pod outlasts Vault's absence, and resumes after a kill"
	PodsConfined = "the init container: uid 65532, read-only root, only the emptyDir writable"
	PodsPrivate  = "private registries, authorities and proxies"
)

// The packages whose tests contribute: the operator's scenarios, and the pods on a
// real node.
const (
	Operator = "acceptance"
	Node     = "kubernetes"
)

// row is a line of the table. Each package in from has to have shown it: what one
// scenario shows says nothing of the other.
type row struct {
	line string
	from []string
	by   string
}

var table = []row{
	{EphemeralToken, []string{Operator}, "workflow steps run against Vault and the issuer; environment holds no VAULT_TOKEN"},
	{SignatureFile, []string{Operator}, "file present, verifies offline"},
	{PodsVerify, []string{Node}, "real TokenReview by the API server; verify in the audit log before the first model blob"},
	{NoSecretKept, []string{Operator, Node}, "scan of the tree, the image and the cluster's Secrets"},
	{AuditShows, []string{Operator, Node}, "parsed from the real audit log, TTL of each token printed"},
	{OnlyOneKey, []string{Operator}, "every path but sign, verify, lookup-self and revoke-self asked for and denied"},
	{KeyRotation, []string{Operator}, "old signatures verify, new ones use the new version; below min_decryption_version rejected"},
	{PodsRefused, []string{Node}, "exit code, and the reason in kubectl describe"},
	{PodsCarryOn, []string{Node}, "Vault down for 30 s and back; a restart reuses what is there"},
	{PodsConfined, []string{Node}, "seen from inside the container"},
	{PodsPrivate, []string{Node}, "a pull secret, a corporate authority, a proxy"},
}

// item is one line of the file.
type item struct{ Line, From, Test, Text string }

// Prove records, when t has ended without a failure, that it has shown a line.
func Prove(t testing.TB, from, line, format string, args ...any) {
	t.Helper()
	it := item{Line: line, From: from, Test: t.Name(), Text: fmt.Sprintf(format, args...)}
	t.Log(it.Text)
	file := os.Getenv(Variable)
	if file == "" {
		return
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if err := add(file, it); err != nil {
			t.Errorf("evidence: %v", err)
		}
	})
}

// add appends in one write, which processes beside each other do not mix.
func add(file string, it item) error {
	raw, err := json.Marshal(it)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	return errors.Join(err, f.Close())
}

// Print writes the table with what r holds, and reports whether every line was
// shown by every package that has to.
func Print(w io.Writer, r io.Reader) (complete bool, err error) {
	of := make(map[string][]item)
	for dec := json.NewDecoder(r); ; {
		var it item
		if err := dec.Decode(&it); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return false, err
		}
		of[it.Line] = append(of[it.Line], it)
	}
	complete = true
	var b strings.Builder
	b.WriteString("\nAcceptance\n")
	for _, row := range table {
		fmt.Fprintf(&b, "\n%s\n  shown by: %s\n", row.line, row.by)
		for _, from := range row.from {
			if !slices.ContainsFunc(of[row.line], func(it item) bool { return it.From == from }) {
				complete = false
				fmt.Fprintf(&b, "  NOT SHOWN by test/%s\n", from)
			}
		}
		slices.SortStableFunc(of[row.line], func(a, b item) int { return strings.Compare(a.From+a.Test, b.From+b.Test) })
		for _, it := range of[row.line] {
			fmt.Fprintf(&b, "  - %s: %s\n", it.Test, it.Text)
		}
		delete(of, row.line)
	}
	for line := range of {
		return false, fmt.Errorf("no line of the table: %q", line)
	}
	_, err = io.WriteString(w, b.String())
	return complete, err
}
