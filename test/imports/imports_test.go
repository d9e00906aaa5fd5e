// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package imports holds the design's import table against what the packages
// really import.
package imports

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/aegis-oci/aegis-oci"

const (
	oras     = "oras.land/oras-go/v2/registry/remote"
	vaultAPI = "github.com/hashicorp/vault/api"
	cobra    = "github.com/spf13/cobra"
)

func own(name string) string { return module + "/pkg/" + name }

// never lists what a package must not reach, directly or through others.
var never = map[string][]string{
	"signature":          {"net/http", oras, vaultAPI, cobra},
	"signature/sigstore": {"net/http", oras, vaultAPI, cobra},
	"trustpolicy":        {own("registry"), own("vault"), own("verify"), "net/http"},
	"verify":             {own("registry"), own("vault"), "net/http"},
	"vault":              {own("registry"), own("verify"), own("model"), cobra},
	"vaultsetup":         {own("registry"), own("verify"), own("model"), "net/http", vaultAPI, cobra},
	"layout":             {oras, vaultAPI, own("registry"), own("verify"), own("model"), own("trustpolicy"), "net/http", cobra},
	"registry":           {vaultAPI, own("verify"), own("model"), own("trustpolicy"), cobra},
	"transfer":           {vaultAPI, own("verify"), own("model"), own("trustpolicy"), cobra},
	"model":              {own("registry"), vaultAPI, "net/http", cobra},
	"auditlog":           {own("registry"), own("vault"), own("verify"), vaultAPI, "net/http", cobra},
	"nodecache":          {oras, vaultAPI, own("registry"), own("vault"), own("verify"), own("model"), own("trustpolicy"), "net/http", cobra},
	"digestcache":        {oras, vaultAPI, own("registry"), own("verify"), own("model"), own("trustpolicy"), "net/http", cobra},
	"aegis":              {cobra},

	"signature/notary":        {"net/http", oras, vaultAPI, cobra},
	"signature/formats":       {"net/http", oras, vaultAPI, cobra},
	"signature/simplesigning": {"net/http", oras, vaultAPI, cobra},
	"signature/oms":           {"net/http", oras, vaultAPI, cobra},
	"revocation":              {oras, vaultAPI, own("registry"), own("verify"), own("model"), own("trustpolicy"), cobra},
	"timestamp":               {oras, vaultAPI, own("registry"), own("verify"), own("model"), cobra},
}

// neverDirectly lists what a package must not import itself. The standard
// library's own packages reach os, so that the whole tree cannot be asked.
var neverDirectly = map[string][]string{
	"verify":             {"os"},
	"signature":          {"os"},
	"signature/sigstore": {"os"},
	"trustpolicy":        {"os"},
	"auditlog":           {"os"},
	"vaultsetup":         {"os"},

	"signature/notary":        {"os"},
	"signature/formats":       {"os"},
	"signature/simplesigning": {"os"},
	"signature/oms":           {"os"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Dir        string
	GoFiles    []string
}

func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Dir,GoFiles"}, patterns...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestImportTable(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, p := range list(t, module+"/pkg/...") {
		name := strings.TrimPrefix(p.ImportPath, module+"/pkg/")
		for _, banned := range never[name] {
			if slices.Contains(p.Deps, banned) {
				t.Errorf("%s reaches %s", name, banned)
			}
		}
		for _, banned := range neverDirectly[name] {
			if slices.Contains(p.Imports, banned) {
				t.Errorf("%s imports %s", name, banned)
			}
		}
		if _, ok := never[name]; ok {
			seen++
		} else if !strings.HasPrefix(name, "internal/") {
			t.Errorf("%s has no row in the import table", name)
		}
	}
	if seen != len(never) {
		t.Errorf("%d of the table's %d packages were found", seen, len(never))
	}
}

// TestPluginKnowsNoServer: the contract is spoken over any keys.
func TestPluginKnowsNoServer(t *testing.T) {
	t.Parallel()
	pkgs := list(t, module+"/plugin")
	if len(pkgs) != 1 {
		t.Fatalf("%d packages", len(pkgs))
	}
	for _, banned := range []string{own("registry"), own("verify"), own("model"), own("vault"), vaultAPI, cobra, "net/http"} {
		if slices.Contains(pkgs[0].Deps, banned) {
			t.Errorf("plugin reaches %s", banned)
		}
	}
}

func TestOnlyPackageVaultImportsItsClient(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, module+"/...") {
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, vaultAPI) && p.ImportPath != own("vault") {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

// TestNoTestServerIsInTheProduct keeps what only tests need out of the program.
func TestNoTestServerIsInTheProduct(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, module+"/cmd/...") {
		for _, dep := range p.Deps {
			if dep == "testing" || strings.HasPrefix(dep, "cuelabs.dev/") || strings.HasPrefix(dep, module+"/internal/") {
				t.Errorf("%s reaches %s", p.ImportPath, dep)
			}
		}
	}
}

// TestOneCallerExtractsUnverified finds every use of model.UnpackUnverified and
// of the workflow around it.
func TestOneCallerExtractsUnverified(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"UnpackUnverified": {"pkg/aegis/verify.go"},
		"DecodeUnverified": {"pkg/aegis/verify.go"},
		"PullUnverified":   {"cmd/aegis-oci/internal/cli/pull.go"},
	} {
		if got := users(t, name); !slices.Equal(got, want) {
			t.Errorf("%s is used in %v, want %v", name, got, want)
		}
	}
}

// users lists the non-test files that select name from a package or value.
func users(t *testing.T, name string) []string {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found := false
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == name {
				found = true
			}
			return !found
		})
		if found {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
