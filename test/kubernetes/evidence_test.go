// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
)

// The lines of the acceptance table that pods show, and what else was asked of them.
const (
	podsVerify   = "pods obtain short-lived tokens (Kubernetes auth; Agent) and call transit/verify before loading"
	noSecretKept = "no VAULT_TOKEN or private key in images and long-lived secrets"
	auditShows   = "the audit log shows verify from pods with short-lived tokens"
	refused      = "a pod whose model is not verified does not start, and says why"
	carriesOn    = "a pod outlasts Vault's absence, and resumes after a kill"
	confined     = "the init container: uid 65532, read-only root, only the emptyDir writable"
	private      = "private registries, authorities and proxies"
)

var evidence struct {
	sync.Mutex
	of map[string][]string
}

// prove records what has shown a line, once nothing has failed.
func prove(t *testing.T, line, format string, args ...any) {
	t.Helper()
	t.Logf(format, args...)
	if t.Failed() {
		return
	}
	evidence.Lock()
	defer evidence.Unlock()
	if evidence.of == nil {
		evidence.of = make(map[string][]string)
	}
	evidence.of[line] = append(evidence.of[line], fmt.Sprintf(format, args...))
}

func printEvidence(w io.Writer) {
	evidence.Lock()
	defer evidence.Unlock()
	fmt.Fprintln(w, "\nAcceptance, on a Kubernetes node")
	for _, line := range []string{podsVerify, noSecretKept, auditShows, refused, carriesOn, confined, private} {
		fmt.Fprintf(w, "\n  %s\n", line)
		if len(evidence.of[line]) == 0 {
			fmt.Fprintln(w, "    NOT SHOWN in this run")
		}
		for _, e := range slices.Sorted(slices.Values(evidence.of[line])) {
			fmt.Fprintf(w, "    %s\n", e)
		}
	}
	fmt.Fprintln(w)
}
