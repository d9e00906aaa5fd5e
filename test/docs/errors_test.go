// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// emittedCodes reads every error code out of the source that classifies errors:
// the second argument of set, what the functions named ...Code return first, what is
// assigned to a code, and the table of rules.
func emittedCodes(t *testing.T) []string {
	t.Helper()
	var decls []ast.Decl
	for _, name := range []string{"errors.go", "errors_servers.go", "errors_trust.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "cmd/aegis-oci/internal/cli", name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		decls = append(decls, file.Decls...)
	}
	codes := map[string]bool{}
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			s, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			codes[s] = true
		}
	}
	for _, decl := range decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			// The table of rules: verify.RuleName: "code".
			ast.Inspect(decl, func(n ast.Node) bool {
				if kv, ok := n.(*ast.KeyValueExpr); ok {
					add(kv.Value)
				}
				return true
			})
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "set" && len(n.Args) == 3 {
					add(n.Args[1])
				}
			case *ast.ReturnStmt:
				if strings.HasSuffix(fn.Name.Name, "Code") && len(n.Results) > 0 {
					add(n.Results[0])
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "code" {
					add(n.Value)
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if i < len(n.Rhs) && slices.Contains([]string{"code", "c"}, assigned(left)) {
						add(n.Rhs[i])
					}
				}
			}
			return true
		})
	}
	delete(codes, "")
	all := make([]string, 0, len(codes))
	for c := range codes {
		all = append(all, c)
	}
	slices.Sort(all)
	if len(all) < 60 {
		t.Fatalf("only %d error codes found in the source: does it still look like that?", len(all))
	}
	return all
}

// assigned is the name of a variable or field.
func assigned(left ast.Expr) string {
	switch left := left.(type) {
	case *ast.SelectorExpr:
		return left.Sel.Name
	case *ast.Ident:
		return left.Name
	}
	return ""
}

// TestEveryErrorCodeHasARow: each row's script must fail with the row's codes.
// That message and hint are the row's is checked where the scripts run.
func TestEveryErrorCodeHasARow(t *testing.T) {
	fails := regexp.MustCompile(`(?m)^(?:fails|exited) (\d+) (\w+)\b`)
	codes, listed := emittedCodes(t), map[string]bool{}
	for _, row := range tables(page(t, "docs/errors.md")) {
		if len(row) != 6 {
			continue
		}
		cause, exit, code, script := row[0], row[2], strings.Trim(row[3], "`"), row[5]
		listed[code] = true
		if !slices.Contains(codes, code) {
			t.Errorf("%s: nothing emits the code %s", cause, code)
		}
		found := false
		for _, dir := range []string{"script", "mounting"} {
			text, err := os.ReadFile(filepath.Join(root, "cmd/aegis-oci/testdata", dir, script+".txt"))
			for _, m := range fails.FindAllStringSubmatch(string(text), -1) {
				found = found || err == nil && m[1] == exit && m[2] == code
			}
		}
		if !found {
			t.Errorf("%s: no line of a script %s fails with %s %s", cause, script, exit, code)
		}
	}
	for _, code := range codes {
		if !listed[code] {
			t.Errorf("docs/errors.md has no row for the code %s", code)
		}
	}
}

// TestEveryJudgementsCodeHasARow holds the codes of results that are judgements
// to the page, in both directions: exit code and error code.
func TestEveryJudgementsCodeHasARow(t *testing.T) {
	made := regexp.MustCompile(`printedError\{exit: (\w+), code: "(\w+)"`)
	exits := map[string]string{"exitRejected": "3", "exitUndecided": "4"}
	emitted := map[string]string{}
	files, err := filepath.Glob(filepath.Join(root, "cmd/aegis-oci/internal/cli/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range made.FindAllStringSubmatch(string(source), -1) {
			emitted[m[2]] = exits[m[1]]
		}
	}
	if len(emitted) < 5 {
		t.Fatalf("only %v found in the source: does it still look like that?", emitted)
	}
	said := map[string]string{}
	for _, row := range tables(section(t, page(t, "docs/errors.md"), "## A result that is a judgement")) {
		said[strings.Trim(row[2], "`")] = row[1]
	}
	if !maps.Equal(said, emitted) {
		t.Errorf("the page says %v, the source %v", said, emitted)
	}
}
