// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package strictjson reads JSON that somebody signed or that decides something:
// every reader must see the same document. encoding/json lets the last of two
// duplicate keys win and matches field names without regard to case, so that
// one byte string can mean one thing to it and another to a stricter parser.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth bounds nesting, so that a hostile document cannot exhaust the stack.
const maxDepth = 64

// Check reports whether data is exactly one JSON value in which no object has
// two keys that are equal, or equal when case is ignored, and nothing follows it.
func Check(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	return atEnd(dec)
}

// Unmarshal checks data as Check does and decodes it into v. Unknown fields are
// kept out silently: formats that others extend need that.
func Unmarshal(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// UnmarshalKnown is Unmarshal for our own formats: an unknown field is an error.
func UnmarshalKnown(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func atEnd(dec *json.Decoder) error {
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON value")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON is nested deeper than %d", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if delim == '[' {
		for dec.More() {
			if err := checkValue(dec, depth+1); err != nil {
				return err
			}
		}
	} else if err := checkObject(dec, depth); err != nil {
		return err
	}
	_, err = dec.Token() // the closing delimiter
	return noEOF(err)
}

func checkObject(dec *json.Decoder, depth int) error {
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return noEOF(err)
		}
		key := tok.(string) // the decoder allows nothing else here
		// Case is folded as encoding/json folds it, so that no variant that it
		// would accept for a field can stand beside the field.
		folded := strings.ToLower(strings.ToUpper(key))
		if seen[folded] {
			return fmt.Errorf("duplicate JSON key %q", key)
		}
		seen[folded] = true
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// noEOF turns the decoder's io.EOF into an error that callers cannot mistake for
// a normal end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
