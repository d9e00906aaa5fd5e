// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"os"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

func TestMain(m *testing.M) {
	servertest.TempOnDisk()
	os.Exit(m.Run())
}
