// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
)

// packSafetensors makes a safetensors file of a header and eight bytes of data.
func packSafetensors(header string) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + "datadata"
}

type ggufPair struct {
	key   string
	kind  uint32
	value []byte
}

func ggufText(s string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(s))), s...)
}

func ggufNumber(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

// ggufTexts is an array of strings, as a vocabulary is.
func ggufTexts(list ...string) []byte {
	b := binary.LittleEndian.AppendUint64(ggufNumber(ggufString), uint64(len(list)))
	for _, s := range list {
		b = append(b, ggufText(s)...)
	}
	return b
}

type ggufTensor struct {
	name  string
	shape []uint64
}

func packGGUF(pairs []ggufPair, tensors []ggufTensor) string {
	b := append([]byte("GGUF"), ggufNumber(3)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(pairs)))
	for _, p := range pairs {
		b = append(append(append(b, ggufText(p.key)...), ggufNumber(p.kind)...), p.value...)
	}
	for _, t := range tensors {
		b = append(append(b, ggufText(t.name)...), ggufNumber(uint32(len(t.shape)))...)
		for _, d := range t.shape {
			b = binary.LittleEndian.AppendUint64(b, d)
		}
		b = append(b, make([]byte, 12)...)
	}
	return string(b) + "tensor data"
}

func llamaGGUF() string {
	return packGGUF([]ggufPair{
		{"general.architecture", ggufString, ggufText("llama")},
		{"general.name", ggufString, ggufText("Tiny Llama")},
		{"general.license", ggufString, ggufText("mit")},
		{"general.file_type", ggufUint32, ggufNumber(15)},
		{"general.size_label", ggufString, ggufText("1.1B")},
		{"tokenizer.ggml.tokens", ggufArray, ggufTexts("<s>", "a", "", "bc")},
		{"llama.rope.freq_base", 6, ggufNumber(0)},
	}, []ggufTensor{{"token_embd.weight", []uint64{2048, 32000}}, {"output_norm.weight", []uint64{2048}}})
}

