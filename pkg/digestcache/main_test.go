// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package digestcache

import (
	"os"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

func TestMain(m *testing.M) {
	servertest.TempOnDisk()
	os.Exit(m.Run())
}
