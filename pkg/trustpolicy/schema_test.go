// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"
	"go.yaml.in/yaml/v3"
)

const schemaFile = "../../docs/trust-policy.schema.json"

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat = true
	if err := c.AddResource("policy.json", bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// generic reads a document as an editor does that knows YAML and the schema alone.
// Times are the texts that they are in JSON.
func generic(doc string) (any, error) {
	var n, more yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(doc))
	if err := dec.Decode(&n); err != nil {
		return nil, err
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document")
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!timestamp" {
			n.Tag = "!!str"
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(&n)
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec2 := json.NewDecoder(bytes.NewReader(raw))
	dec2.UseNumber()
	err = dec2.Decode(&v)
	return v, err
}

func TestSchemaAcceptsWhatTheParserAccepts(t *testing.T) {
	s := schema(t)
	docs := map[string]string{"good.yaml": goodYAML, "good.json": goodJSON, "full.yaml": fullYAML, "full.json": fullJSON}
	for i, good := range goodScopes {
		docs[fmt.Sprintf("scope %d", i)] = fmt.Sprintf("{version: 1, policies: [{name: a, scopes: [%q], keys: [{name: k, publicKeyFile: k.pub}]}]}", good)
	}
	files, err := filepath.Glob("../../examples/policies/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("examples: %q, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs[file] = string(b)
	}
	for name, doc := range docs {
		if !strings.HasPrefix(name, "scope") { // those are flow YAML and begin with {
			if _, err := Parse([]byte(doc)); err != nil {
				t.Errorf("%s: the parser refuses it: %v", name, err)
			}
		}
		v, err := generic(doc)
		if err == nil {
			err = s.Validate(v)
		}
		if err != nil {
			t.Errorf("%s: the schema refuses it: %v", name, err)
		}
	}
}

var goodScopes = []string{
	"*", "r.io/**", "r.io/*", "r.io/a/**", "r.io/a/*", "r.io/a/b", "R.IO/a__b/c.d", "r.io:443/a", "[::1]:5000/**", "localhost/x", "host:5000/a/**",
}

// TestSchemaRefusesWhatTheParserRefuses holds both against every fault. What is
// marked as beyond a schema must be accepted by it, or not be readable at all, so
// that the marks are true.
func TestSchemaRefusesWhatTheParserRefuses(t *testing.T) {
	s := schema(t)
	held, beyond := 0, 0
	for _, set := range []struct {
		good  string
		edits []edit
	}{{goodYAML, parseFaults}, {fullYAML, constraintFaults}} {
		for _, row := range set.edits {
			doc := strings.Replace(set.good, row.old, row.new, 1)
			if _, err := Parse([]byte(doc)); err == nil {
				t.Errorf("%s: the parser accepts it", row.name)
			}
			v, err := generic(doc)
			refuses := err == nil && s.Validate(v) != nil
			if row.beyond {
				beyond++
			} else {
				held++
			}
			if refuses == row.beyond {
				t.Errorf("%s: beyond a schema: %v; the schema refuses it: %v (%v)", row.name, row.beyond, refuses, err)
			}
		}
	}
	if held < 90 {
		t.Errorf("%d faults are held by both, %d by the parser alone", held, beyond)
	}
}
