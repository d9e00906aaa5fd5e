// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// goTests maps "package.TestName" to true for every test of the tree. The package
// is the directory's name, so that external test packages count as what they test.
func goTests(t *testing.T) map[string]bool {
	t.Helper()
	tests := make(map[string]bool)
	walk(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && regexp.MustCompile(`^(Test|Fuzz|Example)`).MatchString(fn.Name.Name) {
				tests[filepath.Base(filepath.Dir(path))+"."+fn.Name.Name] = true
			}
		}
	})
	return tests
}

// TestThreatModelNamesTestsThatExist holds each row of the table to the tree.
func TestThreatModelNamesTestsThatExist(t *testing.T) {
	tests := goTests(t)
	rows := tables(page(t, "docs/threat-model.md"))
	if len(rows) < 20 {
		t.Fatalf("the table has %d rows only", len(rows))
	}
	quoted := regexp.MustCompile("^`([^`]+)`$")
	for _, row := range rows {
		if len(row) != 5 || row[0] == "" || row[1] == "" || row[2] == "" {
			t.Errorf("a row has %d cells, or empty ones: %q", len(row), row)
			continue
		}
		for name := range strings.SplitSeq(row[4], ", ") {
			m := quoted.FindStringSubmatch(name)
			switch {
			case m == nil:
				t.Errorf("%s, %s: %q is not the name of a test", row[0], row[1], name)
			case strings.HasPrefix(m[1], "script/"):
				script := filepath.Join(root, "cmd", "aegis-oci", "testdata", m[1]+".txtar")
				if _, err := os.Stat(script); err != nil {
					t.Errorf("%s, %s: %v", row[0], row[1], err)
				}
			case !tests[m[1]]:
				t.Errorf("%s, %s: there is no %s", row[0], row[1], m[1])
			}
		}
	}
}
