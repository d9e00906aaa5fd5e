// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package buffertest has tests see that all buffers come back.
package buffertest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/internal/buffer"
)

// patience is how long goroutines that a test has left may take to end.
const patience = 10 * time.Second

// Run is m.Run that fails when buffers of buffer.Large bytes were not given back. No
// collector finds these.
func Run(m *testing.M) int {
	code := m.Run()
	for end := time.Now().Add(patience); buffer.InUse() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := buffer.InUse(); n > 0 {
		fmt.Fprintf(os.Stderr, "%d buffers were not given back\n", n)
		return max(code, 1)
	}
	return code
}
