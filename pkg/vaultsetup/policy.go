// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vaultsetup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
)

// comparePolicy compares what two policies grant, not how they are written.
func comparePolicy(c Check, want, have string) Check {
	planned, err := grants(want)
	if err != nil {
		c.Status, c.Detail = Unknown, err.Error()
		return c
	}
	real, err := grants(have)
	if err != nil {
		c.Status, c.Detail = Differs, "the policy there: "+err.Error()
		return c
	}
	var wrong []string
	for _, path := range sortedKeys(planned) {
		if real[path] != planned[path] {
			wrong = append(wrong, fmt.Sprintf("%s should have [%s] and has [%s]", path, planned[path], real[path]))
		}
	}
	for _, path := range sortedKeys(real) {
		if _, ok := planned[path]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s has [%s] and should not be there", path, real[path]))
		}
	}
	c.Want, c.Have = list(planned), list(real)
	if len(wrong) > 0 {
		c.Status, c.Detail = Differs, strings.Join(wrong, "; ")
	}
	return c
}

func list(grants map[string]string) string {
	var parts []string
	for _, path := range sortedKeys(grants) {
		parts = append(parts, path+" ["+grants[path]+"]")
	}
	return strings.Join(parts, ", ")
}

// grants reads the capabilities of each path. Parameter lists and the like narrow
// a grant in ways that this does not judge: they are shown as part of it, so that
// they count as a difference.
func grants(policy string) (map[string]string, error) {
	root, err := hcl.Parse(policy)
	if err != nil {
		return nil, errors.New("it is not HCL")
	}
	items, ok := root.Node.(*ast.ObjectList)
	if !ok {
		return nil, errors.New("it is no list of paths")
	}
	all := make(map[string]string)
	for _, item := range items.Filter("path").Items {
		if len(item.Keys) != 1 {
			return nil, errors.New("a path has no name")
		}
		name, ok := item.Keys[0].Token.Value().(string)
		if !ok {
			return nil, errors.New("a path has no name")
		}
		var body map[string]any
		if err := hcl.DecodeObject(&body, item.Val); err != nil {
			return nil, fmt.Errorf("the block of %s cannot be read", name)
		}
		what := grant(body)
		if old, twice := all[name]; twice {
			what = old + ", " + what
		}
		all[name] = what
	}
	if len(all) != len(items.Items) {
		return nil, errors.New("it holds more than one block for each path")
	}
	return all, nil
}

func grant(body map[string]any) string {
	var parts []string
	capabilities, _ := body["capabilities"].([]any)
	for _, c := range capabilities {
		parts = append(parts, fmt.Sprint(c))
	}
	slices.Sort(parts)
	for _, name := range sortedKeys(body) {
		if name != "capabilities" {
			parts = append(parts, fmt.Sprintf("%s=%v", name, body[name]))
		}
	}
	return strings.Join(parts, ", ")
}
