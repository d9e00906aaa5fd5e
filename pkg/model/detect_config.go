// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxConfigJSON bounds what is read of a config.json, in bytes.
	maxConfigJSON = 4 << 20
	maxText       = 256 // bytes of a name or type taken from a file
)

// huggingConfig is what is used of the config.json of a Transformers model.
type huggingConfig struct {
	Architectures       []string
	ModelType           string
	DType               string
	TransformersVersion string
	QuantMethod         string
}

// readHuggingConfig takes each field for itself: config.json has no schema, and a
// field of another type says nothing about the others.
func readHuggingConfig(r io.Reader) huggingConfig {
	raw, err := io.ReadAll(io.LimitReader(r, maxConfigJSON+1))
	if err != nil || len(raw) > maxConfigJSON {
		return huggingConfig{}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return huggingConfig{}
	}
	text := func(key string) string {
		var s string
		if json.Unmarshal(fields[key], &s) != nil {
			return ""
		}
		return cleanText(s)
	}
	c := huggingConfig{ModelType: text("model_type"), DType: text("torch_dtype"), TransformersVersion: text("transformers_version")}
	if c.DType == "" {
		c.DType = text("dtype") // its name since Transformers 4.56
	}
	if json.Unmarshal(fields["architectures"], &c.Architectures) != nil {
		c.Architectures = nil
	}
	var quantization struct {
		Method any `json:"quant_method"`
	}
	if json.Unmarshal(fields["quantization_config"], &quantization) == nil {
		method, _ := quantization.Method.(string)
		c.QuantMethod = cleanText(method)
	}
	return c
}

// architecture is the class of network (model-spec: "transformer", "cnn", "rnn"):
// what the Transformers library loads is a transformer, but for a few types.
func (c huggingConfig) architecture() string {
	switch t := c.ModelType; {
	case c.TransformersVersion == "" && (t == "" || len(c.Architectures) == 0):
		return ""
	case strings.HasPrefix(t, "rwkv"), t == "xlstm":
		return "rnn"
	case strings.HasPrefix(t, "mamba"), t == "falcon_mamba":
		return "ssm"
	case slices.Contains([]string{"resnet", "regnet", "convnext", "convnextv2", "efficientnet", "mobilenet_v1", "mobilenet_v2", "bit"}, t):
		return "cnn"
	case t == "timm_wrapper":
		return ""
	}
	return "transformer"
}

func (c huggingConfig) precision() string {
	dtype := strings.TrimPrefix(c.DType, "torch.")
	switch dtype {
	case "float64", "float32", "float16", "bfloat16", "float8_e5m2", "int8", "uint8":
		return dtype
	case "float8_e4m3", "float8_e4m3fn":
		return "float8_e4m3"
	}
	return ""
}

func (c huggingConfig) quantization() string { return c.QuantMethod }

// packsParameters reports whether several parameters share one element, so that
// the shapes of the tensors do not tell their number.
func (c huggingConfig) packsParameters() bool {
	return c.QuantMethod != "" && !strings.Contains(c.QuantMethod, "fp8")
}

// cleanText returns a name read from a file, or "" for one that is no name: it
// goes into the config that people and terminals read.
func cleanText(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return s
}
