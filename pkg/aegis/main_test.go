// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"os"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer/buffertest"
)

func TestMain(m *testing.M) {
	servertest.TempOnDisk()
	os.Exit(buffertest.Run(m))
}
