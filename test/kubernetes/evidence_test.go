// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/evidence"
)

// The lines of the acceptance table that pods show, and what else was asked of them.
const (
	podsVerify   = evidence.PodsVerify
	noSecretKept = evidence.NoSecretKept
	auditShows   = evidence.AuditShows
	refused      = evidence.PodsRefused
	carriesOn    = evidence.PodsCarryOn
	confined     = evidence.PodsConfined
	private      = evidence.PodsPrivate
)

// prove records what has shown a line, once nothing has failed.
func prove(t *testing.T, line, format string, args ...any) {
	t.Helper()
	evidence.Prove(t, evidence.Node, line, format, args...)
}
