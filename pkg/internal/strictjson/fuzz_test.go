// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzCheck holds what every reader may count on: an accepted document is JSON,
// no key of it is lost by decoding it, and no two keys of an object are one to a
// decoder that ignores case.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":[{"a":2},null,true,"x"]}`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"K":1,"\u212a":2}`, `{"s":1,"\u017f":2}`,
		`{"\ufffd":1,"\xff":2}`, "{\"\xff\":1,\"\xfe\":2}", `{} {}`, `[1,2,`, `"\ud800"`, ``, `1e999`, strings.Repeat("[", maxDepth+1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if Check(data) != nil {
			return
		}
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			if strings.Contains(err.Error(), "out of range") || strings.Contains(err.Error(), "cannot unmarshal number") {
				return // a number too large for any, and still JSON
			}
			t.Fatalf("accepted, and not JSON: %v", err)
		}
		if got, want := keys(t, v), writtenKeys(t, data); got != want {
			t.Fatalf("%d keys of %d", got, want)
		}
		again, err := json.Marshal(v)
		if err != nil || Check(again) != nil {
			t.Fatalf("written again it is refused: %s, %v", again, err)
		}
		if known := UnmarshalKnown(data, new(struct{})); known == nil && v != nil {
			if fields, ok := v.(map[string]any); !ok || len(fields) > 0 {
				t.Fatalf("%s has no unknown field", data)
			}
		}
	})
}

// writtenKeys counts the keys in the text, whether a decoder would keep them or not.
func writtenKeys(t *testing.T, data []byte) int {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	n := 0
	var open []bool // of each open delimiter, whether a key may follow
	key := false    // the next token is one
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			open = append(open, tok == json.Delim('{'))
			key = open[len(open)-1]
			continue
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		default:
			if key {
				n++
				key = false
				continue
			}
		}
		key = len(open) > 0 && open[len(open)-1]
	}
}

// keys counts them, and compares those of one object with each other.
func keys(t *testing.T, v any) int {
	t.Helper()
	n := 0
	switch v := v.(type) {
	case map[string]any:
		var seen []string
		for k, inner := range v {
			for _, s := range seen {
				if len(seen) < 50 && strings.EqualFold(s, k) {
					t.Fatalf("the keys %q and %q of one object", s, k)
				}
			}
			seen = append(seen, k)
			n += 1 + keys(t, inner)
		}
	case []any:
		for _, inner := range v {
			n += keys(t, inner)
		}
	}
	return n
}
