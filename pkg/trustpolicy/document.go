// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
	"go.yaml.in/yaml/v3"
)

const (
	// maxDocument bounds what is parsed; a policy is written by hand.
	maxDocument = 1 << 20
	// maxDepth bounds nesting, so that a hostile document cannot exhaust the stack.
	maxDepth = 16
)

// readDocument returns the root of the only document in data. The tree has no
// alias, anchor, explicit tag or merge key, and every key in it is a string that
// its mapping has once, whatever its case.
func readDocument(data []byte) (*yaml.Node, error) {
	if len(data) > maxDocument {
		return nil, &ParseError{Line: 1, Reason: "it is longer than " + strconv.Itoa(maxDocument) + " bytes"}
	}
	if err := checkText(data); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		if err := strictjson.Check(data); err != nil {
			return nil, jsonFault(data, err)
		}
	}
	return readTree(data)
}

// checkText refuses what would make one text two documents: other encodings
// (YAML also reads UTF-16), control characters, and the line breaks of YAML 1.1
// that JSON and YAML 1.2 take for text.
func checkText(data []byte) error {
	line := 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &ParseError{line, "it is not UTF-8"}
		case r == '\uFEFF':
			return &ParseError{line, "it has a byte order mark; save it as UTF-8 without one"}
		case r == '\u0085' || r == '\u2028' || r == '\u2029':
			return &ParseError{line, "it has a line break other than LF or CR LF"}
		case r == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			return &ParseError{line, "it has a line break other than LF or CR LF"}
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0:
			return &ParseError{line, "it has a control character"}
		case r == '\n':
			line++
		}
		i += size
	}
	return nil
}

// checkDirectives refuses %YAML and %TAG, which change how the rest is read and
// leave no trace in the tree. They stand before everything but comments.
func checkDirectives(data []byte) error {
	line := 0
	for text := range strings.Lines(string(data)) {
		line++
		text = strings.TrimSpace(text)
		if strings.HasPrefix(text, "%") {
			return &ParseError{line, "YAML directives are not allowed"}
		}
		if text != "" && text[0] != '#' {
			break
		}
	}
	return nil
}

// jsonFault finds the line for what strictjson has refused.
func jsonFault(data []byte, cause error) error {
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, new(json.RawMessage)); errors.As(err, &syntax) {
		// Offset is behind the offending byte, which may be a line's end itself.
		before := data[:min(max(syntax.Offset-1, 0), int64(len(data)))]
		return &ParseError{1 + bytes.Count(before, []byte("\n")), "not JSON, which it must be as it begins with {: " + syntax.Error()}
	}
	// It is JSON, so strictjson minds what the tree's check minds too.
	if _, err := readTree(data); err != nil {
		return err
	}
	return &ParseError{1, cause.Error()}
}

func readTree(data []byte) (*yaml.Node, error) {
	if err := checkDirectives(data); err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &ParseError{1, "it is empty"}
	} else if err != nil {
		return nil, yamlFault(data, err)
	}
	if err := dec.Decode(&more); err == nil {
		return nil, fault(&more, "", "a second document is not allowed")
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlFault(data, err)
	}
	t := tree{}
	for line := range strings.SplitSeq(string(data), "\n") {
		t.source = append(t.source, []rune(line))
	}
	root := doc.Content[0]
	if err := t.check(root, 1); err != nil {
		return nil, err
	}
	return root, nil
}

var (
	yamlLine      = regexp.MustCompile(`^line ([0-9]+): `)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// yamlFault takes the line out of a message of the YAML parser, which leaves out
// the first line's number.
func yamlFault(data []byte, err error) error {
	reason, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := yamlLine.FindStringSubmatch(reason); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits; too many of them are no line of ours
		reason = reason[len(m[0]):]
	} else if m := unknownAnchor.FindStringSubmatch(reason); m != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+m[1]))
		line, reason = 1+bytes.Count(before, []byte("\n")), "YAML aliases are not allowed"
	}
	return &ParseError{max(line, 1), "not YAML: " + clip(reason)}
}

// tree checks a document's nodes; source is its text, by line and column.
type tree struct {
	source [][]rune
}

func (t tree) check(n *yaml.Node, depth int) error {
	switch {
	case depth > maxDepth:
		return fault(n, "", "it is nested deeper than %d", maxDepth)
	case n.Kind == yaml.AliasNode:
		return fault(n, "", "YAML aliases are not allowed")
	case n.Anchor != "":
		return fault(n, "", "YAML anchors are not allowed")
	case n.Style&yaml.TaggedStyle != 0 || t.at(n) == '!':
		return fault(n, "", "YAML tags are not allowed")
	case n.Tag == "!!merge":
		return fault(n, "", "YAML merge keys are not allowed")
	case n.Kind == yaml.MappingNode:
		if err := checkKeys(n); err != nil {
			return err
		}
	}
	for _, child := range n.Content {
		if err := t.check(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// at returns the character where n begins. The parser drops the tag "!", which
// makes a string of a number for other readers; only the text shows it.
func (t tree) at(n *yaml.Node) rune {
	line, column := n.Line-1, n.Column-1
	if line < 0 || line >= len(t.source) || column < 0 || column >= len(t.source[line]) {
		return 0
	}
	return t.source[line][column]
}

// checkKeys folds case as strictjson does, so that both formats have one rule.
func checkKeys(n *yaml.Node) error {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			continue // an alias, a merge key or a wrong type: named by the checks that follow
		}
		folded := strings.ToLower(strings.ToUpper(key.Value))
		if line, found := first[folded]; found {
			return fault(key, "", "duplicate field %q, first on line %d", clip(key.Value), line)
		}
		first[folded] = key.Line
	}
	return nil
}
