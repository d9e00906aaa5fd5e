// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command table prints the acceptance table from a file of evidence. It exits with
// 1 if a line is not shown.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/aegis-oci/aegis-oci/internal/evidence"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "table: error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: table FILE")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	complete, err := evidence.Print(os.Stdout, f)
	if err == nil && !complete {
		err = errors.New("a line of the table is not shown")
	}
	return err
}
