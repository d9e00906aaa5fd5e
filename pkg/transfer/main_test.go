// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"os"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer/buffertest"
)

func TestMain(m *testing.M) { os.Exit(buffertest.Run(m)) }
