// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// announce writes the addresses to stdout and, if named, to the ready file.
func announce(r ready, file string, stdout io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the addresses: %w", err)
	}
	line = append(line, '\n')
	if file != "" {
		if err := writeWhole(file, line); err != nil {
			return err
		}
	}
	if _, err := stdout.Write(line); err != nil {
		return fmt.Errorf("announcing the addresses: %w", err)
	}
	return nil
}

// writeWhole makes the file appear with all of its content: a caller that polls
// for it never reads half a JSON document.
func writeWhole(file string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".aegis-stack-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(content); err != nil {
		_ = tmp.Close()
		return fmt.Errorf("writing %s: %w", file, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