func packedConfig(t *testing.T, files map[string]string) modelspec.Model {
	t.Helper()
	var m modelspec.Model
	if err := json.Unmarshal(mustPack(t, PackOptions{}, packTree(t, files)).Config(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConfigFromGGUF(t *testing.T) {
	m := packedConfig(t, map[string]string{"tiny.gguf": llamaGGUF(), "mmproj.gguf": packGGUF([]ggufPair{{"general.architecture", ggufString, ggufText("clip")}}, nil)})
	want := modelspec.ModelConfig{Architecture: "transformer", Format: "gguf", ParamSize: "65.5M", Quantization: "Q4_K_M"}
	if m.Config != want {
		t.Errorf("config %+v, want %+v", m.Config, want)
	}
	if m.Descriptor.Family != "llama" || m.Descriptor.Name != "Tiny Llama" || !slices.Equal(m.Descriptor.Licenses, []string{"MIT"}) {
		t.Errorf("descriptor %+v", m.Descriptor)
	}
}

func TestConfigFromGGUFThatEndsEarly(t *testing.T) {
	whole := llamaGGUF()
	m := packedConfig(t, map[string]string{"tiny.gguf": whole[:len(whole)-60]})
	if m.Descriptor.Family != "llama" || m.Config.ParamSize != "1.1B" {
		t.Errorf("family %q, size %q: want what was read, and the label's size", m.Descriptor.Family, m.Config.ParamSize)
	}
}

func TestConfigCountsTheSameTensorOnce(t *testing.T) {
	shard := func(name, dtype string, n string) string {
		return packSafetensors(`{"__metadata__":{"format":"pt"},"` + name + `":{"dtype":"` + dtype + `","shape":[` + n + `],"data_offsets":[0,0]}}`)
	}
	m := packedConfig(t, map[string]string{
		"model-00001-of-00002.safetensors": shard("a", "F16", "4000,1000"),
		"model-00002-of-00002.safetensors": shard("b", "F16", "3000,1000"),
		"model.fp32.safetensors":           shard("a", "F32", "4000,1000"),
		"consolidated.safetensors":         shard("layers.0", "F16", "7000,1000"),
		"vae/model.safetensors":            shard("a", "F32", "1000,100"),
	})
	if m.Config.ParamSize != "7.1M" || m.Config.Precision != "float16,float32" {
		t.Errorf("%q of %q, want 7.1M of float16,float32", m.Config.ParamSize, m.Config.Precision)
	}
}

func TestConfigSaysNothingThatItDoesNotKnow(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"a shard that is cut":     {"a.safetensors": packSafetensors(`{"a":{"dtype":"F16","shape":[1000,1000]}}`), "b.safetensors": "\xff\x00\x00\x00\x00\x00\x00\x00{"},
		"packed in four bits":     {"a.safetensors": packSafetensors(`{"a":{"dtype":"I32","shape":[1000,1000]}}`), "config.json": `{"quantization_config":{"quant_method":"gptq"}}`},
		"dimensions overflow":     {"a.safetensors": packSafetensors(`{"a":{"dtype":"F16","shape":[9000000000,9000000000]}}`)},
		"nested without end":      {"a.safetensors": packSafetensors(`{"a":{"dtype":"F16","shape":[1000,1000]},"__metadata__":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`)},
		"a negative dimension":    {"a.safetensors": packSafetensors(`{"a":{"dtype":"F16","shape":[-1000,-1000]}}`)},
		"no header worth reading": {"a.safetensors": "short", "config.json": `["not an object"]`},
	} {
		if m := packedConfig(t, files); m.Config.ParamSize != "" || m.Config.Format != "safetensors" {
			t.Errorf("%s: paramSize %q, format %q", name, m.Config.ParamSize, m.Config.Format)
		}
	}
}

func TestHuggingConfig(t *testing.T) {
	for _, c := range []struct{ json, architecture, family, precision, quantization string }{
		{`{"model_type":"llama","architectures":["LlamaForCausalLM"],"torch_dtype":"float16"}`, "transformer", "llama", "float16", ""},
		{`{"model_type":"qwen3","transformers_version":"4.56","dtype":"bfloat16"}`, "transformer", "qwen3", "bfloat16", ""},
		{`{"model_type":"rwkv","transformers_version":"4"}`, "rnn", "rwkv", "", ""},
		{`{"model_type":"resnet","architectures":["R"],"torch_dtype":"torch.float32"}`, "cnn", "resnet", "float32", ""},
		{`{"model_type":"x","torch_dtype":{"a":1},"architectures":"no list","quantization_config":{"quant_method":"awq"}}`, "", "x", "", "awq"},
		{`{"model_type":"bad\u001b[31m","transformers_version":"4"}`, "transformer", "", "", ""},
		{`{"n_layers": 3}`, "", "", "", ""},
		{`not json`, "", "", "", ""},
	} {
		h := readHuggingConfig(strings.NewReader(c.json))
		if h.architecture() != c.architecture || h.ModelType != c.family || h.precision() != c.precision || h.quantization() != c.quantization {
			t.Errorf("%s: %q %q %q %q", c.json, h.architecture(), h.ModelType, h.precision(), h.quantization())
		}
	}
}

func TestConfigFormatIsThatOfMostBytes(t *testing.T) {
	m := packedConfig(t, map[string]string{"a.onnx": "four", "b.pt": "fifteen", "onnx/a.onnx": "more bytes"})
	if m.Config.Format != "onnx" {
		t.Errorf("format %q, want onnx", m.Config.Format)
	}
}

func TestParamSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "", 49: "", 50: "0.1K", 999: "1K", 1000: "1K", 350_000_000: "350M", 999_949: "999.9K", 999_950: "1M",
		6_738_415_616: "6.7B", 7_000_000_000: "7B", 8_030_261_248: "8B", 671_026_419_200: "671B",
		1_000_000_000_000: "1T", 2_500_000_000_000_000: "2.5Q", 1 << 62: "",
	} {
		got := paramSize(n)
		if got != want || got != "" && !isParamSize(got) {
			t.Errorf("paramSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestLicenseOfText(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join("testdata", "pack", "licenses"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join("testdata", "pack", "licenses", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSuffix(e.Name(), ".txt"); licenseOfText(string(raw)) != want {
			t.Errorf("the beginning of %s is taken for %q", want, licenseOfText(string(raw)))
		}
	}
	for text, want := range map[string]string{
		"// SPDX-License-Identifier: LGPL-2.1-or-later\n": "LGPL-2.1-or-later",
		"All rights reserved.":                            "",
		"":                                                "",
	} {
		if got := licenseOfText(text); got != want {
			t.Errorf("%q is taken for %q, want %q", text, got, want)
		}
	}
}

func TestFrontMatterLicenses(t *testing.T) {
	for text, want := range map[string][]string{
		"---\nlicense: mit\n---\n":                                  {"mit"},
		"---\r\ntags:\r\n- a\r\nlicense: \"apache-2.0\" # x\r\n---": {"apache-2.0"},
		"---\nlicense:\n- mit\n- 'cc-by-4.0'\nlanguage: en\n---\n":  {"mit", "cc-by-4.0"},
		"---\nlicense: [mit, isc]\n---\n":                           {"mit", "isc"},
		"---\nlanguage: en\n---\nlicense: mit\n":                    nil,
		"license: mit\n":                                            nil,
		"---\nlicense:\n---\n":                                      nil,
		"":                                                          nil,
	} {
		if got := frontMatterLicenses(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestSPDXOf(t *testing.T) {
	for id, want := range map[string]string{
		"apache-2.0": "Apache-2.0", "MIT": "MIT", "other": "", "unknown": "", "": "",
		"llama3.1": "LicenseRef-llama3.1", "creativeml openrail_m": "LicenseRef-creativeml-openrail-m", "//": "",
	} {
		if got := spdxOf(id); got != want {
			t.Errorf("spdxOf(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestConfigJoinsLicenses(t *testing.T) {
	m := packedConfig(t, map[string]string{
		"model.bin": "w", "README.md": "---\nlicense: [mit, llama3]\n---\n", "LICENSE": "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\n",
		"third_party/LICENSE": "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007",
	})
	if !slices.Equal(m.Descriptor.Licenses, []string{"LicenseRef-llama3", "MIT"}) {
		t.Errorf("licenses %q", m.Descriptor.Licenses)
	}
}
