// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package display prints results and progress. A result is one struct: its JSON
// is the machine-readable output, a template sees the JSON's names, and its
// Text method prints it for a person.
package display

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
)

// Printer prints one result.
type Printer struct {
	w      io.Writer
	json   bool
	format *template.Template
}

// NewPrinter understands "text", "json" and "go-template=TEMPLATE".
func NewPrinter(w io.Writer, format string) (Printer, error) {
	p := Printer{w: w}
	source, isTemplate := strings.CutPrefix(format, "go-template=")
	switch {
	case isTemplate:
		t, err := template.New("format").Option("missingkey=error").Parse(source)
		if err != nil {
			return Printer{}, fmt.Errorf("--format: %w", err)
		}
		p.format = t
	case format == "json":
		p.json = true
	case format != "text":
		return Printer{}, fmt.Errorf("--format %q is unknown", format)
	}
	return p, nil
}

// Print prints result; text is its form for a person.
func (p Printer) Print(result any, text func(io.Writer) error) error {
	switch {
	case p.json:
		return writeJSON(p.w, result)
	case p.format != nil:
		return p.execute(result)
	}
	return buffered(p.w, text)
}

func (p Printer) execute(result any) error {
	raw, err := json.Marshal(result)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // sizes must not turn into 1.2e+10
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	return buffered(p.w, func(w io.Writer) error {
		if err := p.format.Execute(w, v); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		_, err := io.WriteString(w, "\n")
		return err
	})
}

// buffered writes nothing when the text cannot be made whole.
func buffered(w io.Writer, text func(io.Writer) error) error {
	var b bytes.Buffer
	if err := text(&b); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Error prints a failure as JSON.
func Error(w io.Writer, code, message string, retryable bool) error {
	type body struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		Retryable bool   `json:"retryable"`
	}
	return writeJSON(w, struct {
		Error body `json:"error"`
	}{body{code, message, retryable}})
}

// Bytes renders a size with a binary unit.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exp := float64(n)/unit, 0
	for value >= unit && exp < 4 {
		value /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[exp])
}
