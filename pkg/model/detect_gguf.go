// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"encoding/binary"
	"io"
	"slices"
	"strings"
)

const (
	// maxGGUFHeader bounds the header that is read, in bytes. A vocabulary takes
	// some ten million; it is skipped over, not kept.
	maxGGUFHeader = 256 << 20
	maxGGUFKeys   = 1 << 16
	maxGGUFName   = 1 << 16 // of a key or a tensor, in bytes (the format's own limit)
	maxGGUFText   = 4 << 10 // of a value that is kept, in bytes
	maxGGUFDepth  = 4       // arrays in arrays
)

// ggufFacts is what the headers of GGUF files say. The first file by path that
// names an architecture speaks for the model, but for its types and tensors.
type ggufFacts struct {
	architecture, name, license, sizeLabel string

	types   []string
	tensors tensorCount
}

func (g *ggufFacts) learn(p string, r io.Reader, size int64) {
	h, err := readGGUF(r, size, func(name string, parameters int64) {
		g.tensors.add(p, name, "", parameters)
	})
	if err != nil {
		g.tensors.unknown = true
	}
	if t, ok := ggufFileTypes[h.fileType]; ok && h.hasFileType && !slices.Contains(g.types, t) {
		g.types = append(g.types, t)
	}
	// A projector ("clip") stands beside the model that it serves.
	architecture := cleanText(h.text["general.architecture"])
	if architecture == "" || g.architecture != "" && g.architecture != "clip" || architecture == "clip" && g.architecture == "clip" {
		return
	}
	g.architecture = architecture
	g.name = cleanText(h.text["general.name"])
	g.license = spdxOf(cleanText(h.text["general.license"]))
	g.sizeLabel = cleanText(h.text["general.size_label"])
}

// class is the kind of network (model-spec, "architecture"), for the
// architectures of llama.cpp that are language models.
func (g *ggufFacts) class() string {
	switch a := g.architecture; {
	case a == "":
		return ""
	case strings.HasPrefix(a, "mamba"):
		return "ssm"
	case strings.Contains(a, "rwkv"):
		return "rnn"
	case slices.Contains([]string{"wavtokenizer-dec", "sd1", "sd3", "sdxl", "flux", "aura", "wan", "hyvid", "ltxv", "cosmos", "lumina2"}, a):
		return ""
	}
	return "transformer"
}

func (g *ggufFacts) precision() string {
	var out []string
	for _, t := range g.types {
		if p := map[string]string{"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[t]; p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, ",")
}

func (g *ggufFacts) quantization() string {
	var out []string
	for _, t := range g.types {
		if t != "F32" && t != "F16" && t != "BF16" {
			out = append(out, t)
		}
	}
	return strings.Join(out, ",")
}

// paramSize counts the tensors, and takes the label's word where that fails.
func (g *ggufFacts) paramSize() string {
	if s := paramSize(g.tensors.sum()); s != "" {
		return s
	}
	if isParamSize(g.sizeLabel) {
		return g.sizeLabel
	}
	return ""
}

// ggufFileTypes names the values of general.file_type (llama.cpp, llama_ftype).
var ggufFileTypes = map[uint32]string{
	0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
	11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
	18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S",
	25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
	32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}

// ggufHeader holds the values that are kept of a header.
type ggufHeader struct {
	text        map[string]string
	fileType    uint32
	hasFileType bool
}

// readGGUF reads the header of a GGUF file of size bytes, versions 2 and 3,
// little-endian (github.com/ggml-org/ggml, docs/gguf.md). What was understood
// before an error is returned with it.
func readGGUF(r io.Reader, size int64, add func(name string, parameters int64)) (ggufHeader, error) {
	g := &ggufReader{r: bufio.NewReaderSize(io.LimitReader(r, min(size, maxGGUFHeader)), 64<<10)}
	h := ggufHeader{text: make(map[string]string)}
	magic, version, tensors, keys := g.u32(), g.u32(), g.u64(), g.u64()
	if g.err != nil || magic != 0x46554747 || version < 2 || version > 3 || keys > maxGGUFKeys || tensors > maxTensors {
		return h, errMalformed
	}
	for range keys {
		g.pair(&h)
		if g.err != nil {
			return h, g.err
		}
	}
	for range tensors {
		name, parameters := g.tensor()
		if g.err != nil {
			return h, g.err
		}
		add(name, parameters)
	}
	return h, nil
}

// ggufReader reads until its first error and keeps that.
type ggufReader struct {
	r   *bufio.Reader
	err error
}

func (g *ggufReader) bytes(n int) []byte {
	b := make([]byte, n)
	if g.err == nil {
		_, g.err = io.ReadFull(g.r, b)
	}
	return b
}

func (g *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(g.bytes(4)) }
func (g *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(g.bytes(8)) }

func (g *ggufReader) skip(n uint64) {
	if g.err == nil && n > maxGGUFHeader {
		g.err = errMalformed
	}
	if g.err == nil {
		_, g.err = g.r.Discard(int(n))
	}
}

// string reads a string of at most limit bytes.
func (g *ggufReader) string(limit uint64) string {
	n := g.u64()
	if g.err == nil && n > limit {
		g.err = errMalformed
	}
	if g.err != nil {
		return ""
	}
	return string(g.bytes(int(n)))
}

// The value types of GGUF that are not of a fixed size.
const (
	ggufUint32 = 4
	ggufString = 8
	ggufArray  = 9
)

// ggufSizes holds the sizes in bytes of the value types, by number.
var ggufSizes = [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

// ggufKept are the texts that are kept of a header.
var ggufKept = [...]string{"general.architecture", "general.name", "general.license", "general.size_label"}

func (g *ggufReader) pair(h *ggufHeader) {
	key := g.string(maxGGUFName)
	kind := g.u32()
	switch {
	case g.err != nil:
	case kind == ggufString && slices.Contains(ggufKept[:], key):
		n := g.u64()
		if n > maxGGUFText {
			g.skip(n)
			return
		}
		if value := string(g.bytes(int(n))); g.err == nil {
			h.text[key] = value
		}
	case kind == ggufUint32 && key == "general.file_type":
		h.fileType = g.u32()
		h.hasFileType = g.err == nil
	default:
		g.value(kind, 0)
	}
}

// value skips over one value.
func (g *ggufReader) value(kind uint32, depth int) {
	switch {
	case g.err != nil:
	case kind == ggufString:
		g.skip(g.u64())
	case kind == ggufArray:
		g.array(depth + 1)
	case int(kind) < len(ggufSizes):
		g.skip(ggufSizes[kind])
	default:
		g.err = errMalformed
	}
}

func (g *ggufReader) array(depth int) {
	kind, n := g.u32(), g.u64()
	if depth > maxGGUFDepth || n > maxGGUFHeader || int(kind) >= len(ggufSizes) {
		g.err = errMalformed
	}
	if g.err != nil {
		return
	}
	if size := ggufSizes[kind]; size > 0 {
		g.skip(n * size)
		return
	}
	for range n {
		if g.value(kind, depth); g.err != nil {
			return
		}
	}
}

func (g *ggufReader) tensor() (string, int64) {
	name := g.string(maxGGUFName)
	dims := g.u32()
	if g.err == nil && dims > maxDimensions {
		g.err = errMalformed
	}
	if g.err != nil {
		return "", 0
	}
	shape := make([]int64, dims)
	for i := range shape {
		shape[i] = int64(g.u64())
	}
	g.u32() // type
	g.u64() // offset
	n, ok := elements(shape)
	if g.err == nil && !ok {
		g.err = errMalformed
	}
	return name, n
}
