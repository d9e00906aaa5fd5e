// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"path"
	"slices"
	"strings"
)

// Kind is what a file is to the model: the kind in the layer's media type
// (model-spec v0.0.7, docs/spec.md, "layers").
type Kind string

// The kinds.
const (
	Weight       Kind = "weight"
	WeightConfig Kind = "weight.config"
	Code         Kind = "code"
	Doc          Kind = "doc"
	Dataset      Kind = "dataset"
)

// mediaType is the type of a raw layer of the kind: neither archived nor
// compressed, the one encoding that every reader of ModelPack has.
func (k Kind) mediaType() string { return "application/vnd.cncf.model." + string(k) + ".v1.raw" }

const (
	// largeFile is the size in bytes above which a file that nothing else tells
	// about is taken for weights; modctl draws the line at the same place.
	largeFile = 128_000_000
	// headBytes is how much of a file kindOf looks at.
	headBytes = 512
)

// kindOf tells the kind of a file by its name, then by the beginning of its
// content, then by its size. guessed reports that only the size was left to go by.
func kindOf(p string, size int64, head []byte) (k Kind, guessed bool) {
	name := strings.ToLower(path.Base(p))
	if k, ok := kindByName(name); ok {
		return k, false
	}
	if k, ok := kindByContent(head); ok {
		return k, false
	}
	if size > largeFile {
		return Weight, true
	}
	return Code, true
}

// kindByName knows whole names before beginnings, and those before extensions:
// requirements.txt is code though .txt is documentation.
func kindByName(name string) (Kind, bool) {
	if k, ok := kindNames[name]; ok {
		return k, true
	}
	stem, _, _ := strings.Cut(name, ".")
	for _, b := range kindBeginnings {
		// LICENSE, LICENSE.txt and LICENSE-APACHE, not licenses_model.py.
		if rest, ok := strings.CutPrefix(stem, b.text); ok && (rest == "" || strings.ContainsAny(rest[:1], "-_ ")) && isProse(name) {
			return b.kind, true
		}
	}
	for _, e := range kindEndings {
		if strings.HasSuffix(name, e.text) {
			return e.kind, true
		}
	}
	if isCheckpointShard(name) {
		return Weight, true
	}
	k, ok := kindExtensions[path.Ext(name)]
	return k, ok
}

// isProse reports whether name has no extension, or that of a text to be read.
func isProse(name string) bool {
	ext := path.Ext(name)
	return ext == "" || slices.Contains([]string{".txt", ".md", ".rst", ".html", ".pdf", ".adoc"}, ext) || strings.ContainsAny(ext, "-_ 0123456789")
}

// isCheckpointShard knows TensorFlow's variables.data-00000-of-00001.
func isCheckpointShard(name string) bool {
	return strings.HasPrefix(path.Ext(name), ".data-") && strings.Contains(name, "-of-")
}

type kindRule struct {
	text string
	kind Kind
}

var kindBeginnings = []kindRule{
	{"license", Doc}, {"licence", Doc}, {"unlicense", Doc}, {"copying", Doc}, {"notice", Doc}, {"readme", Doc},
	{"changelog", Doc}, {"authors", Doc}, {"contributing", Doc}, {"citation", Doc},
	{"model_card", Doc}, {"modelcard", Doc}, {"use_policy", Doc}, {"use-policy", Doc}, {"acceptable_use", Doc},
	{"requirements", Code},
}

var kindEndings = []kindRule{
	{".index.json", WeightConfig}, {".onnx.data", Weight}, {".onnx_data", Weight}, {".tokenizer.model", WeightConfig},
}

