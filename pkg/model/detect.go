// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// detector gathers what the files of a model say about it. Files are shown to it
// in the order of their paths, so that its answer depends on nothing else.
type detector struct {
	formats map[string]int64 // bytes of weights in each format
	tensors tensorCount
	// consolidated counts the second copy of the weights, in the original
	// layout, that some repositories hold beside the first.
	consolidated tensorCount
	hugging      huggingConfig
	gguf         ggufFacts
	licenses     []string
}

func newDetector() *detector {
	return &detector{formats: make(map[string]int64)}
}

// examine tells the kind of the file s and takes in what it says of the model. A
// header that cannot be understood says nothing; it is no reason not to pack.
func (d *detector) examine(s *source) (File, error) {
	f, err := s.open()
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	head := make([]byte, headBytes)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return File{}, fmt.Errorf("read %q: %w", s.path, rootCause(err))
	}
	head = head[:n]
	kind, guessed := kindOf(s.path, s.info.Size(), head)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return File{}, fmt.Errorf("read %q: %w", s.path, rootCause(err))
	}
	d.learn(s, f, kind, weightFormat(s.path, head))
	return File{
		Path: s.path, MediaType: kind.mediaType(), Kind: kind, Size: s.info.Size(),
		Executable: s.executable(), guessed: guessed,
	}, nil
}

// learn reads the header of f where its format is known. A file that cannot be
// read says nothing here; hashing it reports why.
func (d *detector) learn(s *source, f io.Reader, kind Kind, format string) {
	switch {
	case kind == Weight && format != "":
		d.formats[format] += s.info.Size()
		switch format {
		case "safetensors":
			d.learnSafetensors(s.path, f, s.info.Size())
		case "gguf":
			d.gguf.learn(s.path, f, s.info.Size())
		}
	case s.path == "config.json":
		d.hugging = readHuggingConfig(f)
	case kind == Doc && !strings.Contains(s.path, "/"):
		d.learnLicense(s.path, f)
	}
}

// weightFormat names the format of a file of weights, or returns "".
func weightFormat(p string, head []byte) string {
	if strings.HasPrefix(string(head), "GGUF") {
		return "gguf"
	}
	switch ext := path.Ext(strings.ToLower(p)); ext {
	case ".safetensors", ".gguf", ".ggml", ".onnx", ".tflite", ".keras":
		return ext[1:]
	case ".onnx_data", ".ort":
		return "onnx"
	case ".pt", ".pth", ".pt2", ".bin", ".ckpt", ".torchscript", ".ptl", ".distcp":
		return "pytorch"
	case ".h5", ".hdf5":
		return "keras"
	case ".pb":
		return "tensorflow"
	case ".msgpack":
		return "flax"
	case ".pdparams", ".pdiparams", ".pdmodel":
		return "paddle"
	case ".engine", ".plan", ".trt":
		return "tensorrt"
	case ".mlmodel":
		return "coreml"
	case ".pkl", ".pickle":
		return "pickle"
	case ".joblib", ".npz", ".npy", ".nemo", ".mnn", ".rknn", ".dduf", ".llamafile":
		return ext[1:]
	}
	if strings.HasSuffix(strings.ToLower(p), ".onnx.data") {
		return "onnx"
	}
	return ""
}

// details joins what was learned. Headers of weights are believed before
// config.json: they are what will be loaded.
func (d *detector) details() Details {
	tensors := d.tensors
	if tensors.sum() == 0 {
		tensors = d.consolidated
	}
	var out Details
	out.Format = mostOf(d.formats)
	out.Family = cmp.Or(d.hugging.ModelType, d.gguf.architecture)
	out.Architecture = cmp.Or(d.hugging.architecture(), d.gguf.class())
	out.Title = d.gguf.name
	out.Quantization = cmp.Or(d.hugging.quantization(), d.gguf.quantization())
	out.Precision = cmp.Or(tensors.precision(), d.gguf.precision(), d.hugging.precision())
	if !d.hugging.packsParameters() {
		out.ParamSize = cmp.Or(paramSize(tensors.sum()), d.gguf.paramSize())
	}
	out.Licenses = d.allLicenses()
	return out
}

// mostOf returns the key with the greatest value; of equals, the first by name.
func mostOf(m map[string]int64) string {
	best := ""
	for key, n := range m {
		if best == "" || n > m[best] || n == m[best] && key < best {
			best = key
		}
	}
	return best
}

func (d *detector) addLicense(expression string) {
	if expression != "" && !slices.Contains(d.licenses, expression) {
		d.licenses = append(d.licenses, expression)
	}
}

// allLicenses are those of the files or, without any, the one in a GGUF header.
func (d *detector) allLicenses() []string {
	if len(d.licenses) == 0 && d.gguf.license != "" {
		return []string{d.gguf.license}
	}
	slices.Sort(d.licenses)
	return d.licenses
}
