// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package trustpolicy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentationIsTrue reads the page's example and holds its precedence table
// against it.
func TestDocumentationIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/trust-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the page has no YAML example")
	}
	p, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:`([^`]+)`|none: rejected) \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) != 7 {
		t.Fatalf("the precedence table has %d rows, want 7", len(rows))
	}
	for _, row := range rows {
		if row[2] == "" {
			noMatch(t, p, row[1], false)
			continue
		}
		if s, err := p.Match(row[1]); err != nil || s.Name != row[2] {
			t.Errorf("the page says %s needs %s; it is %q, %v", row[1], row[2], s.Name, err)
		}
	}
}
