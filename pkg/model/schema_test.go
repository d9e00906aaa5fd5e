// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	modelschema "github.com/modelpack/model-spec/schema"
	ociv1 "github.com/opencontainers/image-spec/schema"

	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// TestPackIsValidByTheSpecsOwnSchemas holds what Pack writes against the schemas
// that model-spec v0.0.7 and image-spec v1.1.1 ship.
func TestPackIsValidByTheSpecsOwnSchemas(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		o     model.PackOptions
	}{
		"one empty file": {files: map[string]string{"empty": ""}},
		"a Hugging Face model": {files: map[string]string{
			"config.json": `{"architectures":["A"],"model_type":"llama","torch_dtype":"bfloat16"}`,
			"README.md":   "---\nlicense: llama3\n---\n", "a b/ü.bin": "w",
		}},
		"every option": {files: map[string]string{"m.onnx": "w"}, o: model.PackOptions{
			Name: "n", Version: "1", CreatedAt: time.Unix(1, 0), Annotations: map[string]string{"k": "v"},
			Details: model.Details{
				Authors: []string{"a"}, Vendor: "v", Family: "f", Title: "t", Description: "d", DocURL: "https://doc", SourceURL: "https://src",
				Revision: "r", Licenses: []string{"MIT"}, Architecture: "cnn", Format: "onnx", ParamSize: "1.8M", Precision: "float32", Quantization: "q",
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range c.files {
				file = filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			p, err := model.Pack(t.Context(), []string{dir}, c.o)
			if err != nil {
				t.Fatal(err)
			}
			if err := modelschema.ValidatorMediaTypeModelConfig.Validate(bytes.NewReader(p.Config())); err != nil {
				t.Errorf("config: %v\n%s", err, p.Config())
			}
			if err := ociv1.ValidatorMediaTypeManifest.Validate(bytes.NewReader(p.Manifest())); err != nil {
				t.Errorf("manifest: %v\n%s", err, p.Manifest())
			}
		})
	}
	if modelschema.ValidatorMediaTypeModelConfig.Validate(bytes.NewReader([]byte(`{"descriptor":{},"config":{"paramsize":"1B"},"modelfs":{"type":"layers","diffIds":["x"]}}`))) == nil {
		t.Error("the schema takes a key it does not have: it checks nothing")
	}
}
