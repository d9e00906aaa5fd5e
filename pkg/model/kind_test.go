// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import "testing"

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		path    string
		size    int64
		head    string
		want    Kind
		guessed bool
	}{
		{path: "model-00001-of-00002.safetensors", want: Weight},
		{path: "MODEL.GGUF", want: Weight},
		{path: "silero_vad.onnx", want: Weight},
		{path: "model.onnx_data", want: Weight},
		{path: "model.onnx.data", want: Weight},
		{path: "pytorch_model.bin", want: Weight},
		{path: "variables/variables.data-00000-of-00001", want: Weight},
		{path: "saved_model.pb", want: Weight},
		{path: "config.json", want: WeightConfig},
		{path: "tokenizer.model", want: WeightConfig},
		{path: "model.safetensors.index.json", want: WeightConfig},
		{path: "vocab.txt", want: WeightConfig},
		{path: "chat_template.jinja", want: WeightConfig},
		{path: "tokenizer.json", size: largeFile + 1, want: WeightConfig},
		{path: "modeling.py", want: Code},
		{path: "license_model.py", want: Code},
		{path: "requirements.txt", want: Code},
		{path: "requirements-dev.txt", want: Code},
		{path: "Dockerfile", want: Code},
		{path: "lib/libfoo.so", want: Code},
		{path: "README.md", want: Doc},
		{path: "README", want: Doc},
		{path: "LICENSE", want: Doc},
		{path: "LICENSE-APACHE", want: Doc},
		{path: "COPYING.txt", want: Doc},
		{path: "figures/loss.png", want: Doc},
		{path: "notes.txt", want: Doc},
		{path: "train.parquet", want: Dataset},
		{path: "train.jsonl", want: Dataset},
		{path: "noext", head: "GGUF\x03\x00\x00\x00", want: Weight},
		{path: "noext", head: packSafetensors(`{"a":1}`), want: Weight},
		{path: "noext", head: "\x89HDF\r\n\x1a\n", want: Weight},
		{path: "noext", head: "#!/bin/sh\n", want: Code},
		{path: "noext", head: "PAR1....", want: Dataset},
		{path: "noext", head: "%PDF-1.7", want: Doc},
		{path: "noext", want: Code, guessed: true},
		{path: "x.unknown", size: largeFile, want: Code, guessed: true},
		{path: "x.unknown", size: largeFile + 1, want: Weight, guessed: true},
	} {
		got, guessed := kindOf(c.path, c.size, []byte(c.head))
		if got != c.want || guessed != c.guessed {
			t.Errorf("%s (%d bytes, %q) is %s, guessed %v; want %s, %v", c.path, c.size, c.head, got, guessed, c.want, c.guessed)
		}
	}
}
