// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"testing"
)

func testAgent(t *testing.T, r *rig) {}
func testPullSecret(t *testing.T, r *rig) {}
func testCorporate(t *testing.T, r *rig) {}
func testKServe(t *testing.T, r *rig) {}
