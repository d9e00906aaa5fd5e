// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command terraform reads a Terraform configuration from standard input with
// HashiCorp's own parser and prints each resource as one line of JSON: its kind,
// its name, and its attributes, evaluated where they name no other resource.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

type resource struct {
	Kind       string                     `json:"kind"`
	Name       string                     `json:"name"`
	Attributes map[string]json.RawMessage `json:"attributes"`
	References map[string]string          `json:"references"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	source, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	file, diags := hclsyntax.ParseConfig(source, "main.tf", hcl.InitialPos)
	if diags.HasErrors() {
		return diags
	}
	encoder := json.NewEncoder(out)
	for _, block := range file.Body.(*hclsyntax.Body).Blocks {
		if block.Type != "resource" {
			continue
		}
		if len(block.Labels) != 2 {
			return fmt.Errorf("a resource has %d labels", len(block.Labels))
		}
		r := resource{Kind: block.Labels[0], Name: block.Labels[1], Attributes: map[string]json.RawMessage{}, References: map[string]string{}}
		for name, a := range block.Body.Attributes {
			if vars := a.Expr.Variables(); len(vars) > 0 {
				r.References[name] = string(a.Expr.Range().SliceBytes(source))
				continue
			}
			value, diags := a.Expr.Value(nil)
			if diags.HasErrors() {
				return diags
			}
			if r.Attributes[name], err = ctyjson.Marshal(value, value.Type()); err != nil {
				return err
			}
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
	return nil
}