var kindNames = map[string]Kind{
	"tokenizer.model": WeightConfig, "spiece.model": WeightConfig, "sentencepiece.model": WeightConfig,
	"sentencepiece.bpe.model": WeightConfig, "source.spm": WeightConfig, "target.spm": WeightConfig,
	"vocab.txt": WeightConfig, "merges.txt": WeightConfig, "labels.txt": WeightConfig,
	"modelfile": WeightConfig, "kitfile": WeightConfig, "imatrix.dat": WeightConfig,
	"training_args.bin": WeightConfig, "scheduler.pt": WeightConfig, "model_index.json": WeightConfig,
	"dockerfile": Code, "containerfile": Code, "makefile": Code, "cmakelists.txt": Code,
	"pyproject.toml": Code, "setup.cfg": Code, "package.json": Code, "package-lock.json": Code,
	"environment.yml": Code, "environment.yaml": Code, "cargo.toml": Code,
	".gitattributes": Code, ".gitignore": Code, ".dockerignore": Code,
	"dataset_infos.json": Dataset, "modelcard.json": Doc,
}

var kindExtensions = extensions(map[Kind]string{
	Weight: `.safetensors .gguf .ggml .ggjt .bin .pt .pth .pt2 .ptl .pte .ckpt .onnx .ort .pb .h5 .hdf5 .keras
		.tflite .lite .mlmodel .weights .engine .plan .trt .nemo .params .pdparams .pdiparams .pdmodel .pdopt
		.msgpack .ot .npz .npy .joblib .pkl .pickle .llamafile .dduf .mar .caffemodel .torchscript .mnn .rknn
		.om .model .index .meta .nnef .param .tnn .uff .q4_0 .q4_1 .q5_0 .q5_1 .q8_0 .f16 .distcp .zarr .llm`,
	WeightConfig: `.json .json5 .yaml .yml .toml .ini .cfg .conf .config .properties .xml .pbtxt .prototxt
		.jinja .jinja2 .j2 .template .tiktoken .spm .bpe .vocab .dict .dic .modelfile .imatrix .textproto
		.hparams .mlpackage .names .lark .gbnf`,
	Code: `.py .pyi .pyx .ipynb .sh .bash .zsh .fish .bat .ps1 .c .cc .cpp .cxx .h .hh .hpp .cu .cuh .cl .metal
		.rs .go .java .kt .scala .js .mjs .cjs .ts .tsx .jsx .rb .lua .r .jl .swift .cs .m .mm .pl .php .sql
		.proto .cmake .mk .wasm .so .dll .dylib .a .o .exe .whl .jar .css .triton .ptx .nix .gradle .patch .diff`,
	Doc: `.md .mdx .rst .txt .pdf .html .htm .adoc .tex .bib .cff .doc .docx .odt .ppt .pptx .rtf .png .jpg
		.jpeg .gif .svg .webp .bmp .ico .tif .tiff .spdx .log`,
	Dataset: `.parquet .arrow .feather .csv .tsv .jsonl .ndjson .tfrecord .tfrecords .orc .avro .lance
		.wav .flac .mp3 .ogg .opus .mp4 .mkv .webm .avi .mov .sqlite .db .mds`,
})

func extensions(lists map[Kind]string) map[string]Kind {
	byExt := make(map[string]Kind)
	for kind, list := range lists {
		for ext := range strings.FieldsSeq(list) {
			byExt[ext] = kind
		}
	}
	return byExt
}

var kindMagics = []struct {
	offset int
	magic  string
	kind   Kind
}{
	{0, "GGUF", Weight},
	{0, "\x89HDF\r\n\x1a\n", Weight},
	{4, "TFL3", Weight},
	{0, "\x93NUMPY", Weight},
	{0, "PAR1", Dataset},
	{0, "ARROW1", Dataset},
	{0, "SQLite format 3\x00", Dataset},
	{0, "%PDF-", Doc},
	{0, "\x89PNG\r\n\x1a\n", Doc},
	{0, "\xff\xd8\xff", Doc},
	{0, "#!", Code},
	{0, "\x7fELF", Code},
}

func kindByContent(head []byte) (Kind, bool) {
	for _, m := range kindMagics {
		if len(head) > m.offset && bytes.HasPrefix(head[m.offset:], []byte(m.magic)) {
			return m.kind, true
		}
	}
	// A safetensors file is a little-endian length below 100 MB and a JSON object.
	if len(head) > 9 && bytes.Equal(head[4:8], make([]byte, 4)) && string(head[8:10]) == `{"` {
		return Weight, true
	}
	return "", false
}
