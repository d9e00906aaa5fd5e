// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package docs holds the documentation against the program: the README's tour is
// run, and what pages say of flags, results, tests and files must be so.
package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the module's root, as seen from this package.
var root = filepath.Join("..", "..")

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pages lists the Markdown files of the project itself.
func pages(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, rel)
		}
	}
	if len(names) < 8 {
		t.Fatalf("only %v found", names)
	}
	return names
}

// section returns what stands under a heading, up to the next one of the same or
// a higher level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	level, _, _ := strings.Cut(heading, " ")
	_, rest, found := strings.Cut("\n"+text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	end := regexp.MustCompile(`(?m)^#{1,` + string(rune('0'+len(level))) + `} `).FindStringIndex(rest)
	if end == nil {
		return rest
	}
	return rest[:end[0]]
}

// tables returns the rows of every table in text, without heads, cell by cell.
func tables(text string) [][]string {
	var rows [][]string
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		head := i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || head {
			continue
		}
		// A bar inside a cell is written \|.
		line = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), `\|`, "\x00")
		cells := strings.Split(line, "|")
		for j := range cells {
			cells[j] = strings.ReplaceAll(strings.TrimSpace(cells[j]), "\x00", "|")
		}
		rows = append(rows, cells)
	}
	return rows
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program builds aegis-oci once and returns its path.
func program(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "aegis-docs-"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", built.dir+string(filepath.Separator), "./cmd/aegis-oci")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = err
			t.Logf("%s", out)
		}
	})
	if built.err != nil {
		t.Fatalf("build aegis-oci: %v", built.err)
	}
	return filepath.Join(built.dir, "aegis-oci")
}

var (
	linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headPattern = regexp.MustCompile(`(?m)^#+ (.+)$`)
	codePattern = regexp.MustCompile("(?s)```.*?```")
)

// anchors are GitHub's names for the headings of a page.
func anchors(text string) []string {
	var all []string
	for _, m := range headPattern.FindAllStringSubmatch(codePattern.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(strings.ReplaceAll(m[1], "`", ""))
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

func TestLinksBetweenPagesLeadSomewhere(t *testing.T) {
	headings := map[string][]string{} // by page: hundreds of links lead to a few
	for _, name := range pages(t) {
		text := codePattern.ReplaceAllString(page(t, name), "")
		for _, m := range linkPattern.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, hasAnchor := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if !hasAnchor {
				continue
			}
			if headings[target] == nil {
				headings[target] = anchors(page(t, target))
			}
			if !slices.Contains(headings[target], anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", name, m[1], target)
			}
		}
	}
}

// TestMakeTargetsExist finds every "make TARGET" that stands in code.
func TestMakeTargetsExist(t *testing.T) {
	makefile := page(t, "Makefile")
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	use := regexp.MustCompile(`(?m)(?:^|[\x60;& ])make((?: [a-z][a-z-]*)+)`)
	seen := 0
	for _, name := range pages(t) {
		for _, snippet := range code.FindAllString(page(t, name), -1) {
			for _, m := range use.FindAllStringSubmatch(snippet, -1) {
				for target := range strings.FieldsSeq(m[1]) {
					seen++
					if !regexp.MustCompile(`(?m)^([a-z -]* )?` + target + `( [a-z -]*)?:`).MatchString(makefile) {
						t.Errorf("%s says make %s, and the Makefile has no such target", name, target)
					}
				}
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d uses of make found: does the pattern still match?", seen)
	}
}

// TestExamplesNameOnlyReservedHosts keeps other people's registries out of
// commands that somebody may paste.
func TestExamplesNameOnlyReservedHosts(t *testing.T) {
	host := regexp.MustCompile(`\b([a-z0-9-]+(?:\.[a-z0-9-]+)+)(?::\d+)?/models/`)
	for _, name := range pages(t) {
		for _, m := range host.FindAllStringSubmatch(page(t, name), -1) {
			if !strings.HasSuffix(m[1], ".example.com") && !strings.HasPrefix(m[1], "127.") {
				t.Errorf("%s names the registry %s", name, m[1])
			}
		}
	}
}

// walk calls fn for every file of the tree that is the project's own.
func walk(t *testing.T, fn func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			switch e.Name() {
			case ".git", "bin", "dist", "node_modules":
				return fs.SkipDir
			}
			return nil
		}
		fn(path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
