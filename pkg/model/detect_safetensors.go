// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"
)

const (
	// maxTensorHeader bounds the header that is read of one file, in bytes. The
	// format allows 100 MB; real headers are far below.
	maxTensorHeader = 32 << 20
	maxDimensions   = 16
	maxNesting      = 16 // of JSON in values that are skipped
)

var errMalformed = errors.New("malformed header")

// learnSafetensors counts the tensors of the file p. One header that cannot be
// read makes the sum unknown: it must not pass for a smaller model.
func (d *detector) learnSafetensors(p string, r io.Reader, size int64) {
	count := &d.tensors
	if strings.HasPrefix(path.Base(p), "consolidated") {
		count = &d.consolidated
	}
	err := readSafetensors(r, size, func(name, dtype string, parameters int64) {
		count.add(p, name, safetensorsTypes[dtype], parameters)
	})
	if err != nil {
		count.unknown = true
	}
}

// safetensorsTypes gives the spec's names of the types that have one.
var safetensorsTypes = map[string]string{
	"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
	"F8_E4M3": "float8_e4m3", "F8_E5M2": "float8_e5m2", "C64": "complex64",
	"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
	"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}

// readSafetensors reads the header of a safetensors file of size bytes: a length
// in 8 bytes, little-endian, and a JSON object {NAME: {dtype, shape, ...}}
// (huggingface.co/docs/safetensors, "Format"). It is decoded token by token, so
// memory is that of one token.
func readSafetensors(r io.Reader, size int64, add func(name, dtype string, parameters int64)) error {
	var length [8]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxTensorHeader || int64(n) > size-8 {
		return errMalformed
	}
	dec := json.NewDecoder(bufio.NewReader(io.LimitReader(r, int64(n))))
	dec.UseNumber()
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		name, err := stringToken(dec)
		if err != nil {
			return err
		}
		if name == "__metadata__" {
			if err := skipValue(dec); err != nil {
				return err
			}
			continue
		}
		dtype, shape, err := readTensor(dec)
		if err != nil {
			return err
		}
		parameters, ok := elements(shape)
		if !ok {
			return errMalformed
		}
		add(name, dtype, parameters)
	}
	return expect(dec, '}')
}

func readTensor(dec *json.Decoder) (dtype string, shape []int64, err error) {
	if err := expect(dec, '{'); err != nil {
		return "", nil, err
	}
	for dec.More() {
		key, err := stringToken(dec)
		if err != nil {
			return "", nil, err
		}
		switch key {
		case "dtype":
			dtype, err = stringToken(dec)
		case "shape":
			shape, err = readShape(dec)
		default:
			err = skipValue(dec)
		}
		if err != nil {
			return "", nil, err
		}
	}
	if dtype == "" || shape == nil {
		return "", nil, errMalformed
	}
	return dtype, shape, expect(dec, '}')
}

// readShape returns a slice that is not nil: a scalar's shape is empty.
func readShape(dec *json.Decoder) ([]int64, error) {
	if err := expect(dec, '['); err != nil {
		return nil, err
	}
	shape := []int64{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok || len(shape) == maxDimensions {
			return nil, errMalformed
		}
		d, err := number.Int64()
		if err != nil {
			return nil, errMalformed
		}
		shape = append(shape, d)
	}
	return shape, expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return errMalformed
	}
	return nil
}

func stringToken(dec *json.Decoder) (string, error) {
	t, err := dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", errMalformed
	}
	return s, nil
}

func skipValue(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			// The decoder keeps a word for each level.
			if depth++; depth > maxNesting {
				return errMalformed
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth <= 0 {
			return nil
		}
	}
}
